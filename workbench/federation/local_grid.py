"""A Grid in this process: messages go straight to the ClientApp.

Flower's own simulation starts a Ray cluster first; this needs nothing, shares arrays by reference,
and executes messages one after another in the order in which they were pushed, which makes a run
repeat bit for bit. A reply is made when it is pulled, so that replies never pile up.
"""

from __future__ import annotations

import itertools
import traceback
from typing import TYPE_CHECKING

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from workbench.federation import flower

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flwr.clientapp import ClientApp
    from flwr.supercore.run import Run


class LocalGrid(Grid):
    """Run a ClientApp for ``clients`` nodes in this process; node ids are 1 to ``clients``."""

    def __init__(self, client_app: ClientApp, clients: int) -> None:
        flower.ensure_task_identity()
        self._app = client_app
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
        for message_id in list(message_ids):
            message = self._pending.pop(message_id, None)
            if message is not None:
                yield self._execute(message)

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

    def _execute(self, message: Message) -> Message:
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # noqa: BLE001  # a client that fails is an answer, not an end
            reason = "".join(traceback.format_exception_only(error)).strip()
            return Message(Error(flower.RAISED, reason), reply_to=message)
