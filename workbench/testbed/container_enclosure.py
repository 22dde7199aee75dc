"""What every enclosure with containers can do, whoever started these: run clients' programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.testbed.container_processes import ContainerProcesses
from workbench.testbed.enclosure import Enclosure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from workbench.testbed.containers import Containers
    from workbench.testbed.core_containers import CoreContainers


class ContainerEnclosure(Enclosure):
    """An enclosure whose clients are containers.

    Attributes
    ----------
    containers
        The containers, by row.
    """

    containers: Containers | CoreContainers

    def run_clients(
        self,
        command: Sequence[str],
        greet: Callable[[int], dict[str, Any]],
        clients: int,
        heard: Callable[[int, dict[str, Any]], None],
    ) -> ContainerProcesses:
        """Be ready to run a program in each client's container; see `ContainerProcesses`."""
        started = ContainerProcesses(
            command, greet, clients, self.containers, heard, log=self.folder / "clients.log"
        )
        self._started.append(started)
        return started

    def share(self, client: int) -> Path:
        """Return the folder that a client's container sees as its share, read-only."""
        return self.containers.share(client)
