"""Nodes and links: what a session of the CORE emulator is made of, in files and over its API."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Node:
    """One node: a device that runs programs, or a network between devices.

    Attributes
    ----------
    number
        CORE's id, from 1 up.
    kind
        ``node`` (a Linux namespace), ``docker`` or ``podman``; for networks CORE's own name of
        the type in small letters, such as ``switch``, ``hub``, ``wireless_lan``.
    x, y
        Where a person sees it, in pixels from the upper left corner.
    model
        Decides icon and default services; empty for none.
    """

    number: int
    name: str
    kind: str
    x: float = 0.0
    y: float = 0.0
    model: str = ""
    image: str = ""
    compose: str = ""
    compose_name: str = ""
    services: tuple[str, ...] = ()

    @property
    def is_device(self) -> bool:
        """Tell whether programs can run on it."""
        return self.kind in {"node", "docker", "podman"}


@dataclass(frozen=True)
class End:
    """One end of a link: an interface of a node."""

    node: int
    interface: int
    name: str = ""
    ip4: str = ""
    ip4_mask: int = 0


@dataclass(frozen=True)
class LinkOptions:
    """What a link does to packets; 0 is none of it.

    Attributes
    ----------
    bandwidth_bps
        Rate in bit/s; 0 leaves the link unlimited.
    unidirectional
        The options hold for what leaves the first end only.
    """

    bandwidth_bps: int = 0
    delay_us: int = 0
    jitter_us: int = 0
    loss_percent: float = 0.0
    duplicate_percent: int = 0
    buffer_packets: int = 0
    unidirectional: bool = False


@dataclass(frozen=True)
class Link:
    """A wire between two nodes; a second one with swapped ends may tell the other direction."""

    one: End
    other: End
    options: LinkOptions = LinkOptions()

    @property
    def wire(self) -> tuple[int, int, int, int]:
        """The two interfaces that it joins: node and interface of either end."""
        return (self.one.node, self.one.interface, self.other.node, self.other.interface)


@dataclass(frozen=True)
class Topology:
    """Everything of a session file that is not a program.

    Attributes
    ----------
    metadata
        Texts that CORE keeps and does not look at; core-gui and we keep things of our own there.
    programs
        What else stood in the file that would be run, in words; empty in files of our own.
    """

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    metadata: dict[str, str] = field(default_factory=dict)
    programs: tuple[str, ...] = ()

    def node(self, number: int) -> Node:
        """Return a node by its number.

        Raises
        ------
        KeyError
            If there is none.
        """
        for node in self.nodes:
            if node.number == number:
                return node
        raise KeyError(f"no node {number}")
