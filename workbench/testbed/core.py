"""The CORE testbed: the network of a running core-daemon, with the controls of all live testbeds.

CORE's daemon is told of a switch, a server and clients by `workbench.testbed.core_session`; the
session can be looked at in core-gui while a search runs on it. CORE shapes links by the kernel's
netem. Where the kernel has none, links get the token buckets of the namespace testbed instead.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.scenario import Scenario
from workbench.testbed import containers, linux, probe
from workbench.testbed.addresses import Delay
from workbench.testbed.base import Testbed
from workbench.testbed.containers import Limits
from workbench.testbed.core_client import CoreClient, CoreError
from workbench.testbed.core_enclosure import NEEDS_ROOT, CoreEnclosure
from workbench.testbed.core_session import Heard
from workbench.testbed.image import IMAGE
from workbench.testbed.namespaces import NamespaceNetwork
from workbench.testbed.schedules import AnySchedule, TierSchedule

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.fleet import Fleet
    from workbench.testbed.base import Direction
    from workbench.topology import Node

ADDRESS = "localhost:50051"
HOW = f"as root; a core-daemon answers at {ADDRESS}"
"""What the doctor says where it runs."""
_MOST_CLIENTS = 4000
"""Interfaces of the switch are numbered, and their names have room for 4 digits and a session."""
_NETWORKS = ("switch", "hub")


def why_not(address: str = ADDRESS) -> str:
    """Return why a CORE testbed can't be put up here, and what helps; empty if it can."""
    if sys.platform != "linux":
        return f"CORE needs Linux, and this is {sys.platform}; use SimulatedTestbed() here"
    if not linux.may_administer():
        return NEEDS_ROOT
    try:
        CoreClient(address, answer_s=5).close()
    except (CoreError, ImportError) as error:
        return str(error)
    return ""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CoreTestbed(Testbed):
    """Nodes and links of a core-daemon 9.2.1 on this machine; needs root.

    Parameters
    ----------
    address
        ``host:port`` of the daemon.
    node
        What clients are: Docker containers, started by CORE from a compose file without
        privileges, or plain nodes of CORE, which are namespaces.
    scenario
        Session file whose nodes and places are used, see `open`; empty lays out the fleet.
    image, cpus, memory
        What Docker nodes run and may use; see `workbench.testbed.docker.DockerTestbed`.
    shaping
        Who limits the links: ``core`` by netem, ``buckets`` by the token buckets of the other
        live testbeds, ``auto`` by netem where the kernel has it. Delay and loss need ``core``.
    schedule
        When and how the link rates change.
    latency_s, jitter_s
        Delay of every packet on every link in each direction, and how much it varies.
    loss
        Share of packets that every link loses in each direction.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    address: Annotated[str, Field(pattern=r"^[^\s:/]+:\d{1,5}$")] = ADDRESS
    node: Literal["docker", "namespace"] = "namespace"
    scenario: str = ""
    image: Annotated[str, Field(min_length=1)] = IMAGE
    cpus: Annotated[float, Field(gt=0, le=1024)] = 8.0
    memory: Annotated[str, Field(pattern=r"^[1-9][0-9]*[bkmg]$")] = "6g"
    shaping: Literal["auto", "core", "buckets"] = "auto"
    schedule: AnySchedule = TierSchedule()
    latency_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    jitter_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @classmethod
    def open(cls, path: str | Path, **settings: object) -> Self:
        """Return the testbed of a session file, whoever wrote it.

        Its fleet is `workbench.fleet.Fleet.from_scenario` of the same file. What the file would
        have CORE run (hooks, changed services) is not run.

        Parameters
        ----------
        path
            Session file of CORE.
        **settings
            Any other parameter of the testbed.

        Raises
        ------
        ValueError
            If the file can't be read, or its clients do not hang at a switch.
        """
        read = Scenario.read(path)
        clients = [read.topology.node(number) for number in read.clients]
        found: dict[str, object] = {"scenario": str(path)}
        if images := {each.image for each in clients if each.kind == "docker"}:
            found |= {"node": "docker"}
            if len(images) == 1 and "" not in images:
                found |= {"image": images.pop()}
        made = cls(**(found | settings))  # type: ignore[arg-type]  # pydantic looks at them
        made._arrange(read)  # refuses what cannot be put up
        return made

    def up(self, fleet: Fleet) -> CoreNetwork:
        """Put the network up for a fleet; use it as a context manager.

        Raises
        ------
        workbench.testbed.core_client.CoreError
            If there is no daemon of the right version, or it can't; the message says what helps.
        RuntimeError
            If this machine can't, or an image is missing; the message says what helps.
        ValueError
            If the fleet has other clients than the scenario.
        """
        return CoreNetwork(self, fleet)

    def arrange(self, fleet: Fleet) -> Scenario:
        """Return nodes and links for a fleet, as CORE is told of them.

        Raises
        ------
        ValueError
            If the fleet has other clients than the scenario, or CORE could not have so many.
        """
        if len(fleet) > _MOST_CLIENTS:
            raise ValueError(f"the fleet has {len(fleet)} clients; {_MOST_CLIENTS} are possible")
        if not self.scenario:
            return self._arrange(Scenario.of(fleet))
        read = Scenario.read(self.scenario)
        if len(read) != len(fleet):
            raise ValueError(
                f"scenario is {self.scenario!r} with {len(read)} clients, but the fleet has "
                f"{len(fleet)}; Fleet.from_scenario({self.scenario!r}) makes one for it"
            )
        return self._arrange(replace(read, names=fleet.names))

    def _arrange(self, scenario: Scenario) -> Scenario:
        """Make clients what this testbed asks for, and the server a plain node."""
        clients = set(scenario.clients)
        kinds = {node.number: node.kind for node in scenario.topology.nodes}

        def arranged(node: Node) -> Node:
            if node.number == scenario.server:
                return replace(node, kind="node", image="", model="")
            if node.number in clients:
                kind = "docker" if self.node == "docker" else "node"
                image = self.image if kind == "docker" else ""
                return replace(node, kind=kind, image=image, model="")
            if node.kind not in ("node", *_NETWORKS):
                raise ValueError(
                    f"{scenario.source or 'the scenario'}: the node {node.name} is a {node.kind}; "
                    "a CoreTestbed has plain nodes, switches and hubs beside server and clients"
                )
            return node

        nodes = tuple(arranged(node) for node in scenario.topology.nodes)
        for number in (scenario.server, *scenario.clients):
            link = scenario.link_of(number)
            name = scenario.topology.node(number).name
            if not link.one.ip4:
                raise ValueError(f"{scenario.source}: the device {name} has no IPv4 address")
            if number in clients and kinds[link.other.node] not in _NETWORKS:
                raise ValueError(
                    f"{scenario.source}: the client {name} does not hang at a switch or hub, so "
                    "its link cannot be limited in both directions"
                )
        return replace(scenario, topology=replace(scenario.topology, nodes=nodes))

    def why_core_does_not_shape(self) -> str:
        """Return why links are not limited by CORE itself; empty if they are."""
        if self.shaping == "buckets":
            return "token buckets were asked for"
        return probe.why_no_delay()


class CoreNetwork(NamespaceNetwork):
    """A session of CORE that is up; its controls are those of `NamespaceNetwork`.

    Attributes
    ----------
    inside
        Ways into the server's and the clients' nodes.
    shaping
        In words, who limits the links, and why.
    """

    testbed: CoreTestbed  # type: ignore[assignment]  # it describes the same links
    inside: CoreEnclosure

    def __init__(self, testbed: CoreTestbed, fleet: Fleet) -> None:
        self.shaping = ""
        self._scenario = testbed.arrange(fleet)
        super().__init__(testbed, fleet)  # type: ignore[arg-type]

    def _enclose(self) -> CoreEnclosure:
        testbed = self.testbed
        delay = Delay(testbed.latency_s, testbed.jitter_s, testbed.loss)
        reason = testbed.why_core_does_not_shape()
        if reason and (delay.wanted or testbed.shaping == "core"):
            raise RuntimeError(
                f"CORE cannot shape links here: {reason}"
                if "netem" in reason
                else f"delay, jitter and loss need shaping='core': {reason}"
            )
        self.shaping = f"token buckets: {reason}" if reason else "CORE, by netem"
        limits = None
        if testbed.node == "docker":
            limits = Limits(testbed.image, testbed.cpus, testbed.memory)
            if wrong := containers.why_not(testbed.image):
                raise RuntimeError(wrong)
        return CoreEnclosure(
            testbed.address, self._scenario, delay, core_shapes=not reason, limits=limits
        )

    def _put_up(self) -> None:
        super()._put_up()
        self.inside.watch(Heard(self._lose, self._lost_client, self._edited))

    # ------------------------------------------------------------------ what others do

    def _lose(self, reason: str) -> None:
        self.inside.lost = reason

    def _in_background(self, control: str, *arguments: object) -> None:
        """Use a control as if a person had; events come on a thread that must not wait."""

        def use() -> None:
            with suppress(Exception):  # the network is just being taken down
                getattr(self, control)(*arguments)

        threading.Thread(target=use, name=f"{self.inside.mark}-event", daemon=True).start()

    def _lost_client(self, row: int) -> None:
        self._in_background("remove", row)

    def _edited(self, row: int, direction: Direction | None, rate_bps: float) -> None:
        """Take a link that somebody edits in core-gui for set to that rate."""
        if rate_bps:
            self._in_background("set_rate", row, rate_bps, direction)
        else:
            self._in_background("cut", row)
