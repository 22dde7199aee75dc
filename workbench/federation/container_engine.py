"""The live engine on containers: every node is a program of its own in its client's container.

A forked node shares the notebook's memory and its code. A container has only what its image and
its share hold, so a ClientApp says how it is made there: it is `Portable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from workbench.federation.superlink import LiveEngine
from workbench.testbed.containers import CODE, SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flwr.clientapp import ClientApp

    from workbench.testbed.container_enclosure import ContainerEnclosure
    from workbench.testbed.container_processes import ContainerProcesses
    from workbench.testbed.namespaces import NamespaceNetwork

_NODE = f"{CODE}/workbench/federation/container_node.py"


@runtime_checkable
class Portable(Protocol):
    """A ClientApp that can be made again in a container."""

    def pack(self, client: int, folder: Path) -> str:
        """Write what a client needs into its folder; return ``module:function``.

        In the container the function is called with the folder, and returns the ClientApp.
        """
        ...


class ContainerEngine(LiveEngine):
    """Runs a portable ClientApp on the nodes of a network of containers; see `LiveEngine`.

    Raises
    ------
    TypeError
        If the ClientApp is not `Portable`.
    """

    def __init__(
        self,
        network: NamespaceNetwork,
        client_app: ClientApp,
        node_configs: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        if not isinstance(client_app, Portable):
            raise TypeError(
                f"{type(client_app).__name__} has no pack(client, folder), without which it "
                "cannot be made in a container; make_client_app makes one that has"
            )
        super().__init__(network, client_app, node_configs)
        self._portable = client_app

    @property
    def _inside(self) -> ContainerEnclosure:
        return cast("ContainerEnclosure", self._network.inside)

    def _make_nodes(self) -> ContainerProcesses:  # type: ignore[override]  # it does what those do
        command = ["python3", "-P", _NODE]
        clients = len(self._network.fleet)
        return self._inside.run_clients(command, self._greet, clients, self._heard)

    def _greet(self, row: int) -> dict[str, Any]:
        """Return what a node is told first."""
        private = self._keys[row][0]
        key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return {
            "app": self._portable.pack(row, self._inside.share(row)),
            "folder": SHARE,
            "config": self._configs[row],
            "server": self._server,
            "key": key.decode(),
        }
