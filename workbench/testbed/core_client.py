"""A minimal client of CORE's gRPC interface, with every trap of CORE 9.2 that concerns us.

It knows sessions, nodes and links, and nothing of testbeds. Whatever goes wrong is a `CoreError`
that says which call failed, at which address, and what helps.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from workbench import forking
from workbench.testbed.core_wire import SERVICE, SessionState, message

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

SUPPORTED = "9.2.1"
_SOURCE = "workbench"
_LARGEST = 64 * 2**20
_ANSWER_S = 30.0
_SLOW_ANSWER_S = 120.0
_AT_ONCE = 8
"""Calls that the daemon serves at once; more do not make it faster."""
HIGHEST_SESSION = 255
"""Names of interfaces hold a session's id in 8 bits: beyond, two sessions would share them."""


class CoreError(RuntimeError):
    """CORE refused something, or cannot do it."""


class CoreLostError(CoreError, ConnectionError):
    """The daemon does not answer, or does not know the session any more."""


class CoreVersionError(CoreError):
    """What answers speaks another API than CORE 9.2's."""


class CoreClient:
    """A connection to a core-daemon; close it.

    Parameters
    ----------
    address
        ``host:port``.
    answer_s
        How long a call may take that does not say otherwise.

    Raises
    ------
    CoreLostError
        If nobody answers.
    CoreVersionError
        If it is no core-daemon that is known.
    CoreError
        If gRPC must not be used in this process.
    """

    def __init__(self, address: str, answer_s: float = _ANSWER_S) -> None:
        import grpc  # noqa: PLC0415  # only those who ask for CORE need it

        if reason := forking.why_no_grpc():
            raise CoreError(reason)
        self.address = address
        self._answer_s = answer_s
        self._grpc = grpc
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", _LARGEST),
                ("grpc.max_send_message_length", _LARGEST),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        try:
            self.sessions()
            self._check_version()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; sessions go on. A second call does nothing."""
        self._channel.close()

    # ------------------------------------------------------------------ sessions

    def sessions(self) -> dict[int, Any]:
        """Return the summaries of all sessions, by id."""
        return {each.id: each for each in self._call("GetSessions").sessions}

    def create_session(self, avoid: Collection[int] = ()) -> Any:  # noqa: ANN401  # protobuf
        """Create an empty session and return it, with none of the numbers in ``avoid``.

        A daemon that crashed has left folders behind, and the next one fails at the number of
        such a session; so another number is tried then.
        """
        taken = {*self.sessions(), *avoid}
        for number in range(1, HIGHEST_SESSION + 1):
            if number in taken:
                continue
            try:
                session = self._call("CreateSession", session_id=number).session
            except CoreLostError:
                raise
            except CoreError as error:
                if "File exists" not in str(error):
                    raise
                continue
            if session.id != number or session.state != SessionState.DEFINITION:
                raise CoreVersionError(
                    f"the core-daemon at {self.address} answers with a session {session.id} in "
                    f"state {session.state} when it is asked for session {number}, which begins "
                    f"in state {int(SessionState.DEFINITION)}; install CORE {SUPPORTED}"
                )
            return session
        raise CoreError(
            f"the core-daemon at {self.address} has no session number left; delete sessions in "
            "core-gui, or what a crashed daemon left in /tmp with python -m workbench cleanup"
        )

    def start_session(self, session: Any, *, wait_s: float) -> None:  # noqa: ANN401
        """Start a session that was created; what it says of nodes and links is put up.

        Raises
        ------
        CoreError
            If it does not start. It must still be deleted, and may have left containers.
        """
        if self.session(session.id).state == SessionState.RUNTIME:
            raise CoreError(f"session {session.id} runs already; starting it again would wipe it")
        answer = self._call("StartSession", wait_s=wait_s, session=session)
        if not answer.result:
            reasons = "; ".join(answer.exceptions) or "no reason was given"
            raise CoreError(f"CORE could not start the session: {reasons[:2000]}")
        state = self.session(session.id).state
        if state != SessionState.RUNTIME:
            raise CoreError(f"CORE says that the session has started, but it is in state {state}")

    def session(self, session: int) -> Any:  # noqa: ANN401
        """Return a session with its nodes and links, as they are now."""
        return self._call("GetSession", session_id=session).session

    def delete_session(self, session: int) -> bool:
        """Delete a session with all its nodes; False if there is none."""
        return bool(self._call("DeleteSession", wait_s=_SLOW_ANSWER_S, session_id=session).result)

    # ------------------------------------------------------------------ nodes and links

    def add_node(self, session: int, node: Any) -> int:  # noqa: ANN401
        """Add a node to a running session and return its id."""
        answer = self._call(
            "AddNode", wait_s=_SLOW_ANSWER_S, session_id=session, node=node, source=_SOURCE
        )
        return int(answer.node_id)

    def delete_node(self, session: int, node: int) -> bool:
        """Delete a node with its links; False if there is none.

        The interfaces on the links' other ends stay taken.
        """
        answer = self._call("DeleteNode", session_id=session, node_id=node, source=_SOURCE)
        return bool(answer.result)

    def command(self, session: int, node: int, command: str) -> str:
        """Run a command in a node and return what it prints.

        Raises
        ------
        CoreError
            If it fails; the message is what it printed.
        """
        answer = self._call(
            "NodeCommand", session_id=session, node_id=node, command=command, wait=True
        )
        if answer.return_code:
            raise CoreError(f"{command!r} failed on node {node}: {answer.output.strip()[:500]}")
        return str(answer.output)

    def add_link(self, session: int, link: Any) -> None:  # noqa: ANN401
        """Add a link to a running session; both its interfaces must have ids."""
        if not self._call("AddLink", session_id=session, link=link, source=_SOURCE).result:
            raise CoreError(f"CORE refused a link of node {link.node1_id}")

    def edit_links(self, session: int, edits: Sequence[Any]) -> list[CoreError | None]:
        """Set the options of links, several at once; return for each what went wrong.

        Each edit is a ``Link`` with both interface ids and all options: what is left out is reset.
        """

        def edit(link: Any) -> CoreError | None:  # noqa: ANN401
            try:
                self._call(
                    "EditLink", **self._ends(session, link), options=link.options, source=_SOURCE
                )
            except CoreLostError:
                raise
            except CoreError as error:
                return error
            return None

        return self.at_once(edit, edits)

    def link(self, session: int, link: Any, *, joined: bool) -> None:  # noqa: ANN401
        """Join the ends of a link, or part them without forgetting it."""
        self._call("Linked", **self._ends(session, link), linked=joined)

    @staticmethod
    def _ends(session: int, link: Any) -> dict[str, int]:  # noqa: ANN401
        return {
            "session_id": session,
            "node1_id": link.node1_id,
            "node2_id": link.node2_id,
            "iface1_id": link.iface1.id,
            "iface2_id": link.iface2.id,
        }

    @staticmethod
    def at_once(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Return ``work`` of each item, in order, done by as many threads as the daemon serves."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="wb-core") as pool:
            return list(pool.map(work, items))

    # ------------------------------------------------------------------ events

    def events(self, session: int, heard: Callable[[Any, str], None]) -> Callable[[], None]:
        """Call ``heard`` with each event of a session; the returned function ends that.

        It gets (event, "") and, when the stream breaks by itself, (None, reason). It is called on
        a thread of its own; what we did ourselves is not told.
        """
        call = self._channel.unary_stream(
            f"{SERVICE}Events",
            request_serializer=message("EventsRequest").SerializeToString,
            response_deserializer=message("Event").FromString,
        )(message("EventsRequest")(session_id=session))
        ended = threading.Event()

        def listen(stream: Iterator[Any]) -> None:
            try:
                for event in stream:
                    if event.source != _SOURCE:
                        heard(event, "")
                reason = "the stream of events has ended"
            except self._grpc.RpcError as error:
                reason = str(self._error("Events", error))
            if not ended.is_set():
                heard(None, reason)

        threading.Thread(target=listen, args=[call], name="wb-core-events", daemon=True).start()

        def end() -> None:
            ended.set()
            call.cancel()

        return end

    # ------------------------------------------------------------------ calls

    def _call(self, method: str, *, wait_s: float | None = None, **fields: Any) -> Any:  # noqa: ANN401
        request = message(f"{method}Request")
        call = self._channel.unary_unary(
            f"{SERVICE}{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=message(f"{method}Response").FromString,
        )
        try:
            return call(request(**fields), timeout=wait_s or self._answer_s)
        except self._grpc.RpcError as error:
            raise self._error(method, error) from error

    def _check_version(self) -> None:
        """Ask for what came with 9.1; CORE tells no version."""
        call = self._channel.unary_unary(
            f"{SERVICE}GetServiceDefaults", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            call(b"", timeout=self._answer_s)
        except self._grpc.RpcError as error:
            if error.code() == self._grpc.StatusCode.UNIMPLEMENTED:
                raise self._error("GetServiceDefaults", error) from error

    def _error(self, method: str, error: Any) -> CoreError:  # noqa: ANN401  # grpc has no types
        """Say what a failed call means, and what helps."""
        codes = self._grpc.StatusCode
        code, detail = error.code(), (error.details() or "").strip()
        detail = detail.removeprefix("Exception calling application: ")[:1000]
        where = f"the core-daemon at {self.address}"
        if code == codes.UNAVAILABLE:
            return CoreLostError(
                f"{where} does not answer ({method}): {detail}; start it (systemctl start "
                "core-daemon), or give its address as CoreTestbed(address=...)"
            )
        if code == codes.DEADLINE_EXCEEDED:
            return CoreLostError(f"{where} accepted {method}, but did not answer in time")
        if code == codes.NOT_FOUND and "session" in detail:
            return CoreLostError(f"{where} does not know the session ({detail}): it was restarted")
        if code in {codes.UNIMPLEMENTED, codes.INTERNAL}:
            return CoreVersionError(
                f"what answers at {self.address} does not understand {method} ({detail}); the "
                f"workbench speaks the API of CORE {SUPPORTED}"
            )
        return CoreError(f"{method} failed: {detail or code.name}")
