"""Small federations for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from workbench.data.dataset import Dataset
from workbench.federation.client import make_client_app
from workbench.federation.dispatch import RoundLimits
from workbench.federation.local_grid import LocalGrid
from workbench.federation.nodes import discover
from workbench.federation.payload import flatten
from workbench.federation.records import Job
from workbench.federation.rounds import RoundDriver
from workbench.federation.timekeeping import VirtualTime
from workbench.fleet import Fleet
from workbench.pruning import codec
from workbench.pruning.cost import cost_of
from workbench.testbed.simulated import SimulatedTestbed


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute as clients do, so that bits can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(nn.Module):
    """A small network with batch norm and dropout."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.pool = nn.MaxPool2d(4)
        self.drop = nn.Dropout(0.2) if norm else nn.Identity()
        self.out = nn.Linear(4 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.drop(self.pool(torch.relu(self.norm(self.conv(x)))).flatten(1)))


def network(seed: int = 0, norm: bool = True) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(norm)


def job_of(model: nn.Module, candidate: int = 0) -> Job:
    shape = (1, 32, 32)
    return Job(candidate, codec.describe(model, shape), flatten(model), cost_of(model, shape).macs)


class Federation:
    """A driver over a local grid and a simulated network, with its parts at hand."""

    def __init__(
        self,
        dataset: Dataset,
        fleet: Fleet,
        limits: RoundLimits | None = None,
        testbed: SimulatedTestbed | None = None,
        wrap: Callable[[object], object] = lambda app: app,
    ) -> None:
        self.fleet = fleet
        self.network = (testbed or SimulatedTestbed()).up(fleet)
        app = wrap(make_client_app(dataset, fleet))
        self.grid = LocalGrid(app, len(fleet))  # type: ignore[arg-type]
        self.nodes = discover(self.grid, len(fleet))
        self.driver = RoundDriver(
            self.grid, VirtualTime(self.network), self.nodes, limits or RoundLimits()
        )


@pytest.fixture(scope="session")
def seven(digits: Dataset) -> Fleet:
    """Return 7 clients on the digits."""
    return Fleet.dirichlet(digits, clients=7, alpha=0.5, seed=1)
