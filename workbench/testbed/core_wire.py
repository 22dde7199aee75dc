"""The messages of CORE's gRPC interface that are used here, as protobuf classes.

Nothing generated is checked in, since that is locked to one version of protobuf, and nothing of
CORE is imported, since its package pins another grpcio than Flower's: descriptors are built when
this is imported, into a pool of their own. What counts on the wire is field numbers and types;
they are those of CORE 9.2. Enumerations are plain numbers there.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "/core.CoreApi/"

_PACKAGE = "core"

_MESSAGES = {
    # A field is "name=number:type"; * stands before repeated ones, map before maps from strings.
    "ConfigOption": "name=2:s value=3:s",
    "Position": "x=1:f y=2:f z=3:f",
    "Node": (
        "id=1:i name=2:s type=3:i model=4:s position=5:Position icon=7:s image=8:s "
        "services=10:*s canvas=14:i compose=20:s compose_name=21:s"
    ),
    "Interface": "id=1:i name=2:s mac=3:s ip4=4:s ip4_mask=5:i ip6=6:s ip6_mask=7:i",
    "LinkOptions": (
        "jitter=1:L loss=5:f bandwidth=6:L delay=8:L dup=9:i unidirectional=10:b buffer=11:i"
    ),
    "Link": (
        "node1_id=1:i node2_id=2:i type=3:i iface1=4:Interface iface2=5:Interface "
        "options=6:LinkOptions"
    ),
    "Session": (
        "id=1:i state=2:i nodes=3:*Node links=4:*Link dir=5:s user=6:s metadata=10:map:s "
        "file=11:s options=12:map:ConfigOption"
    ),
    "SessionSummary": "id=1:i state=2:i nodes=3:i file=4:s dir=5:s",
    "CreateSessionRequest": "session_id=1:i",
    "CreateSessionResponse": "session=1:Session",
    "StartSessionRequest": "session=1:Session definition=2:b",
    "StartSessionResponse": "result=1:b exceptions=2:*s",
    "StopSessionRequest": "session_id=1:i",
    "StopSessionResponse": "result=1:b",
    "DeleteSessionRequest": "session_id=1:i",
    "DeleteSessionResponse": "result=1:b",
    "GetSessionsRequest": "",
    "GetSessionsResponse": "sessions=1:*SessionSummary",
    "GetSessionRequest": "session_id=1:i",
    "GetSessionResponse": "session=1:Session",
    "AddNodeRequest": "session_id=1:i node=2:Node source=3:s",
    "AddNodeResponse": "node_id=1:i",
    "DeleteNodeRequest": "session_id=1:i node_id=2:i source=3:s",
    "DeleteNodeResponse": "result=1:b",
    "NodeCommandRequest": "session_id=1:i node_id=2:i command=3:s wait=4:b shell=5:b",
    "NodeCommandResponse": "output=1:s return_code=2:i",
    "AddLinkRequest": "session_id=1:i link=2:Link source=3:s",
    "AddLinkResponse": "result=1:b iface1=2:Interface iface2=3:Interface",
    "EditLinkRequest": (
        "session_id=1:i node1_id=2:i node2_id=3:i iface1_id=4:i iface2_id=5:i "
        "options=6:LinkOptions source=7:s"
    ),
    "EditLinkResponse": "result=1:b",
    "LinkedRequest": (
        "session_id=1:i node1_id=2:i node2_id=3:i iface1_id=4:i iface2_id=5:i linked=6:b"
    ),
    "LinkedResponse": "",
    "SaveXmlRequest": "session_id=1:i",
    "SaveXmlResponse": "data=1:B",
    "OpenXmlRequest": "data=1:s start=2:b file=3:s",
    "OpenXmlResponse": "result=1:b session_id=2:i",
    "SessionEvent": "node_id=1:i event=2:i name=3:s data=4:s time=5:f",
    "NodeEvent": "node=1:Node message_type=2:i",
    "LinkEvent": "message_type=1:i link=2:Link",
    "AlertEvent": "node_id=1:i level=2:i source=3:s date=4:s text=5:s",
    "EventsRequest": "session_id=1:i events=2:*i",
    "Event": (
        "session_event=1:SessionEvent node_event=2:NodeEvent link_event=3:LinkEvent "
        "alert_event=5:AlertEvent session_id=7:i source=8:s"
    ),
}

_ONE_OF = {"Event": ("event_type", 4)}
"""The first so many fields of a message exclude each other."""


class NodeType(IntEnum):
    """What a node is."""

    DEFAULT = 0
    SWITCH = 4
    HUB = 5
    DOCKER = 15
    PODMAN = 18


class LinkType(IntEnum):
    """How nodes are joined."""

    WIRELESS = 0
    WIRED = 1


class SessionState(IntEnum):
    """What has become of a session."""

    NONE = 0
    DEFINITION = 1
    CONFIGURATION = 2
    INSTANTIATION = 3
    RUNTIME = 4
    DATACOLLECT = 5
    SHUTDOWN = 6


class MessageType(IntEnum):
    """What an event says of a node or a link."""

    NONE = 0
    ADD = 1
    DELETE = 2


class EventType(IntEnum):
    """What to be told of."""

    SESSION = 0
    NODE = 1
    LINK = 2
    EXCEPTION = 4


_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "i": _Field.TYPE_INT32,
    "s": _Field.TYPE_STRING,
    "b": _Field.TYPE_BOOL,
    "f": _Field.TYPE_FLOAT,
    "L": _Field.TYPE_INT64,
    "B": _Field.TYPE_BYTES,
}


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="workbench/core.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        exclusive, members = _ONE_OF.get(name, ("", 0))
        if exclusive:
            made.oneof_decl.add(name=exclusive)
        for position, entry in enumerate(fields.split()):
            field = _add_field(made, entry)
            if position < members:
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def _add_field(made: Any, entry: str) -> Any:  # noqa: ANN401  # protobuf, without types here
    name, _, rest = entry.partition("=")
    number, _, kind = rest.partition(":")
    field = made.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind.startswith("map:"):
        # On the wire a map is a repeated message of key and value.
        pair = "".join(part.title() for part in name.split("_")) + "Entry"
        entries = made.nested_type.add(name=pair)
        entries.options.map_entry = True
        _add_field(entries, "key=1:s")
        _add_field(entries, f"value=2:{kind.removeprefix('map:')}")
        field.label = _Field.LABEL_REPEATED
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{made.name}.{pair}"
        return field
    if kind.startswith("*"):
        field.label = _Field.LABEL_REPEATED
        kind = kind[1:]
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    return field


_CLASSES = _build()


def message(name: str) -> Any:  # noqa: ANN401  # made when this is imported, unknown to mypy
    """Return the class of a message of CORE, such as ``Node`` or ``StartSessionRequest``.

    Raises
    ------
    KeyError
        If it is none that is used here.
    """
    return _CLASSES[name]
