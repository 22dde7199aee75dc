"""A Grid over a real SuperLink, on which no group waits for another.

Flower's own HttpGrid fetches replies one after the other inside ``pull_messages``, and waits
there for a reply whose upload is still under way: one slow client holds up all groups. Here
replies are fetched by threads as soon as they are complete; ``pull_messages`` only hands out what
is there.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import httpx
from flwr.superlink.grid import HttpGrid

from workbench.federation import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flwr.app import Message

Answer = TypeVar("Answer")

_FETCHERS = 4
_FETCHERS_WITHOUT_BELLS = 64
"""Without bells a fetcher also waits for the end of an upload."""
_ASK_S = 0.25
_LOOK_AROUND_S = 10.0
_BEAT_S = 15.0
_PATIENCE_S = 10.0


class SuperLinkLostError(ConnectionError):
    """The SuperLink does not answer any more, or has ended the run."""


class LiveGrid(HttpGrid):
    """Drive one run of a SuperLink from this process.

    Parameters
    ----------
    client
        Client of the SuperLink's Runtime service, with the run's token.
    why_lost
        Called when the SuperLink does not answer; returns the reason if it is known.
    sent
        Called with the node ids to which messages are on their way, so that bells can ring.
    bells
        Whether `arrived` is called for each complete reply. If not, the SuperLink is asked all
        the time.
    """

    def __init__(
        self,
        client: wire.RuntimeHttpClient,
        *,
        why_lost: Callable[[], str],
        sent: Callable[[list[int]], None] | None = None,
        bells: bool = False,
    ) -> None:
        super().__init__(token="in-the-client")  # noqa: S106  # the client adds it to requests
        self._client = self._runtime = client
        client._retry_invoker = cast("Any", self)  # noqa: SLF001  # see `invoke`
        self._why_lost = why_lost
        self._sent = sent
        self._bells = bells
        self._changed = threading.Condition()
        self._pending: dict[str, tuple[int, float]] = {}
        self._announced: set[str] = set()
        self._replies: dict[str, Message] = {}
        self._lost: dict[int, str] = {}
        self._failure: Exception | None = None
        self._closed = False
        self._fetchers = ThreadPoolExecutor(
            _FETCHERS if bells else _FETCHERS_WITHOUT_BELLS, thread_name_prefix="wb-fetch"
        )
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (("wb-ask", self._keep_asking), ("wb-beat", self._keep_beating))
        ]

    def start(self) -> None:
        """Begin to listen; the grid's run must be set."""
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------------------------ the Grid

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Hand messages to the SuperLink and return their ids.

        Raises
        ------
        SuperLinkLostError
            If the SuperLink is gone.
        ValueError
            If it does not accept a message.
        """
        listed = list(messages)
        if not listed:
            return []
        self._check()
        for message in listed:
            # Another testbed of this process may have set the identity that new messages bear.
            message.metadata.__dict__["_run_id"] = self.run.run_id
            message.metadata.__dict__["_src_node_id"] = wire.SUPERLINK_NODE_ID
        ids = [str(message_id) for message_id in super().push_messages(listed)]
        if not all(ids) or len(ids) != len(listed):
            raise ValueError(
                f"the SuperLink refused {ids.count('')} of {len(listed)} messages: "
                "their nodes are unknown to it, or their time is over"
            )
        receivers = [message.metadata.dst_node_id for message in listed]
        with self._changed:
            for message_id, message in zip(ids, listed, strict=True):
                until = message.metadata.created_at + message.metadata.ttl
                self._pending[message_id] = (message.metadata.dst_node_id, until)
            for node in self._lost.keys() & set(receivers):
                self.lose_node(node, self._lost[node])
        if self._sent is not None:
            self._sent(receivers)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to these messages that have come by now; it never waits.

        Raises
        ------
        SuperLinkLostError
            If the SuperLink is gone and no reply is at hand.
        """
        with self._changed:
            found = [self._replies.pop(each) for each in message_ids if each in self._replies]
        if not found:
            self._check()
        return found

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and wait for the replies, at most ``timeout`` seconds."""
        missing = set(self.push_messages(messages))
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while missing:
            replies += self.pull_messages(missing)
            missing -= {reply.metadata.reply_to_message_id for reply in replies}
            left = 1.0 if end is None else end - time.monotonic()
            if left <= 0:
                self.cancel(missing)
                break
            with self._changed:
                if missing.isdisjoint(self._replies):
                    self._changed.wait(min(left, 1.0))
        return replies

    def cancel(self, message_ids: Iterable[str]) -> None:
        """Forget messages that nobody waits for any more."""
        with self._changed:
            for message_id in message_ids:
                self._pending.pop(message_id, None)
                self._replies.pop(message_id, None)

    def finish(self) -> None:
        """Tell the SuperLink that the run is over; a SuperLink that is gone need not know."""
        with suppress(SuperLinkLostError, httpx.HTTPError):
            done = wire.PushTaskOutputRequest(sub_status=wire.SubStatus.COMPLETED, details="")
            self._runtime.PushTaskOutput(done)

    def close(self) -> None:
        """Stop listening; a second call does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._runtime.close()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(timeout=2)

    # ------------------------------------------------------------------ what others tell it

    def arrived(self, message_id: str) -> None:
        """Note that the reply to a message is complete at the SuperLink."""
        with self._changed:
            if message_id in self._pending:
                self._announced.add(message_id)
                self._changed.notify_all()

    def lose_node(self, node: int, reason: str) -> None:
        """Answer all messages to a node with an error, until it is found again."""
        with self._changed:
            self._lost[node] = reason
            lost = [each for each, (receiver, _) in self._pending.items() if receiver == node]
            self._give_up(set(lost) - self._announced, wire.ErrorCode.NODE_UNAVAILABLE, reason)

    def find_node(self, node: int) -> None:
        """Note that a node that was lost is there again."""
        with self._changed:
            self._lost.pop(node, None)

    def _give_up(self, message_ids: Iterable[str], code: int, reason: str) -> None:
        for message_id in message_ids:
            del self._pending[message_id]
            self._replies[message_id] = wire.error_reply(message_id, self.run.run_id, code, reason)
        self._changed.notify_all()

    # ------------------------------------------------------------------ asking and fetching

    def invoke(self, call: Callable[..., Answer], *arguments: Any) -> Answer:  # noqa: ANN401
        """Carry out a request to the SuperLink; its client takes this for its way to retry."""
        end = time.monotonic() + _PATIENCE_S

        def hopeless() -> bool:
            return self._closed or bool(self._why_lost()) or time.monotonic() > end

        try:
            return wire.patiently(lambda: call(*arguments), until=hopeless)
        except httpx.TransportError as error:
            reason = self._why_lost() or f"it does not answer: {error}"
            raise SuperLinkLostError(f"the SuperLink is lost: {reason}") from error
        except httpx.HTTPStatusError as error:
            if error.response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
                raise SuperLinkLostError("the SuperLink has ended this run") from error
            raise

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise SuperLinkLostError("this grid was closed")

    def _keep_asking(self) -> None:
        looked = time.monotonic()
        try:
            while not self._closed:
                self._ask_for(self._wait_for_news())
                if reason := self._why_lost():
                    raise SuperLinkLostError(f"the SuperLink is lost: {reason}")  # noqa: TRY301
                self._give_up_late()
                if time.monotonic() >= looked + _LOOK_AROUND_S:
                    looked = time.monotonic()
                    self._give_up_lost()
        except Exception as error:  # noqa: BLE001  # raised again where the driver waits
            self._fail(error)

    def _wait_for_news(self) -> set[str]:
        """Wait a moment, and return the messages whose replies may be there."""
        with self._changed:
            if self._bells:
                self._changed.wait_for(lambda: self._closed or self._announced, 0.5)
                news = self._announced & self._pending.keys()
                self._announced.clear()
                return news
            self._changed.wait_for(lambda: self._closed, _ASK_S)
            return set(self._pending)

    def _ask_for(self, message_ids: set[str]) -> None:
        if not message_ids or self._closed:
            return
        found = self._runtime.PullMessages(wire.PullAppMessagesRequest(message_ids=message_ids))
        for head, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            with self._changed:
                wanted = self._pending.pop(head.metadata.reply_to_message_id, None)
            if wanted is not None:
                self._fetchers.submit(self._fetch, head, tree)

    def _give_up_late(self) -> None:
        """Give up messages whose time is over."""
        now = time.time()
        with self._changed:
            late = [each for each, (_, until) in self._pending.items() if now > until]
            self._give_up(
                set(late) - self._announced,
                wire.ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
                "no reply in its time",
            )

    def _give_up_lost(self) -> None:
        """Give up messages to nodes that have not been heard of for long."""
        online = {node.node_id for node in self.get_nodes()}
        with self._changed:
            lost = [each for each, (node, _) in self._pending.items() if node not in online]
            self._give_up(
                set(lost) - self._announced,
                wire.ErrorCode.NODE_UNAVAILABLE,
                "the SuperLink has not heard of this node for a minute",
            )

    def _fetch(self, head: Any, tree: Any) -> None:  # noqa: ANN401
        """Fetch a reply's objects; an upload that has not ended yet is waited for here."""
        answers = head.metadata.reply_to_message_id
        try:
            reply = wire.fetch_message(tree, self._runtime.PullObject, self.node, self.run.run_id)
            self._runtime.ConfirmMessageReceived(
                wire.ConfirmMessageReceivedRequest(
                    node=self.node,
                    run_id=self.run.run_id,
                    message_object_id=head.metadata.message_id,
                )
            )
        except SuperLinkLostError as error:
            self._fail(error)
            return
        except Exception as error:  # noqa: BLE001  # one broken reply is one client's failure
            code = wire.ErrorCode.MESSAGE_UNAVAILABLE
            reply = wire.error_reply(answers, self.run.run_id, code, f"no usable reply: {error}")
        with self._changed:
            self._replies[answers] = reply
            self._changed.notify_all()

    def _keep_beating(self) -> None:
        """Tell the SuperLink that the driver is alive; it ends the run of one that is not."""
        while not self._closed:
            try:
                alive = self._runtime.SendTaskHeartbeat(wire.SendTaskHeartbeatRequest()).success
            except Exception as error:  # noqa: BLE001  # raised again where the driver waits
                self._fail(error)
                return
            if not alive:
                self._fail(SuperLinkLostError("the SuperLink has ended this run"))
                return
            with self._changed:
                self._changed.wait_for(lambda: self._closed, _BEAT_S)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            if not self._closed and self._failure is None:
                self._failure = error
            self._changed.notify_all()
