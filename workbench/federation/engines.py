"""Where messages are carried out: in this process, or over a live network's SuperLink."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.federation.local_grid import LocalGrid
from workbench.federation.timekeeping import Timekeeper, VirtualTime
from workbench.testbed.simulated import SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid

    from workbench.testbed.base import Network


_MOST_WORKERS = 8
"""Beyond this, memory and the parent's fusing of weights set the pace."""


@dataclass(frozen=True)
class Engine:
    """A Grid whose nodes run the ClientApp, and the time on the network between."""

    grid: Grid
    time: Timekeeper


@contextmanager
def open_engine(network: Network, client_app: ClientApp, device: str = "cpu") -> Iterator[Engine]:
    """Start the engine that belongs to a network, and take it down at the end."""
    clients = len(network.fleet)
    if isinstance(network, SimulatedNetwork):
        grid = LocalGrid(client_app, clients, workers=_workers(device))
        try:
            yield Engine(grid, VirtualTime(network))
        finally:
            grid.close()
        return
    raise TypeError(f"no engine for a {type(network).__name__}")


def _workers(device: str) -> int:
    """Return how many processes train small models: one a core; a GPU is used from this one."""
    if device != "cpu" or not hasattr(os, "fork"):
        return 1
    return min(_MOST_WORKERS, os.cpu_count() or 1)
