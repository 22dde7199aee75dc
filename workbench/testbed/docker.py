"""The Docker testbed: the live network of the namespace testbed, with containers for clients.

Every client is a container with limits of CPU and memory and an image of its own; its only
network is its link of the testbed, shaped and switched as on the namespace testbed. The SuperLink
runs in the server's namespace, outside of any container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.testbed import containers, linux, probe
from workbench.testbed.addresses import Delay
from workbench.testbed.base import Testbed
from workbench.testbed.container_enclosure import ContainerEnclosure
from workbench.testbed.containers import Containers, Limits
from workbench.testbed.image import IMAGE
from workbench.testbed.namespaces import NamespaceNetwork
from workbench.testbed.schedules import AnySchedule, TierSchedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from workbench.fleet import Fleet


HOW = "as root; clients are containers with limits, rates of links in each direction are shaped"
"""What the doctor says where it runs."""
_NEEDS_ROOT = (
    "links are plugged into the containers from outside, so that they need no rights of their own, "
    "and that takes root; run the notebook as root, in a container with --cap-add SYS_ADMIN "
    "--cap-add NET_ADMIN"
)


def why_not(image: str = IMAGE) -> str:
    """Return why a Docker testbed can't be put up here, and what helps; empty if it can."""
    if reason := probe.why_no_namespaces(rootless=False):
        return reason
    return containers.why_not(image)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DockerTestbed(Testbed):
    """Clients as Docker containers on links of a namespace testbed; needs root and Docker.

    Parameters
    ----------
    image
        What the containers run; ``make image`` builds the default one.
    cpus
        CPU time that each container may use, in cores; more than the machine has is no limit.
    memory
        Memory that each may use, as Docker writes it: a number and b, k, m or g. A client that
        exceeds it is killed, and named.
    schedule
        When and how the link rates change.
    latency_s, jitter_s
        Delay of every packet on every link in each direction, and how much it varies; needs the
        kernel's netem.
    loss
        Share of packets that every link loses in each direction; needs netem.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    image: Annotated[str, Field(min_length=1)] = IMAGE
    cpus: Annotated[float, Field(gt=0, le=1024)] = 8.0
    memory: Annotated[str, Field(pattern=r"^[1-9][0-9]*[bkmg]$")] = "6g"
    schedule: AnySchedule = TierSchedule()
    latency_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    jitter_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def up(self, fleet: Fleet) -> DockerNetwork:
        """Put the network up for a fleet; use it as a context manager.

        Raises
        ------
        RuntimeError
            If this machine can't, or the image is missing; the message says what helps.
        """
        return DockerNetwork(self, fleet)


class DockerNetwork(NamespaceNetwork):
    """A network whose clients are containers; its controls are those of `NamespaceNetwork`.

    Attributes
    ----------
    inside
        Ways into the server's namespace and the containers.
    """

    testbed: DockerTestbed  # type: ignore[assignment]  # it describes the same links
    inside: ContainerEnclosure

    def __init__(self, testbed: DockerTestbed, fleet: Fleet) -> None:
        super().__init__(testbed, fleet)  # type: ignore[arg-type]

    def _enclose(self) -> ContainerEnclosure:
        testbed = self.testbed
        limits = Limits(testbed.image, testbed.cpus, testbed.memory)
        return DockerEnclosure(Delay(testbed.latency_s, testbed.jitter_s, testbed.loss), limits)


class DockerEnclosure(ContainerEnclosure):
    """A testbed's namespaces, those of the clients being containers'.

    Sockets and programs of the host can be opened in a container's network as in any other;
    `run_clients` runs a program in the container itself.

    Attributes
    ----------
    containers
        The containers, by row.
    """

    in_containers = True
    containers: Containers

    def __init__(self, delay: Delay, limits: Limits) -> None:
        if not linux.may_administer():
            raise RuntimeError(_NEEDS_ROOT)
        super().__init__(delay, rootless=False)
        try:
            self.containers = Containers(limits, self.mark, self.folder)
        except BaseException:
            super().close()
            raise

    def join(
        self,
        clients: Mapping[int, str],
        down_bps: NDArray[np.float64],
        up_bps: NDArray[np.float64],
    ) -> None:
        """Start the containers of clients, names by row, and plug their links into them."""
        self.containers.start(clients)
        for row, name in clients.items():
            rates = {"down_bps": float(down_bps[row]), "up_bps": float(up_bps[row])}
            process = self.containers.first_process(row)
            self.ask(do="add", row=row, name=name, process=process, **rates)

    def leave(self, client: int) -> None:
        """Remove a client's container, with its link and its processes."""
        self.containers.remove(client)
        super().leave(client)

    def close(self) -> None:
        """Remove the containers, end every process inside; a second call does nothing."""
        if self._process:
            self.containers.close()
        super().close()
