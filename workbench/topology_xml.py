"""The session files of the CORE emulator, read and written.

A session file is XML. It may have been written by anybody, so it is taken for data: no entity is
expanded, sizes are bounded, and the programs that CORE would run for it (hooks, changed services)
are only named, in `Topology.programs`, never taken over.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree import ElementTree as ET

from workbench.topology import End, Link, LinkOptions, Node, Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Number = TypeVar("Number", int, float)

LARGEST_FILE = 16 * 2**20
MOST_NODES = 10_000
_UNNUMBERED = -1

_PROGRAMS = {
    "session_hooks": "hooks, which CORE runs on its own machine as root",
    "service_configurations": "changed services, which CORE runs in the nodes",
    "configservice_configurations": "changed services, which CORE runs in the nodes",
    "servers": "other machines, on which CORE would work over ssh",
}


def write(topology: Topology) -> bytes:
    """Return the session file; the same topology gives the same bytes."""
    scenario = ET.Element("scenario")
    networks = ET.SubElement(scenario, "networks")
    devices = ET.SubElement(scenario, "devices")
    for node in topology.nodes:
        _write_node(devices if node.is_device else networks, node)
    links = ET.SubElement(scenario, "links")
    for link in topology.links:
        _write_link(links, link)
    if topology.metadata:
        metadata = ET.SubElement(scenario, "session_metadata")
        for name, value in topology.metadata.items():
            ET.SubElement(metadata, "configuration", name=name, value=value)
    ET.indent(scenario, " ")
    text: str = ET.tostring(scenario, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def read(data: bytes) -> Topology:
    """Read a session file, whoever wrote it.

    Raises
    ------
    ValueError
        If it is no session file, or something in it makes no sense; the message says what.
    """
    scenario = _parse(data)
    devices = [_read_device(each) for each in _children(scenario, "devices")]
    networks = [_read_network(each) for each in _children(scenario, "networks")]
    nodes = tuple(sorted([*devices, *networks], key=lambda node: node.number))
    if len(nodes) > MOST_NODES:
        raise ValueError(f"the file has {len(nodes)} nodes; {MOST_NODES} are possible")
    for node, following in pairwise(nodes):
        if node.number == following.number:
            raise ValueError(f"the node number {node.number} occurs twice")
    known = {node.number for node in nodes}
    links = _numbered([_read_link(each, known) for each in _children(scenario, "links")])
    metadata = {
        each.get("name", ""): each.get("value", "")
        for each in _children(scenario, "session_metadata")
    }
    programs = [text for tag, text in _PROGRAMS.items() if _children(scenario, tag)]
    return Topology(nodes, links, metadata, tuple(dict.fromkeys(programs)))


def _parse(data: bytes) -> ET.Element:
    if len(data) > LARGEST_FILE:
        raise ValueError(f"the file has {len(data)} bytes; {LARGEST_FILE} are possible")
    builder = ET.XMLParser(target=_Builder())  # noqa: S314  # see _Builder
    try:
        builder.feed(data)
        root: ET.Element = builder.close()
    except ET.ParseError as error:
        raise ValueError(f"it is not XML: {error}") from error
    if root.tag != "scenario":
        raise ValueError(f"its outermost element is <{root.tag}>, not <scenario>")
    return root


class _Builder(ET.TreeBuilder):
    """Builds the tree and refuses a document type: with it go all entities."""

    def doctype(self, name: str, *_: object) -> None:
        raise ValueError(f"it declares a document type ({name}), which session files have not")


# ---------------------------------------------------------------------- writing


def _write_node(parent: ET.Element, node: Node) -> None:
    if node.is_device:
        kind = "" if node.kind == "node" else node.kind
        attributes = {"type": node.model, "class": kind, "image": node.image}
        if node.compose:
            attributes |= {"compose": node.compose, "compose_name": node.compose_name}
        element = ET.SubElement(
            parent, "device", {"id": str(node.number), "name": node.name, **attributes}
        )
    else:
        attributes = {"id": str(node.number), "name": node.name, "type": node.kind.upper()}
        element = ET.SubElement(parent, "network", attributes)
    ET.SubElement(element, "position", x=f"{node.x:g}", y=f"{node.y:g}")
    if node.services:
        services = ET.SubElement(element, "services")
        for service in node.services:
            ET.SubElement(services, "service", name=service)


def _write_link(parent: ET.Element, link: Link) -> None:
    element = ET.SubElement(parent, "link", node1=str(link.one.node), node2=str(link.other.node))
    for tag, end in (("iface1", link.one), ("iface2", link.other)):
        attributes = {"id": str(end.interface)}
        if end.name:
            attributes["name"] = end.name
        if end.ip4:
            attributes |= {"ip4": end.ip4, "ip4_mask": str(end.ip4_mask)}
        ET.SubElement(element, tag, attributes)
    options = link.options
    ET.SubElement(
        element,
        "options",
        delay=str(options.delay_us),
        bandwidth=str(options.bandwidth_bps),
        loss=f"{options.loss_percent:g}",
        dup=str(options.duplicate_percent),
        jitter=str(options.jitter_us),
        unidirectional=str(int(options.unidirectional)),
        buffer=str(options.buffer_packets),
    )


# ---------------------------------------------------------------------- reading


def _children(scenario: ET.Element, tag: str) -> list[ET.Element]:
    found = scenario.find(tag)
    return [] if found is None else list(found)


def _number(
    element: ET.Element,
    names: Iterable[str],
    convert: Callable[[str], Number],
    default: Number | None = None,
) -> Number:
    """Return the first of these attributes that is there, as a finite number from 0 up."""
    for name in names:
        text = element.get(name)
        if not text:
            continue
        try:
            value = convert(text)
        except ValueError:
            value = convert("-1")
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"<{element.tag}> has {name}={text!r}; a number from 0 up is needed")
        return value
    if default is None:
        raise ValueError(f"<{element.tag}> has no {' or '.join(names)}")
    return default


def _read_node(element: ET.Element, kind: str) -> dict[str, Any]:
    number = _number(element, ["id"], int)
    if number < 1:
        raise ValueError(f"<{element.tag}> has id={number}; numbers start at 1")
    position = element.find("position")
    x = y = 0.0
    if position is not None:
        x, y = (_number(position, [name], float, 0.0) for name in ("x", "y"))
    name = element.get("name") or f"n{number}"
    return {"number": number, "name": name, "kind": kind, "x": x, "y": y}


def _read_network(element: ET.Element) -> Node:
    return Node(**_read_node(element, (element.get("type") or "switch").lower()))


def _read_device(element: ET.Element) -> Node:
    services = element.find("services")
    if services is None:
        services = element.find("configservices")
    return Node(
        **_read_node(element, element.get("class") or "node"),
        model=element.get("type") or "",
        image=element.get("image") or "",
        compose=element.get("compose") or "",
        compose_name=element.get("compose_name") or "",
        services=tuple(each.get("name", "") for each in (() if services is None else services)),
    )


def _read_link(element: ET.Element, known: set[int]) -> Link:
    ends = []
    for node_names, tags in (
        (("node1", "node_one"), ("iface1", "interface_one")),
        (("node2", "node_two"), ("iface2", "interface_two")),
    ):
        node = _number(element, node_names, int)
        if node not in known:
            raise ValueError(f"a link ends at node {node}, which is not in the file")
        found = next((each for tag in tags if (each := element.find(tag)) is not None), None)
        ends.append(_read_end(node, found))
    found = element.find("options")
    options = LinkOptions() if found is None else _read_options(found)
    return Link(ends[0], ends[1], options)


def _read_end(node: int, element: ET.Element | None) -> End:
    if element is None or not element.get("id"):
        return End(node, _UNNUMBERED)
    return End(
        node,
        _number(element, ["id"], int),
        name=element.get("name") or "",
        ip4=element.get("ip4") or "",
        ip4_mask=_number(element, ["ip4_mask"], int, 0),
    )


def _numbered(links: list[Link]) -> tuple[Link, ...]:
    """Give every interface without a number the next one that its node has free, as CORE does."""
    used: dict[int, set[int]] = {}
    for link in links:
        for end in (link.one, link.other):
            used.setdefault(end.node, set()).add(end.interface)

    def numbered(end: End) -> End:
        if end.interface != _UNNUMBERED:
            return end
        taken = used[end.node]
        free = next(number for number in count() if number not in taken)
        taken.add(free)
        return replace(end, interface=free)

    return tuple(
        replace(link, one=numbered(link.one), other=numbered(link.other)) for link in links
    )


def _read_options(element: ET.Element) -> LinkOptions:
    return LinkOptions(
        bandwidth_bps=_number(element, ["bandwidth"], int, 0),
        delay_us=_number(element, ["delay"], int, 0),
        jitter_us=_number(element, ["jitter"], int, 0),
        loss_percent=_number(element, ["loss", "per"], float, 0.0),
        duplicate_percent=_number(element, ["dup"], int, 0),
        buffer_packets=_number(element, ["buffer"], int, 0),
        unidirectional=element.get("unidirectional") == "1",
    )
