"""One session of a core-daemon: a server and clients at switches, whose links can be changed.

What is asked of CORE here is what it keeps: nodes, links and their options. How one gets into
the nodes, and what runs there, is the business of `workbench.testbed.core_enclosure`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.scenario import options_of
from workbench.testbed.core_client import CoreError
from workbench.testbed.core_wire import MessageType, NodeType, SessionState, message
from workbench.testbed.core_words import link_message, same_options

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from workbench.scenario import Scenario
    from workbench.testbed.addresses import Delay
    from workbench.testbed.base import Direction
    from workbench.testbed.core_client import CoreClient
    from workbench.topology import Link, LinkOptions, Node

COMPOSE_SERVICE = "client"
MARK = "workbench-testbed"
"""Name of the session's metadata in which a testbed's mark stands."""
_START_S = 60.0
_START_PER_NODE_S = 2.0
_QUEUE_S = 0.1
_QUEUE_AT_LEAST = 20
_TYPES = {
    "node": NodeType.DEFAULT,
    "docker": NodeType.DOCKER,
    "switch": NodeType.SWITCH,
    "hub": NodeType.HUB,
}


@dataclass(frozen=True)
class Heard:
    """What is called when something happens to a session that was not done here."""

    lost: Callable[[str], None]
    """With the reason, when the daemon or the session is gone."""
    removed: Callable[[int], None]
    """With the row of a client whose node somebody has deleted."""
    edited: Callable[[int, Direction | None, float], None]
    """With row, direction (None for both) and rate of a link that somebody has changed."""


class CoreSession:
    """A session of our own, deleted by `delete`.

    Parameters
    ----------
    client
        The connection to the daemon.
    scenario
        Its nodes and links; rates are set later.
    mark
        What tells it from sessions of others; containers' names begin with it.
    delay
        What every link adds to its rate.
    compose
        The compose file of Docker nodes, on the daemon's machine.
    avoid
        Numbers that the session must not have.

    Attributes
    ----------
    number
        CORE's id of it.
    directory
        Where the daemon keeps its files, on its machine.
    started
        Whether its nodes are there.
    """

    def __init__(
        self,
        client: CoreClient,
        scenario: Scenario,
        *,
        mark: str,
        delay: Delay,
        compose: str = "",
        avoid: Collection[int] = (),
    ) -> None:
        self._client = client
        self._scenario = scenario
        self._mark = mark
        self._delay = delay
        self._compose = compose
        made = client.create_session(avoid)
        self.number = int(made.id)
        self.directory = Path(made.dir)
        self.started = False
        self._links: dict[int, Link] = {
            row: scenario.link_of(node) for row, node in enumerate(scenario.clients)
        }
        ends = [end for link in scenario.topology.links for end in (link.one, link.other)]
        self._next_port = 1 + max(end.interface for end in ends)
        self._rates: dict[int, tuple[float, float]] = {}
        self._again: dict[int, int] = {}
        """How often a node was put back."""

    # ------------------------------------------------------------------ up and down

    def start(self) -> None:
        """Put up all nodes and links; the links are not limited yet.

        Raises
        ------
        CoreError
            If CORE cannot; the session must still be deleted.
        """
        topology = self._scenario.topology
        clients = {self._scenario.link_of(node).wire for node in self._scenario.clients}
        links = [
            link_message(link, link.options if not _is_client(link, clients) else None)
            for link in topology.links
        ]
        session = message("Session")(
            id=self.number,
            nodes=[self._node(node) for node in topology.nodes],
            links=links,
            metadata={**topology.metadata, MARK: self._mark},
        )
        wait_s = _START_S + _START_PER_NODE_S * len(topology.nodes)
        self._client.start_session(session, wait_s=wait_s)
        self.started = True

    def delete(self) -> None:
        """Delete the session with all its nodes."""
        self._client.delete_session(self.number)

    def remove(self, row: int) -> None:
        """Delete a client's node, with its link; somebody else may have done so already."""
        self._rates.pop(row, None)
        self._client.delete_node(self.number, self._scenario.clients[row])

    def add(self, row: int) -> None:
        """Put a client's node back; its link is not limited yet.

        It gets an interface of the switch that was never used: CORE keeps the old one. A
        container gets a new name, since CORE appends to the compose file of a name that it knows.
        """
        node = self._scenario.clients[row]
        self._again[node] = self._again.get(node, 0) + 1
        self._client.add_node(self.number, self._node(self._node_of(row)))
        old = self._links[row]
        self._links[row] = replace(old, other=replace(old.other, interface=self._next_port))
        self._next_port += 1
        self._client.add_link(self.number, link_message(self._links[row], None))

    # ------------------------------------------------------------------ what is known

    def name(self, node: int) -> str:
        """Return what CORE calls a node; that of a container is unique on its machine."""
        found = self._scenario.topology.node(node)
        if found.kind != "docker":
            return found.name
        again = self._again.get(node, 0)
        return f"{self._mark}-{found.name}" + (f"-{again}" if again else "")

    def inner(self, node: int) -> str:
        """Return the name of a device's interface, inside of it."""
        end = self._scenario.link_of(node).one
        return end.name or f"eth{end.interface}"

    def port(self, row: int) -> str:
        """Return the name of the interface that sends to a client, on the daemon's machine."""
        end = self._links[row].other
        return f"veth{end.node}.{end.interface}.{self.number:x}"

    # ------------------------------------------------------------------ rates

    def set_rates(self, rates: Mapping[int, tuple[float | None, float | None]]) -> None:
        """Have CORE shape links: (down, up) in bit/s by row; None leaves a direction as it is.

        All options are sent each time, several links at once, and then read back.

        Raises
        ------
        CoreError
            If CORE refuses, or the session then says something else.
        """
        edits: list[tuple[int, Any]] = []
        for row, (down, up) in rates.items():
            before = self._rates.get(row, (math.nan, math.nan))
            now = (before[0] if down is None else down, before[1] if up is None else up)
            self._rates[row] = now
            there = self._links[row]
            back = replace(there, one=there.other, other=there.one)
            if down is not None and down == up:
                edits.append((row, link_message(there, self._options(down))))
                continue
            for link, rate in ((there, up), (back, down)):
                if rate is not None:
                    options = replace(self._options(rate), unidirectional=True)
                    edits.append((row, link_message(link, options)))
        self._edit(edits)
        self._read_back(rates)

    def _edit(self, edits: list[tuple[int, Any]]) -> None:
        failures = self._client.edit_links(self.number, [edit for _, edit in edits])
        failed = [edit for edit, error in zip(edits, failures, strict=True) if error]
        if not failed:
            return
        # CORE has noted what it could not do, so that the same once more would be taken for done.
        for _, edit in failed:
            edit.options.buffer += 1
        again = self._client.edit_links(self.number, [edit for _, edit in failed])
        for (row, edit), error in zip(failed, again, strict=True):
            if error:
                raise CoreError(f"the link of {self._scenario.names[row]}: {error}") from error
            edit.options.buffer -= 1
        again = self._client.edit_links(self.number, [edit for _, edit in failed])
        for (row, _), error in zip(failed, again, strict=True):
            if error:
                raise CoreError(f"the link of {self._scenario.names[row]}: {error}") from error

    def _read_back(self, rows: Mapping[int, object]) -> None:
        found = {
            (link.node1_id, link.iface1.id, link.node2_id, link.iface2.id): link.options
            for link in self._client.session(self.number).links
        }
        for row in rows:
            down, up = self._rates[row]
            there = self._links[row]
            back = replace(there, one=there.other, other=there.one)
            for link, other, rate, way in ((there, back, up, "up"), (back, there, down, "down")):
                shown = found.get(link.wire) or found.get(other.wire)
                if math.isnan(rate):
                    continue
                if shown is None or not same_options(shown, self._options(rate)):
                    raise CoreError(
                        f"CORE says that the link of {self._scenario.names[row]} ({way}) is not "
                        f"what it was set to: {rate:g} bit/s was asked for, and there is "
                        + ("no such link" if shown is None else f"{shown.bandwidth} bit/s")
                    )

    def _options(self, rate_bps: float) -> LinkOptions:
        """Return everything that a link is to do to packets at a rate."""
        made = options_of(rate_bps)
        packets = math.ceil(rate_bps * _QUEUE_S / 12_000)
        return replace(
            made,
            delay_us=round(self._delay.latency_s * 1e6),
            jitter_us=round(self._delay.jitter_s * 1e6),
            loss_percent=max(made.loss_percent, self._delay.loss * 100),
            buffer_packets=max(_QUEUE_AT_LEAST, packets),
        )

    # ------------------------------------------------------------------ events

    def watch(self, heard: Heard) -> Callable[[], None]:
        """Tell what others do to the session, until the returned function is called."""
        rows = {node: row for row, node in enumerate(self._scenario.clients)}

        def take_in(event: Any, reason: str) -> None:  # noqa: ANN401  # protobuf
            if event is None:
                heard.lost(reason)
                return
            kind = event.WhichOneof("event_type")
            if kind == "session_event" and event.session_event.event in {
                SessionState.DATACOLLECT,
                SessionState.SHUTDOWN,
            }:
                heard.lost(f"somebody has ended session {self.number} of CORE")
            elif kind == "node_event":
                node = event.node_event.node.id
                if event.node_event.message_type == MessageType.DELETE and node in rows:
                    heard.removed(rows[node])
            elif kind == "link_event":
                self._take_in_link(event.link_event, rows, heard)

        return self._client.events(self.number, take_in)

    def _take_in_link(self, event: Any, rows: Mapping[int, int], heard: Heard) -> None:  # noqa: ANN401
        link = event.link
        row = rows.get(link.node1_id, rows.get(link.node2_id, -1))
        if row < 0 or event.message_type != MessageType.NONE:
            return
        rate = 0.0 if link.options.loss >= 100 else float(link.options.bandwidth)
        if not link.options.unidirectional:
            heard.edited(row, None, rate)
        else:
            heard.edited(row, "up" if link.node1_id in rows else "down", rate)

    # ------------------------------------------------------------------ in CORE's words

    def _node_of(self, row: int) -> Node:
        return self._scenario.topology.node(self._scenario.clients[row])

    def _node(self, node: Node) -> Any:  # noqa: ANN401
        docker = node.kind == "docker"
        return message("Node")(
            id=node.number,
            name=self.name(node.number),
            type=_TYPES[node.kind],
            model=node.model,
            position=message("Position")(x=node.x, y=node.y),
            image=node.image if docker else "",
            services=node.services,
            compose=self._compose if docker else "",
            compose_name=COMPOSE_SERVICE if docker else "",
        )


def _is_client(link: Link, clients: set[tuple[int, int, int, int]]) -> bool:
    one, other = link.one, link.other
    turned = (other.node, other.interface, one.node, one.interface)
    return link.wire in clients or turned in clients
