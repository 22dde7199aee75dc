"""Where messages are carried out: in this process, or over a live network's SuperLink."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workbench.federation.local_grid import LocalGrid
from workbench.federation.ray_engine import ray_grid
from workbench.federation.timekeeping import Timekeeper, VirtualTime, WallTime
from workbench.testbed.joined import JoinedNetwork
from workbench.testbed.namespaces import NamespaceNetwork
from workbench.testbed.simulated import SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid

    from workbench.federation.superlink import LiveEngine
    from workbench.testbed.base import Network


EngineName = Literal["auto", "ray"]

_MOST_WORKERS = 8
"""Beyond this, memory and the parent's fusing of weights set the pace."""


@dataclass(frozen=True)
class Engine:
    """A Grid whose nodes run the ClientApp, and the time on the network between."""

    grid: Grid
    time: Timekeeper
    limits: Callable[[], list[str]] = list
    """Returns in words where the machine, not the network, set the pace since it was asked last."""


@contextmanager
def open_engine(
    network: Network,
    client_app: ClientApp,
    device: str = "cpu",
    *,
    engine: EngineName = "auto",
    address: str | None = None,
) -> Iterator[Engine]:
    """Start the engine that belongs to a network, and take it down at the end.

    Parameters
    ----------
    network
        A network that is up.
    client_app
        What every client runs.
    device
        ``cpu`` or ``cuda``: where the clients of an in-process engine compute.
    engine, address
        ``ray`` computes with Flower's simulation engine, on the Ray cluster at ``address``; it
        needs a simulated network.

    Raises
    ------
    ValueError
        If the engine does not go with the network.
    """
    clients = len(network.fleet)
    if engine == "ray":
        if not isinstance(network, SimulatedNetwork):
            raise ValueError("engine is 'ray', which goes with a SimulatedTestbed only")
        with ray_grid(client_app, clients, address) as distributed:
            yield Engine(distributed, VirtualTime(network))
        return
    if isinstance(network, SimulatedNetwork):
        grid = LocalGrid(client_app, clients, workers=_workers(device))
        try:
            yield Engine(grid, VirtualTime(network))
        finally:
            grid.close()
        return
    if isinstance(network, NamespaceNetwork):
        with live_engine(network, client_app) as live:
            yield Engine(live.grid, WallTime(network), live.limits)
        return
    if isinstance(network, JoinedNetwork):
        from workbench.federation.joined import JoinedEngine  # noqa: PLC0415  # imports Flower's API

        with JoinedEngine(network) as joined:
            yield Engine(joined.grid, WallTime(network))
        return
    raise TypeError(f"no engine for a {type(network).__name__}")


def live_engine(
    network: NamespaceNetwork,
    client_app: ClientApp,
    node_configs: Sequence[dict[str, Any]] | None = None,
) -> LiveEngine:
    """Return the engine for a live network whose SuperLink is its own; see `LiveEngine`."""
    # Half a second of imports, which most searches and all clients can do without.
    from workbench.federation.container_engine import ContainerEngine  # noqa: PLC0415
    from workbench.federation.superlink import LiveEngine  # noqa: PLC0415

    if network.inside.in_containers:
        return ContainerEngine(network, client_app, node_configs)
    return LiveEngine(network, client_app, node_configs)


def _workers(device: str) -> int:
    """Return how many processes train small models: one a core; a GPU is used from this one."""
    if device != "cpu" or not hasattr(os, "fork"):
        return 1
    return min(_MOST_WORKERS, os.cpu_count() or 1)
