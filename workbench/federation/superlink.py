"""The live engine: a SuperLink inside the testbed, a node per client, the driver here.

The SuperLink is Flower's own, started in the server's namespace and listening there alone. The
nodes are forked from this process into the clients' namespaces. This process drives the run: it
starts one, takes its task as a ServerApp's process would, and speaks to the SuperLink through
sockets of the server's namespace. So the whole search stays in the notebook.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from workbench.federation import flower, wire
from workbench.federation.driving import start_run
from workbench.federation.light_node import LightNode
from workbench.federation.live_grid import LiveGrid, SuperLinkLostError
from workbench.federation.machine import MachineWatch
from workbench.testbed.enclosure import NetworkLostError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from flwr.clientapp import ClientApp
    from numpy.typing import NDArray

    from workbench.testbed.base import LinkChange
    from workbench.testbed.channel import Channel
    from workbench.testbed.namespaces import NamespaceNetwork
    from workbench.testbed.nursery import ClientProcesses
    from workbench.testbed.programs import Program

PORT = 9092
_START_S = 60.0
_START_PER_CLIENT_S = 0.3


class LiveEngine:
    """Runs a ClientApp on the nodes of a live network; use it as a context manager.

    Parameters
    ----------
    network
        A network that is up.
    client_app
        What every client runs; it is not sent anywhere, so it may be a closure over anything.
    node_configs
        For each client what its ClientApp finds in its context; ``partition-id`` and
        ``num-partitions`` by default.

    Attributes
    ----------
    grid
        A Flower Grid whose nodes are the clients.
    superlink
        The SuperLink's process.
    """

    grid: LiveGrid
    superlink: Program

    def __init__(
        self,
        network: NamespaceNetwork,
        client_app: ClientApp,
        node_configs: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        clients = len(network.fleet)
        self._network = network
        self._app = client_app
        self._configs = node_configs or [
            {"partition-id": row, "num-partitions": clients} for row in range(clients)
        ]
        if len(self._configs) != clients:
            raise ValueError(f"node_configs has {len(self._configs)} entries, not {clients}")
        self._server = f"{network.inside.address()}:{PORT}"
        self._keys = [wire.quick_keys() for _ in range(clients)]
        self._changed = threading.Condition()
        self._node_ids = [0] * clients  # they use all 64 bits, which NumPy's int64 does not hold
        self._alive: NDArray[np.bool_] = np.zeros(clients, dtype=bool)
        self._ended: dict[int, str] = {}
        self._opened = False

    # ------------------------------------------------------------------ what it knows

    @property
    def node_ids(self) -> list[int]:
        """The node id of each client, by row; 0 where a client has never joined."""
        with self._changed:
            return list(self._node_ids)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """(N,) bool: the client has a node that runs."""
        with self._changed:
            return self._alive.copy()

    @property
    def processes(self) -> NDArray[np.int64]:
        """(N,) process number of each client's node, 0 where it has none."""
        return self._nodes.processes

    def limits(self) -> list[str]:
        """Return in words where the machine set the pace since this was asked last."""
        return self._watch.limits()

    def restart(self, client: int | str) -> None:
        """Start the node of a client again whose process has ended; it keeps its node id."""
        row = self._network.fleet.index(client)
        with self._changed:
            if self._alive[row]:
                return
        self._start([row])
        self._wait_for(np.array([row]))

    # ------------------------------------------------------------------ up and down

    def __enter__(self) -> Self:
        flower.check_version()
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End nodes and SuperLink; the network stays up. A second call does nothing."""
        if not self._opened:
            return
        self._opened = False
        self._end_listening()
        if hasattr(self, "_watch"):
            self._watch.close()
        if hasattr(self, "grid"):
            self.grid.close()
        self._nodes.close()
        if hasattr(self, "superlink"):
            with suppress(NetworkLostError):
                self.superlink.kill()
            self.superlink.close()

    def _open(self) -> None:
        self._opened = True
        self._nodes = self._make_nodes()
        self._end_listening = self._network.on_change(self._network_changed)
        self.superlink = self._start_superlink()
        present = np.flatnonzero(self._network.present())
        self._start(present)
        self.grid = self._start_run()
        self._wait_for(present)
        self._watch = MachineWatch(self.superlink.process)

    def _start_superlink(self) -> Program:
        home = self._network.inside.folder / "flower"
        home.mkdir(exist_ok=True)
        program = Path(__file__).with_name("batched_superlink.py")
        host, _, port = self._server.partition(":")
        # -P keeps this folder's modules from being taken for libraries.
        command = [sys.executable, "-P", str(program), "--insecure", "--isolation", "process"]
        command += ["--host", host]
        command += ["--port", port, "--disable-runtime-dependency-installation"]
        environment = {
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PYTHONUNBUFFERED": "1",
        }
        # All messages pass through it: training on the same cores must not hold them up.
        return self._network.inside.spawn(
            command, environment=environment, log="superlink.log", niceness=-10
        )

    def _start_run(self) -> LiveGrid:
        end = time.monotonic() + _START_S
        try:
            return start_run(
                wire.Door(self._server, insecure=True, open_socket=self._network.inside.socket),
                client="forked:app",
                files={},
                give_up=lambda: not self.superlink.running or time.monotonic() > end,
                why_lost=self._why_lost,
                sent=self._ring,
                bells=True,
            )
        except Exception as error:
            raise SuperLinkLostError(
                f"the SuperLink did not start: {self._why_lost() or error}\n"
                f"{self.superlink.last_words()}"
            ) from error

    def _why_lost(self) -> str:
        if self._network.inside.lost:
            return self._network.inside.lost
        if self.superlink.running:
            return ""
        return f"its process has ended; it said last:\n{self.superlink.last_words(5)}"

    # ------------------------------------------------------------------ nodes

    def _make_nodes(self) -> ClientProcesses:
        # The first optimizer of a process loads hundreds of modules: here once for all nodes.
        torch.optim.SGD([torch.zeros(1)], lr=1.0)
        return self._network.inside.fork_clients(
            self._run_node, len(self._network.fleet), self._heard
        )

    def _run_node(self, row: int, channel: Channel) -> None:
        logging.getLogger("flwr").setLevel(logging.WARNING)
        os.environ["FLWR_HOME"] = str(self._network.inside.folder / "flower")
        LightNode(self._app, self._configs[row], self._server, self._keys[row]).serve(channel)

    def _start(self, rows: NDArray[np.int64] | list[int]) -> None:
        with self._changed:
            for row in rows:
                self._ended.pop(int(row), None)
        self._nodes.start(rows)
        for row in rows:
            self._nodes.tell([row], {"known": self._node_ids[row]})

    def _ring(self, nodes: list[int]) -> None:
        """Tell nodes how many messages were sent to them, those with the slowest links first.

        The SuperLink serves one request after the other; a fast link can make up for waiting.
        """
        counts = Counter(nodes)
        with self._changed:
            rows = np.array([row for row, node in enumerate(self._node_ids) if node in counts])
            messages = {int(row): counts[self._node_ids[row]] for row in rows}
        rates = self._network.rates_bps("up")[rows]
        for row in rows[np.argsort(rates, kind="stable")]:
            self._nodes.tell([row], {"ring": messages[int(row)]})

    def _heard(self, row: int, said: dict[str, Any]) -> None:
        """Take in what a node says; called on the thread that listens to them."""
        if "replied" in said:
            self.grid.arrived(said["replied"])
            return
        with self._changed:
            if "node" in said:
                self._node_ids[row] = said["node"]
                self._alive[row] = True
                self._ended.pop(row, None)
            if "ended" in said:
                name = self._network.fleet.names[row]
                self._alive[row] = False
                why = said.get("reason") or f"ended with status {said['ended']}"
                self._ended[row] = f"the process of {name} {why}"
            self._changed.notify_all()
        if self._node_ids[row] and hasattr(self, "grid"):
            if "ended" in said:
                self.grid.lose_node(self._node_ids[row], self._ended[row])
            elif "node" in said:
                self.grid.find_node(self._node_ids[row])

    def _network_changed(self, change: LinkChange) -> None:
        row = self._network.fleet.index(change.client)
        if change.what == "remove":
            self._nodes.kill(row)
        elif change.what == "add":
            self._start([row])

    def _wait_for(self, rows: NDArray[np.int64]) -> None:
        """Wait until these clients' nodes have joined."""
        allowed = _START_S + _START_PER_CLIENT_S * len(rows)
        with self._changed:
            self._changed.wait_for(
                lambda: bool(self._alive[rows].all()) or any(row in self._ended for row in rows),
                allowed,
            )
            missing = [int(row) for row in rows if not self._alive[row]]
            ended = [self._ended[row] for row in missing if row in self._ended]
        if not missing:
            return
        names = ", ".join(self._network.fleet.names[row] for row in missing[:5])
        log = self._network.inside.folder / "clients.log"
        last = log.read_text(errors="replace").splitlines()[-10:] if log.exists() else []
        raise RuntimeError(
            f"{len(missing)} of {len(rows)} nodes did not join within {allowed:.0f} s ({names}): "
            f"{'; '.join(ended[:3]) or 'no reason known'}\n" + "\n".join(last)
        )
