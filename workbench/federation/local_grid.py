"""A Grid in this process: messages go straight to the ClientApp.

Flower's own simulation starts a Ray cluster first; this needs nothing and shares arrays by
reference. Replies come in the order in which messages were pushed, which makes a run repeat bit
for bit, and are made when they are pulled, so that they never pile up. Small models are trained
by several processes at once (`workbench.federation.workers`), large ones here with all cores.
"""

from __future__ import annotations

import itertools
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from workbench.federation import flower
from workbench.federation.client import Clients
from workbench.federation.workers import MOST_BYTES, WorkerPool, arena_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flwr.clientapp import ClientApp
    from flwr.supercore.run import Run


class LocalGrid(Grid):
    """Run a ClientApp for ``clients`` nodes; node ids are 1 to ``clients``.

    Parameters
    ----------
    client_app
        What every node runs.
    clients
        Number of nodes.
    workers
        Processes that small models are trained in; 1 does everything in this one.
    """

    def __init__(self, client_app: ClientApp, clients: int, workers: int = 1) -> None:
        flower.ensure_task_identity()
        self._app = client_app
        if isinstance(client_app, Clients):
            client_app.state.lends_weights = True
        self._most_workers = workers
        self._pool: WorkerPool | None = None
        self._run = flower.empty_run()
        self._pending: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        self._contexts = {
            row + 1: Context(
                run_id=0,
                node_id=row + 1,
                node_config={"partition-id": row, "num-partitions": clients},
                state=RecordDict(),
                run_config={},
            )
            for row in range(clients)
        }

    def set_run(self, run: Run) -> None:
        """Set the run that this grid reports."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that this grid reports."""
        return self._run

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

    def get_node_ids(self) -> list[int]:
        """Return the ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages, and return their ids."""
        ids = []
        for message in messages:
            if message.metadata.dst_node_id not in self._contexts:
                raise ValueError(
                    f"no node {message.metadata.dst_node_id}; there are 1..{len(self._contexts)}"
                )
            message_id = f"local-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = message_id
            self._pending[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Execute the named messages in their order, each when its reply is asked for."""
        found = (self._pending.pop(message_id, None) for message_id in list(message_ids))
        messages = [message for message in found if message is not None]
        arena, largest = arena_bytes(messages)
        small = largest <= MOST_BYTES
        # Once there are workers, what nodes keep for later is kept there.
        worth = self._pool is not None or (len(messages) > 1 and largest > 0)
        if self._most_workers == 1 or not (small and worth):
            with _threads(1 if small else torch.get_num_threads()):
                for message in messages:
                    yield self._execute(message)[0]
            return
        for message, answer in self._workers(arena, largest).run(messages):
            if isinstance(answer, str):
                yield Message(Error(flower.RAISED, answer), reply_to=message)
            else:
                yield Message(answer, reply_to=message)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Execute messages and return all replies; nothing here can be waited for."""
        del timeout
        return list(self.pull_messages(self.push_messages(messages)))

    def cancel(self, message_ids: Iterable[str]) -> None:
        """Forget messages that nobody waits for any more."""
        for message_id in message_ids:
            self._pending.pop(message_id, None)

    def close(self) -> None:
        """End the worker processes; a second call does nothing."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _workers(self, arena: int, largest: int) -> WorkerPool:
        """Return the workers; they start when they are needed, and again for larger models."""
        if self._pool is not None and (
            self._pool.arena_bytes < arena or self._pool.slot_bytes < largest
        ):
            self.close()
        if self._pool is None:
            self._pool = WorkerPool(self._execute, self._most_workers, arena, largest)
        return self._pool

    def __del__(self) -> None:
        self.close()

    def _execute(self, message: Message) -> tuple[Message, bool]:
        """Return the reply to a message, and whether the node keeps something for later."""
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._app(message, context)
        except Exception as error:  # noqa: BLE001  # a client that fails is an answer, not an end
            reason = "".join(traceback.format_exception_only(error)).strip()
            reply = Message(Error(flower.RAISED, reason), reply_to=message)
        return reply, len(context.state) > 0


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with a number of threads: small models always with one, here as in a worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
