"""Clients as Docker nodes of CORE: the compose file that it starts them by, and what they become.

CORE's own way of starting a container makes it privileged. By a compose file it does not, and the
container gets the limits and the closed doors of those of `workbench.testbed.containers`.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

from workbench.testbed import containers
from workbench.testbed.core_client import CoreError
from workbench.testbed.image import ENVIRONMENTS, connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workbench.testbed.containers import Limits

_TEMPLATE = "core-client.compose.yaml"
_PERIOD_US = 100_000
_UNSAFE = re.compile(r"[$`%\\\"\n]")


class _Template(string.Template):
    """A text in which ``$`` belongs to CORE."""

    delimiter = "@"


class CoreContainers:
    """The containers of a CORE testbed's clients, by row; what `ContainerProcesses` needs of them.

    Parameters
    ----------
    limits
        What each may use, and its image.
    mark
        What their names begin with.
    folder
        Where the compose file and the clients' shares are.
    name
        Returns the name of a client's container.
    node
        Returns the number of a client's node.

    Raises
    ------
    RuntimeError
        If there is no Docker engine, or no such image.
    """

    def __init__(
        self,
        limits: Limits,
        mark: str,
        folder: Path,
        *,
        name: Callable[[int], str],
        node: Callable[[int], int],
    ) -> None:
        self.name = name
        self.memory = limits.memory
        self._folder = folder
        self._node = node
        self._first: dict[int, int] = {}
        self.engine = connect()
        try:
            containers.check_image(self.engine, limits.image)
            self.compose = folder / _TEMPLATE
            self.compose.write_text(_fill_in(limits, mark, folder))
        except BaseException:
            self.engine.close()
            raise

    def prepare(self, row: int) -> None:
        """Make the folder of a client's share, before its container is started."""
        share = self.share(row)
        share.mkdir(exist_ok=True)
        share.chmod(0o755)  # the folder around it is closed to everybody else

    def share(self, row: int) -> Path:
        """Return the folder of the host that a client's container sees read-only as its share."""
        return self._folder / f"share-{self._node(row)}"

    def find(self, row: int) -> int:
        """Look for a client's container that CORE has started; return its first process.

        Raises
        ------
        CoreError
            If the Docker engine here does not know it.
        """
        import docker  # noqa: PLC0415  # only those who ask for containers need it

        try:
            found = self.engine.api.inspect_container(self.name(row))
        except docker.errors.NotFound as error:
            raise CoreError(
                f"CORE has started the container {self.name(row)}, but not on this machine's "
                "Docker engine; let DOCKER_HOST name the one that core-daemon uses"
            ) from error
        self._first[row] = int(found["State"]["Pid"])
        return self._first[row]

    def kills(self, row: int) -> int:
        """Return how often the kernel killed something in a container for its memory limit."""
        return containers.memory_kills(self._first.get(row, 0))

    def close(self) -> None:
        """Forget the engine; the containers are CORE's to remove."""
        self.engine.close()


def _fill_in(limits: Limits, mark: str, folder: Path) -> str:
    template = ENVIRONMENTS / _TEMPLATE
    if not template.is_file():
        raise FileNotFoundError(f"there is no {template}; Docker nodes of CORE need a checkout")
    package, scenarios, _ = containers.mounts(folder)
    values = {
        "image": limits.image,
        "cpu_quota": round(limits.cpus * _PERIOD_US),
        "memory": limits.memory,
        "mark": mark,
        "owner": containers.owner(),
        "package": package,
        "scenarios": scenarios,
        "folder": folder,
    }
    for name, value in values.items():
        if _UNSAFE.search(str(value)):
            raise ValueError(
                f"{name} is {str(value)!r}, which CORE cannot pass on in a compose file"
            )
    text = template.read_text()
    body = text[text.index("services:") :]  # CORE would fill in what the comments speak of
    return _Template(body).substitute(values)
