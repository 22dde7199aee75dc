"""Flower's own simulation engine (Ray) as the place where clients compute.

The same ClientApp runs in Ray's actors, on this machine or on a cluster; time is still that of the
simulated network. It starts slowly and copies every message: for one machine the in-process Grid
is faster.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, Context, Message
from flwr.serverapp import Grid, ServerApp

from workbench.federation import flower

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flwr.app import RecordDict
    from flwr.clientapp import ClientApp
    from flwr.supercore.run import Run

_START_S = 120.0


class RayGrid(Grid):
    """Flower's in-memory Grid, with arrays as bytes, which is what travels between processes."""

    def __init__(self, inner: Grid) -> None:
        self._inner = inner

    def set_run(self, run: Run) -> None:
        """Set the run that this grid reports."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """The run that this grid reports."""
        return self._inner.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; deprecated by Flower, kept because the interface asks for it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, and return their ids."""
        return self._inner.push_messages([_portable(message) for message in messages])

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        return self._inner.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and wait for their replies."""
        portable = [_portable(message) for message in messages]
        return self._inner.send_and_receive(portable, timeout=timeout)


class PortableApp:
    """A ClientApp whose replies can be sent to another process."""

    def __init__(self, app: ClientApp) -> None:
        self._app = app

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message."""
        return _portable(self._app(message, context))


@contextmanager
def ray_grid(client_app: ClientApp, clients: int, address: str | None) -> Iterator[RayGrid]:
    """Start Flower's simulation engine, and end it with the block.

    Parameters
    ----------
    client_app
        What every node runs.
    clients
        Number of nodes.
    address
        Of a Ray cluster, such as ``auto`` or ``ray://host:10001``; None starts one here.

    Raises
    ------
    RuntimeError
        If Ray is not installed or the engine does not start; it names the remedy or the reason.
    """
    if importlib.util.find_spec("ray") is None:
        raise RuntimeError(
            "engine is 'ray', but Ray is not installed; install it with: pip install "
            "-c environments/constraints.txt '.[ray]'"
        )
    flower.check_version()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from flwr.simulation import run_simulation  # noqa: PLC0415  # imports Ray

    grids: queue.Queue[Grid | BaseException] = queue.Queue()
    done = threading.Event()
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        grids.put(grid)
        done.wait()

    def simulate() -> None:
        settings: dict[str, Any] = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
        if address is not None:
            settings["init_args"] = {"address": address}
        try:
            run_simulation(
                server_app=server,
                client_app=PortableApp(client_app),  # type: ignore[arg-type]  # called like one
                num_supernodes=clients,
                backend_config=settings,
            )
        except BaseException as error:  # noqa: BLE001  # told to the thread that waits
            grids.put(error)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    thread = threading.Thread(target=simulate, name="flower-simulation", daemon=True)
    thread.start()
    try:
        try:
            found = grids.get(timeout=_START_S)
        except queue.Empty:
            raise RuntimeError(
                f"Flower's simulation engine did not start within {_START_S:g} s"
            ) from None
        if isinstance(found, BaseException):
            message = f"Flower's simulation engine did not start: {found}"
            raise RuntimeError(message) from found  # noqa: TRY004  # no argument is at fault
        yield RayGrid(found)
    finally:
        done.set()
        thread.join(timeout=_START_S)


def _portable(message: Message) -> Message:
    """Turn views of memory into bytes, which can be sent to another process."""
    if message.has_content():
        for record in message.content.values():
            if isinstance(record, ArrayRecord):
                for array in record.values():
                    array.data = bytes(array.data)
    return message
