"""Where messages are carried out: in this process, or over a live network's SuperLink."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Engine:
    """A Grid whose nodes run the ClientApp, and the time on the network between."""

    grid: Grid
    time: Timekeeper


@contextmanager
def open_engine(network: Network, client_app: ClientApp) -> Iterator[Engine]:
    """Start the engine that belongs to a network, and take it down at the end."""
    clients = len(network.fleet)
    if isinstance(network, SimulatedNetwork):
        yield Engine(LocalGrid(client_app, clients), VirtualTime(network))
        return
    raise TypeError(f"no engine for a {type(network).__name__}")
