"""Scenarios: a fleet's network as a session file that opens in core-gui, and read back from one.

The links of a scenario are the fleet's: one switch, one server, a link for each client with its
rate. What CORE has no word for (tiers, label counts, the clients' own names) stands in the file's
metadata, which CORE keeps. In a file that somebody else made it is missing; then the rates of the
links say what can be said.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench import topology_xml
from workbench.scenario_layout import Layout
from workbench.tiers import PAPER_TIERS, Tier
from workbench.topology import End, Link, LinkOptions, Node, Topology

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.fleet import Fleet

SWITCH = 1
SERVER = 2
FIRST_CLIENT = 3
_ADDRESSES = ipaddress.ip_network("198.18.0.0/16")
"""Set aside for measurements (RFC 2544); the server is .0.1, as in the namespace testbed."""
_METADATA = "workbench"
_FORMAT = 1
_ROUTERS = frozenset({"router", "mdr", "prouter"})

NodeKind = Literal["namespace", "docker"]


@dataclass(frozen=True, eq=False)
class Scenario:
    """A network of one server and N clients, with what is known of the clients.

    Attributes
    ----------
    topology
        All nodes and links.
    server
        Number of the server's node.
    clients
        Numbers of the clients' nodes, by row.
    names
        What the fleet calls them.
    tier, rate_bps
        (N,) index into ``tiers``; (N,) link rate in bit/s, the slower direction.
    label_counts
        (N, C) int64, or None where the file says nothing of data.
    source
        Name of the file.
    """

    topology: Topology
    server: int
    clients: tuple[int, ...]
    names: tuple[str, ...]
    tier: NDArray[np.int64]
    rate_bps: NDArray[np.float64]
    tiers: tuple[Tier, ...]
    label_counts: NDArray[np.int64] | None
    source: str = ""

    def __len__(self) -> int:
        return len(self.clients)

    # ------------------------------------------------------------------ from a fleet

    @classmethod
    def of(cls, fleet: Fleet, node: NodeKind = "namespace", image: str = "") -> Scenario:
        """Lay out a fleet's network; ``image`` is for Docker nodes."""
        layout = Layout(fleet.tier, fleet.tiers)
        kind = "docker" if node == "docker" else "node"
        numbers = tuple(range(FIRST_CLIENT, FIRST_CLIENT + len(fleet)))
        shown = _node_names(fleet)
        nodes = [
            Node(SWITCH, "switch", "switch", *layout.switch),
            Node(SERVER, "server", kind, *layout.server, model="PC", image=image),
        ]
        links = [_link(SERVER, LinkOptions())]
        for row, number in enumerate(numbers):
            x, y = (float(value) for value in layout.clients[row])
            nodes.append(Node(number, shown[row], kind, x, y, model="PC", image=image))
            links.append(_link(number, options_of(float(fleet.rate_bps[row]))))
        metadata = {**layout.metadata(), _METADATA: _pack(fleet, numbers)}
        return cls(
            topology=Topology(tuple(nodes), tuple(links), metadata),
            server=SERVER,
            clients=numbers,
            names=fleet.names,
            tier=fleet.tier,
            rate_bps=fleet.rate_bps,
            tiers=fleet.tiers,
            label_counts=fleet.label_counts,
        )

    def write(self, path: str | Path) -> Path:
        """Write the session file and return its path."""
        path = Path(path)
        path.write_bytes(topology_xml.write(self.topology))
        return path

    # ------------------------------------------------------------------ from a file

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        tiers: Sequence[Tier] | None = None,
        server: str | None = None,
    ) -> Scenario:
        """Read a session file of CORE, whoever wrote it.

        Every device but the server is a client, in the order of their numbers; routers only
        where there is no other device. ``server`` names the server's node; without it that is
        what the file says, or the one node with "server" in its name. A client that the file
        does not know the tier of gets the one of ``tiers`` whose rates are nearest to its link's;
        a link without a limit counts as the fastest rate of all tiers.

        Raises
        ------
        ValueError
            If the file can't be read, or does not say which node is the server.
        """
        path = Path(path)
        try:
            topology = topology_xml.read(path.read_bytes())
            made = cls._understand(topology, tuple(tiers) if tiers else None, server)
            return replace(made, source=path.name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def _understand(
        cls, topology: Topology, tiers: tuple[Tier, ...] | None, server: str | None
    ) -> Scenario:
        kept = _unpack(topology.metadata.get(_METADATA, ""))
        tiers = tiers or kept.tiers or PAPER_TIERS
        middle = _find_server(topology, server, kept.server)
        clients = _find_clients(topology, middle)
        known = [kept.clients.get(node.number, {}) for node in clients]
        fastest = max(tier.high_bps for tier in tiers)
        rates = [
            _rate(topology, node, entry.get("rate_bps"), fastest)
            for node, entry in zip(clients, known, strict=True)
        ]
        indices = {tier.name: index for index, tier in enumerate(tiers)}
        tier = [
            indices.get(str(entry.get("tier")), _nearest(tiers, rate))
            for entry, rate in zip(known, rates, strict=True)
        ]
        names = [
            str(entry.get("name") or node.name) for node, entry in zip(clients, known, strict=True)
        ]
        if len(set(names)) != len(names):
            names = [f"{node.name}-{node.number}" for node in clients]
        return cls(
            topology=topology,
            server=middle.number,
            clients=tuple(node.number for node in clients),
            names=tuple(names),
            tier=np.array(tier, dtype=np.int64),
            rate_bps=np.array(rates, dtype=np.float64),
            tiers=tiers,
            label_counts=_label_counts(known),
        )

    def onto(self, fleet: Fleet) -> Fleet:
        """Return a fleet of as many clients with the names, tiers and links of this scenario."""
        return replace(
            fleet,
            names=self.names,
            tier=self.tier,
            rate_bps=self.rate_bps,
            tiers=self.tiers,
            settings=fleet.settings | {"scenario": self.source},
        )

    def link_of(self, node: int) -> Link:
        """Return the link at which a device hangs: its first one, seen from the device.

        Raises
        ------
        ValueError
            If it has none.
        """
        return _links_of(self.topology, self.topology.node(node))[0]


# ---------------------------------------------------------------------- writing


def _link(number: int, options: LinkOptions) -> Link:
    address = str(_ADDRESSES[number - SERVER + 1])
    inner = End(number, 0, name="eth0", ip4=address, ip4_mask=_ADDRESSES.prefixlen)
    return Link(inner, End(SWITCH, number), options)


def options_of(rate_bps: float) -> LinkOptions:
    """Return the options of a link with a rate; CORE takes a rate of 0 for no limit."""
    if rate_bps == 0:
        return LinkOptions(loss_percent=100)
    return LinkOptions(bandwidth_bps=max(1, round(rate_bps)))


def _node_names(fleet: Fleet) -> list[str]:
    """Return names of nodes with the tier in them, fit to be names of hosts: ``c3-t41``."""
    names = []
    for row, name in enumerate(fleet.names):
        short = re.sub(r"^client-(?=\d+$)", "c", name)
        tier = fleet.tiers[fleet.tier[row]].name
        tier = f"t{tier}" if tier[:1].isdigit() else tier
        names.append(re.sub(r"[^A-Za-z0-9]+", "-", f"{short}-{tier}").strip("-")[:40])
    repeated = len(set(names)) < len(names)
    return [f"{name}-{row}" for row, name in enumerate(names)] if repeated else names


def _pack(fleet: Fleet, numbers: Sequence[int]) -> str:
    clients = {
        str(number): {
            "name": fleet.names[row],
            "tier": fleet.tiers[fleet.tier[row]].name,
            "rate_bps": float(fleet.rate_bps[row]),
            "label_counts": fleet.label_counts[row].tolist(),
        }
        for row, number in enumerate(numbers)
    }
    tiers = [
        [tier.name, tier.tier_class, tier.low_bps, tier.high_bps, tier.step_bps]
        for tier in fleet.tiers
    ]
    kept = {"format": _FORMAT, "server": SERVER, "tiers": tiers, "clients": clients}
    return json.dumps(kept, separators=(",", ":"))


# ---------------------------------------------------------------------- reading


@dataclass(frozen=True)
class _Kept:
    """What a file of ours says beside the network."""

    server: int = 0
    tiers: tuple[Tier, ...] | None = None
    clients: dict[int, dict[str, Any]] = None  # type: ignore[assignment]  # see _unpack


def _unpack(text: str) -> _Kept:
    if not text:
        return _Kept(clients={})
    try:
        kept = json.loads(text)
        tiers = tuple(Tier(*row) for row in kept["tiers"])
        clients = {int(number): dict(entry) for number, entry in kept["clients"].items()}
        return _Kept(int(kept["server"]), tiers or None, clients)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"its metadata {_METADATA!r} cannot be understood: {error}") from error


def _find_server(topology: Topology, named: str | None, kept: int) -> Node:
    devices = [node for node in topology.nodes if node.is_device]
    if named is not None:
        found = [node for node in devices if node.name == named]
        if not found:
            raise ValueError(f"server is {named!r}, but the file has no device of that name")
        return found[0]
    found = [node for node in devices if node.number == kept]
    found = found or [node for node in devices if "server" in node.name.lower()]
    if len(found) != 1:
        names = ", ".join(node.name for node in devices[:10])
        raise ValueError(
            f"it does not say which device is the server; name it with server=... (it has {names})"
        )
    return found[0]


def _find_clients(topology: Topology, server: Node) -> list[Node]:
    others = [node for node in topology.nodes if node.is_device and node is not server]
    clients = [node for node in others if node.model not in _ROUTERS] or others
    if not clients:
        raise ValueError(f"it has no client: {server.name} is the only device")
    _links_of(topology, server)
    for node in clients:
        _links_of(topology, node)
    return clients


def _links_of(topology: Topology, node: Node) -> list[Link]:
    """Return the links at a node, turned so that it is the first end."""
    links = [
        link if link.one.node == node.number else Link(link.other, link.one, link.options)
        for link in topology.links
        if node.number in {link.one.node, link.other.node}
    ]
    if not links:
        raise ValueError(f"the device {node.name} has no link")
    return links


def _rate(topology: Topology, node: Node, exact: object, fastest: float) -> float:
    """Return a client's rate in bit/s, the slower direction; ``fastest`` without any limit."""
    links = _links_of(topology, node)
    options = [link.options for link in links if link.wire == links[0].wire]
    # CORE's rates are whole numbers; the exact one holds unless somebody has changed the link.
    if isinstance(exact, float) and exact >= 0 and options == [options_of(exact)]:
        return exact
    if any(each.loss_percent >= 100 for each in options):
        return 0.0
    return min(
        (float(each.bandwidth_bps) for each in options if each.bandwidth_bps), default=fastest
    )


def _nearest(tiers: Sequence[Tier], rate_bps: float) -> int:
    """Return the tier with the rate that differs least from ``rate_bps``, as a ratio."""
    distance = [float(np.abs(np.log(tier.rates_bps / max(rate_bps, 1))).min()) for tier in tiers]
    return int(np.argmin(distance))


def _label_counts(known: Sequence[dict[str, Any]]) -> NDArray[np.int64] | None:
    rows = [entry.get("label_counts") for entry in known]
    if any(not isinstance(row, list) for row in rows) or len({len(row or ()) for row in rows}) != 1:
        return None
    try:
        counts = np.array(rows, dtype=np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"its label counts are no whole numbers: {error}") from error
    return counts if counts.ndim == 2 and counts.shape[1] and (counts >= 0).all() else None
