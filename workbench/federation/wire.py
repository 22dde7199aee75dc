"""What live engines need of Flower's internals: clients for the SuperLink's three services.

All of it is imported here and in `workbench.federation.flower`, which checks the version; but for
Flower's Grid, which `workbench.federation.live_grid` extends: it brings a database, and no node
needs it. In Flower 1.41 Fleet (for nodes), Runtime (for a ServerApp) and Control (to start runs)
are protobuf messages over HTTP on one port.
"""

from __future__ import annotations

import hashlib
import io
import socket
import ssl
import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import httpcore
import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, SUPERLINK_NODE_ID, ErrorCode, SubStatus
from flwr.common.serde import message_from_proto, message_to_proto, run_from_proto
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from httpcore._backends.sync import SyncStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "HEARTBEAT_DEFAULT_INTERVAL",
    "SUPERLINK_NODE_ID",
    "AcquireTaskRequest",
    "ActivateNodeRequest",
    "ConfirmMessageReceivedRequest",
    "ControlHttpClient",
    "DeactivateNodeRequest",
    "Error",
    "ErrorCode",
    "Fab",
    "FleetHttpClient",
    "Message",
    "Node",
    "NodeAuthHttpInterceptor",
    "ObjectPullError",
    "PullAppMessagesRequest",
    "PullMessagesRequest",
    "PullTaskInputRequest",
    "PushMessagesRequest",
    "PushObjectRequest",
    "PushTaskOutputRequest",
    "RegisterNodeFleetRequest",
    "RegisterNodeRequest",
    "RuntimeHttpClient",
    "RuntimeTokenHttpInterceptor",
    "SendNodeHeartbeatRequest",
    "SendTaskHeartbeatRequest",
    "StartRunRequest",
    "SubStatus",
    "TaskIdentity",
    "Versions",
    "get_all_nested_objects",
    "get_object_tree",
    "iterate_object_tree",
    "message_from_proto",
    "message_to_proto",
    "no_object_id_recompute",
    "public_key_to_bytes",
    "remove_content_from_message",
    "run_from_proto",
]

Opened = TypeVar("Opened", bound=ProtobufClient)
Answer = TypeVar("Answer")

SILENCE_S = 60.0
"""Without a byte for so long a connection is given up; a slow upload is silent while buffers
drain."""

_KEPT_S = 3.0
"""An idle connection is not used again after so long: the SuperLink closes it after 5 s, and on a
slow link the news of that may be on its way when the next request is sent."""


_PAUSE_S = 0.005


class Versions:
    """Tells the SuperLink which Flower this is; an answer that it does not fit is an error.

    Flower's own ends the process when versions do not fit, which here is the notebook's.
    """

    def __init__(self, component: str) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component(component).as_metadata())

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:  # noqa: ANN401  # Flower's protocol
        """Add the headers and go on."""
        add_headers(context.request, self._headers)
        return call_next(context)


class _BatchedStream(SyncStream):
    """A connection that lets a slow download collect for a moment before it is read on.

    Every read costs the same, however little it brings, and a shaped link brings one packet at a
    time. The first read after a request never waits.
    """

    def __init__(self, opened: socket.socket) -> None:
        super().__init__(opened)
        self._trickles = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._trickles:
            time.sleep(_PAUSE_S)
        data = super().read(max_bytes, timeout)
        self._trickles = len(data) < max_bytes // 2
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._trickles = False
        super().write(buffer, timeout)


class _InsideBackend(httpcore.NetworkBackend):
    """Connects sockets that somebody else opens, for instance in another network namespace."""

    def __init__(self, open_socket: Callable[[], socket.socket]) -> None:
        self._open_socket = open_socket

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        del local_address, socket_options
        opened = self._open_socket()
        try:
            opened.settimeout(timeout)
            opened.connect((host, port))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            opened.close()
            if isinstance(error, TimeoutError):
                raise httpcore.ConnectTimeout(str(error)) from error
            raise httpcore.ConnectError(str(error)) from error
        return _BatchedStream(opened)


@dataclass(frozen=True)
class Door:
    """How to get to a SuperLink.

    Attributes
    ----------
    server
        Its address, ``host:port``.
    certificates
        The certificates that its own must be signed by, PEM; None trusts the system's.
    insecure
        Speak to it without TLS.
    open_socket
        Opens the sockets, for instance in another network namespace.
    """

    server: str
    certificates: bytes | None = None
    insecure: bool = False
    open_socket: Callable[[], socket.socket] = socket.socket

    def client(self, kind: type[Opened], interceptors: list[Any]) -> Opened:
        """Return a client of one of its services, with the patience that slow links need."""
        client = kind.from_server_address(
            self.server,
            insecure=self.insecure,
            root_certificates=None if self.insecure else self.certificates,
            interceptors=interceptors,
        )
        transport = httpx.HTTPTransport()
        transport._pool = httpcore.ConnectionPool(  # noqa: SLF001  # httpx takes no network backend
            ssl_context=None if self.insecure else self._trust(),
            network_backend=_InsideBackend(self.open_socket),
            max_connections=None,
            keepalive_expiry=_KEPT_S,
        )
        client._client.close()  # noqa: SLF001  # from_server_address takes no transport
        client._client = httpx.Client(  # noqa: SLF001
            transport=transport, timeout=httpx.Timeout(SILENCE_S, connect=10.0)
        )
        return client

    def _trust(self) -> ssl.SSLContext:
        given = self.certificates.decode("ascii") if self.certificates is not None else None
        return ssl.create_default_context(cadata=given)


def quick_keys() -> tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]:
    """Return a key pair for a node.

    Every request is signed; on this curve that takes a sixth of the time that Flower's own takes.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    return private, private.public_key()


def patiently(
    call: Callable[[], Answer], *, until: Callable[[], bool], longest_pause_s: float = 2.0
) -> Answer:
    """Repeat a call that fails for the network's sake, until ``until`` says to give up."""
    pause_s = 0.05
    while True:
        try:
            return call()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code not in {
                httpx.codes.BAD_GATEWAY,
                httpx.codes.SERVICE_UNAVAILABLE,
                httpx.codes.GATEWAY_TIMEOUT,
            }:
                raise
            if until():
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, longest_pause_s)


def fetch_message(
    tree: ObjectTree,
    pull: Callable[[PullObjectRequest], PullObjectResponse],
    node: Node,
    run_id: int,
) -> Message:
    """Fetch the objects of a message and put it together; what is still uploaded is waited for.

    Raises
    ------
    ObjectPullError
        If an object is not there any more, or the objects make something else than a message.
    """
    contents = pull_objects(
        [part.object_id for part in iterate_object_tree(tree)],
        make_pull_object_fn_protobuf(pull, node, run_id),
        max_time=None,
        max_tries_per_object=None,
        initial_backoff=0.05,
        backoff_cap=0.5,
    )
    message = inflate_object_from_contents(tree.object_id, contents)
    if not isinstance(message, Message):
        raise ObjectPullError(tree.object_id, f"it is a {type(message).__name__}, not a message")
    message.metadata.__dict__["_message_id"] = tree.object_id
    return message


def error_reply(message_id: str, run_id: int, code: int, reason: str) -> Message:
    """Return the reply to a message that nobody will answer any more."""
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        message_type="system",
        group_id="",
        ttl=0,
        reply_to_message_id=message_id,
        created_at=time.time(),
    )
    return make_message(metadata=metadata, error=Error(code=code, reason=reason))


def bundle(files: Mapping[str, str]) -> bytes:
    """Pack files, text by name, into what Flower starts a run from.

    It is a zip archive whose ``.info/CONTENT`` lists each file with its hash and its size in bits.
    """
    contents = {name: text.encode() for name, text in sorted(files.items())}
    listed = [
        f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}"
        for name, content in contents.items()
    ]
    contents[".info/CONTENT"] = "\n".join(listed).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=(2024, 10, 1, 0, 0, 0)), content)
    return packed.getvalue()
