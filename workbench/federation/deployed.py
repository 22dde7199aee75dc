"""What a stock SuperNode runs: the same ClientApp, on its own client's share of the data.

A node is given its share as a folder, and told which one in its node config::

    flower-supernode --superlink HOST:PORT --root-certificates ca.crt
        --auth-supernode-private-key client-3
        --node-config 'partition-id=3 num-partitions=8 share="/data/client-3"'

The machine needs this package installed; nothing but data is sent to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.clientapp import ClientApp

from workbench.federation.client import make_client_app, unpack

if TYPE_CHECKING:
    from flwr.app import Context, Message

    from workbench.data.dataset import Dataset
    from workbench.fleet import Fleet

MODULE = "deployed_search"
FILES = {f"{MODULE}.py": "from workbench.federation.deployed import app\n"}
"""The app that a SuperLink hands to its nodes: one line, which names this module."""


class DeployedApp(ClientApp):
    """The ClientApp of whichever share the node's config names."""

    def __init__(self) -> None:
        super().__init__()
        self._apps: dict[str, ClientApp] = {}

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message with the app of this node's share."""
        share = str(context.node_config.get("share", ""))
        if not share:
            raise RuntimeError(
                "this node's config names no share; start it with --node-config 'partition-id=0 "
                'num-partitions=8 share="/path/to/client-0"\''
            )
        if share not in self._apps:
            if not Path(share).is_dir():
                raise RuntimeError(f"this node's share is {share!r}, and there is no such folder")
            self._apps[share] = unpack(Path(share))
        return self._apps[share](message, context)


app = DeployedApp()


def write_shares(dataset: Dataset, fleet: Fleet, folder: str | Path) -> list[dict[str, Any]]:
    """Write each client's share of the data, to be brought to the machine of its node.

    Returns
    -------
    list of dict
        For each client its name, the folder of its share, and the node config to start its node
        with once the folder is where ``share`` says.
    """
    packed = make_client_app(dataset, fleet)
    told = []
    for row, name in enumerate(fleet.names):
        share = Path(folder) / name
        share.mkdir(parents=True, exist_ok=True)
        packed.pack(row, share)
        config = f'partition-id={row} num-partitions={len(fleet)} share="{share.resolve()}"'
        told.append({"client": name, "folder": share, "node_config": config})
    return told
