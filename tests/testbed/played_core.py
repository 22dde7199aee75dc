"""A core-daemon that is played: CORE's API over gRPC, its state, its traps, and faults on demand.

With ``nodes=True`` it also makes plain nodes and their links, as CORE does on the machine.
"""

from __future__ import annotations

import contextlib
import queue
import re
import shutil
import signal
import subprocess
import threading
from concurrent import futures

import grpc

from workbench.testbed import linux
from workbench.testbed.core_wire import MessageType, NodeType, SessionState, message

METHODS = (
    *("GetSessions", "CreateSession", "StartSession", "GetSession", "DeleteSession"),
    *("AddNode", "DeleteNode", "NodeCommand", "AddLink", "EditLink", "Linked"),
)


class RefusedError(Exception):
    """What a servicer raises in CORE; it becomes UNKNOWN with a text."""


class PlayedCore(grpc.GenericRpcHandler):
    """The daemon. ``faults`` maps a method to what is called, with request and context, first."""

    def __init__(self, folder, *, nodes=False, netem=True, port=0):
        self.folder = folder
        self.sessions = {}
        self.numbers = set()
        """Of all sessions that there ever were."""
        self.calls = []
        self.faults = {}
        self.netem = netem
        self.options = {}
        self._make_nodes = nodes
        self._processes = {}
        self._listeners = []
        self._lock = threading.RLock()
        self.server = grpc.server(futures.ThreadPoolExecutor(16))
        self.server.add_generic_rpc_handlers([self])
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def crash(self):
        """End like a daemon that was killed: nodes, links and files stay."""
        for listener in self._listeners:
            listener.put(None)
        self.server.stop(0).wait()

    def close(self):
        for number in list(self.sessions):
            self._delete(number)
        self.crash()
        for process in self._processes.values():  # of sessions that a crash has forgotten
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    # ------------------------------------------------------------------ gRPC

    def service(self, details):
        method = details.method.removeprefix("/core.CoreApi/")
        if method == "Events":
            return grpc.unary_stream_rpc_method_handler(
                self._events, message("EventsRequest").FromString, lambda each: each
            )
        if method == "GetServiceDefaults":
            return grpc.unary_unary_rpc_method_handler(lambda *_: b"", bytes, bytes)
        if method not in METHODS:
            return None

        def serve(request, context):
            with self._lock:
                self.calls.append((method, request))
            fault = self.faults.get(method)
            if fault is not None:
                answer = fault(request, context)
                if answer is not None:
                    return answer
            try:
                with self._lock:
                    return (
                        getattr(self, f"do_{in_words(method)}")(request, context)
                        or message(f"{method}Response")()
                    )
            except RefusedError as error:
                context.abort(grpc.StatusCode.UNKNOWN, f"Exception calling application: {error}")

        return grpc.unary_unary_rpc_method_handler(
            serve,
            message(f"{method}Request").FromString,
            lambda answer: answer.SerializeToString(),
        )

    def _events(self, request, context):
        mine = queue.Queue()
        self._listeners.append(mine)
        self._session(request.session_id, context)
        while (event := mine.get()) is not None:
            yield event.SerializeToString()

    def tell(self, **fields):
        """Tell all who listen of an event."""
        for listener in self._listeners:
            listener.put(message("Event")(**fields))

    def _session(self, number, context):
        if number not in self.sessions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"session {number} not found")
        return self.sessions[number]

    # ------------------------------------------------------------------ sessions

    def do_get_sessions(self, _, __):
        made = message("GetSessionsResponse")()
        for number, session in self.sessions.items():
            made.sessions.add(id=number, state=session.state, nodes=len(session.nodes))
        return made

    def do_create_session(self, request, _):
        number = request.session_id
        if not number:
            number = next(n for n in range(1, 999) if n not in self.sessions)
        directory = self.folder / f"pycore.{number}"
        try:
            directory.mkdir()
        except FileExistsError as error:
            raise RefusedError(str(error)) from error
        session = message("Session")(id=number, state=SessionState.DEFINITION, dir=str(directory))
        self.sessions[number] = session
        self.numbers.add(number)
        self.options[number] = {}
        return message("CreateSessionResponse")(session=session)

    def do_start_session(self, request, context):
        session = self._session(request.session.id, context)
        del session.nodes[:], session.links[:]
        session.metadata.clear()
        session.metadata.update(request.session.metadata)
        self.options[session.id] = {}
        try:
            for node in request.session.nodes:
                self._add_node(session, node)
            for link in request.session.links:
                self._add_link(session, link)
        except RefusedError as error:
            return message("StartSessionResponse")(result=False, exceptions=[str(error)])
        session.state = SessionState.RUNTIME
        return message("StartSessionResponse")(result=True)

    def do_get_session(self, request, context):
        session = self._session(request.session_id, context)
        shown = message("Session")()
        shown.CopyFrom(session)
        del shown.links[:]
        for link in session.links:
            ends = [(link.node1_id, link.iface1), (link.node2_id, link.iface2)]
            ways = [self._of(session, *ends[0]), self._of(session, *ends[1])]
            both = ways[0] == ways[1]
            for way, (one, other) in zip(ways, (ends, ends[::-1]), strict=True):
                made = shown.links.add(node1_id=one[0], node2_id=other[0], type=link.type)
                made.iface1.CopyFrom(one[1])
                made.iface2.CopyFrom(other[1])
                made.options.CopyFrom(way)
                made.options.unidirectional = not both
                if both:
                    break
        return message("GetSessionResponse")(session=shown)

    def do_delete_session(self, request, _):
        return message("DeleteSessionResponse")(result=self._delete(request.session_id))

    def _delete(self, number):
        session = self.sessions.pop(number, None)
        if session is None:
            return False
        for node in list(session.nodes):
            self._end(session, node)
        shutil.rmtree(session.dir, ignore_errors=True)
        return True

    # ------------------------------------------------------------------ nodes and links

    def do_add_node(self, request, context):
        session = self._session(request.session_id, context)
        self._add_node(session, request.node)
        return message("AddNodeResponse")(node_id=request.node.id)

    def _add_node(self, session, node):
        if any(each.id == node.id for each in session.nodes):
            raise RefusedError(f"node({node.id}) already exists")
        session.nodes.add().CopyFrom(node)
        if not self._make_nodes:
            return
        if node.type == NodeType.DEFAULT:
            made = subprocess.Popen(["unshare", "--net", "sleep", "1000"], start_new_session=True)
            while linux.namespace_id("net", made.pid) == linux.namespace_id():
                assert made.poll() is None
            self._processes[session.id, node.id] = made
            (self._directory(session) / f"{node.name}.pid").write_text(str(made.pid))
        else:
            bridge = f"b.{node.id}.{session.id:x}"
            run(f"ip link add {bridge} type bridge", f"ip link set {bridge} up")

    def do_delete_node(self, request, context):
        session = self._session(request.session_id, context)
        for node in list(session.nodes):
            if node.id == request.node_id:
                self._end(session, node)
                session.nodes.remove(node)
                return message("DeleteNodeResponse")(result=True)
        return None

    def _end(self, session, node):
        made = self._processes.pop((session.id, node.id), None)
        if made is not None:
            made.send_signal(signal.SIGKILL)
            made.wait()
        elif self._make_nodes and node.type != NodeType.DEFAULT:
            with contextlib.suppress(subprocess.CalledProcessError):  # somebody has cleaned up
                run(f"ip link del b.{node.id}.{session.id:x}")

    def do_node_command(self, request, context):
        self._session(request.session_id, context)
        code = 1 if request.command == "false" else 0
        return message("NodeCommandResponse")(output=f"ran {request.command}\n", return_code=code)

    def do_add_link(self, request, context):
        self._add_link(self._session(request.session_id, context), request.link)
        return message("AddLinkResponse")(result=True)

    def _add_link(self, session, link):
        known = self.options[session.id]
        switches = {each.id for each in session.nodes if each.type == NodeType.SWITCH}
        for node, end in ((link.node1_id, link.iface1), (link.node2_id, link.iface2)):
            # Deleting a node forgets its own interfaces, and not those of the switch.
            if node in switches and (node, end.id) in known:
                raise RefusedError(f"node({node}) interface({end.id}) already exists")
            known[node, end.id] = message("LinkOptions")()
            known[node, end.id].CopyFrom(link.options)
        for old in list(session.links):
            if (old.node1_id, old.iface1.id) == (link.node1_id, link.iface1.id):
                session.links.remove(old)
        session.links.add().CopyFrom(link)
        made = self._processes.get((session.id, link.node1_id))
        if made is not None:
            inner, name = f"nsenter -t {made.pid} -n ip", link.iface1.name
            port = f"veth{link.node2_id}.{link.iface2.id}.{session.id:x}"
            run(
                f"ip link add {port} type veth peer name {name} netns {made.pid}",
                f"ip link set {port} master b.{link.node2_id}.{session.id:x} up",
                f"{inner} address add {link.iface1.ip4}/{link.iface1.ip4_mask} dev {name}",
                f"{inner} link set {name} up",
            )

    def _of(self, session, node, end):
        return self.options[session.id][node, end.id]

    def do_edit_link(self, request, context):
        session = self._session(request.session_id, context)
        known = self.options[session.id]
        ends = [(request.node1_id, request.iface1_id), (request.node2_id, request.iface2_id)]
        if any(end not in known for end in ends):
            raise RefusedError(f"there is no link for {ends}")
        for end in ends[: 1 if request.options.unidirectional else 2]:
            before = known[end].SerializeToString()
            wanted = message("LinkOptions")()
            wanted.CopyFrom(request.options)
            wanted.unidirectional = False
            known[end].CopyFrom(wanted)
            if wanted.SerializeToString() != before and not self.netem:
                raise RefusedError(f"command(tc qdisc replace dev {end} root netem) failed")
        return message("EditLinkResponse")(result=True)

    def do_linked(self, request, context):
        self._session(request.session_id, context)

    def _directory(self, session):
        return self.folder / f"pycore.{session.id}"


def in_words(method):
    return re.sub(r"(?<!^)([A-Z])", r"_\1", method).lower()


def run(*commands):
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True)


def deleted(node):
    """Return the event that somebody has deleted a node."""
    event = message("NodeEvent")(node=message("Node")(id=node), message_type=MessageType.DELETE)
    return {"node_event": event, "source": "gui"}


def edited(link, **options):
    """Return the event that somebody has set a link's options."""
    made = message("LinkEvent")(message_type=MessageType.NONE, link=link)
    made.link.options.CopyFrom(message("LinkOptions")(**options))
    return {"link_event": made, "source": "gui"}


def ended():
    """Return the event that somebody has ended the session."""
    return {"session_event": message("SessionEvent")(event=SessionState.SHUTDOWN), "source": "gui"}
