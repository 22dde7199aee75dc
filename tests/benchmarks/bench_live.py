"""The live testbed: start-up, link rates, rounds beside their prediction, memory, many clients.

It needs a machine that does nothing else, Linux namespaces, and about three minutes.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import torch

import workbench as wb
from workbench.federation.client import make_client_app
from workbench.federation.dispatch import RoundLimits
from workbench.federation.engines import Engine, open_engine
from workbench.federation.nodes import discover
from workbench.federation.payload import flatten
from workbench.federation.records import Group, Job
from workbench.federation.rounds import RoundDriver, RoundKey
from workbench.fleet import Fleet
from workbench.pruning import codec
from workbench.search.calibration import round_table
from workbench.testbed import probe
from workbench.testbed.base import Direction, Segment
from workbench.testbed.namespaces import NamespaceNetwork
from workbench.testbed.traffic import busy

Row = dict[str, Any]
STILL = wb.NamespaceTestbed(schedule=wb.ConstantSchedule())
RATES_BPS = [2.5e6, 5e6, 10e6, 20e6, 50e6, 100e6]
FAST_BPS = [200e6, 400e6]
MANY = 210
SEED = 7


def row(name: str, value: float, unit: str, peer: str, ratio: float, goal: str) -> Row:
    """Return one row of the table."""
    return {
        "name": name, "median": value, "unit": unit, "peer": peer, "ratio": ratio, "goal": goal
    }  # fmt: skip


def against(name: str, value: float, limit: float, unit: str) -> Row:
    """Return a row for what is to stay below a limit."""
    peer = f"the goal, {limit:g} {unit}"
    return row(name, value, unit, peer, value / limit, f"<= {limit:g} {unit}, ratio <= 1")


# ---------------------------------------------------------------------- links


def bare_fleet(rates_bps: list[float]) -> Fleet:
    """Return clients without samples."""
    return Fleet.from_label_counts(np.ones((len(rates_bps), 4), dtype=int), rate_bps=rates_bps)


def carried_share(network: NamespaceNetwork, clients: list[int], way: Direction) -> Any:
    """Keep links full; return what share of the requested rate each one carries."""
    with busy(network, clients, way):
        time.sleep(1.0)
        then, before = network.carried()
        time.sleep(2.0)
        now, after = network.carried()
    carried = (after - before)[0 if way == "down" else 1] * 8 / (now - then)
    return (carried / network.rates_bps(way))[clients]


def link_rates() -> list[Row]:
    """Return how far the links are from their rates, in the worse direction."""
    rates = RATES_BPS + FAST_BPS
    slow, ways = list(range(len(RATES_BPS))), ("down", "up")
    with STILL.up(bare_fleet(rates)) as network:
        together = [carried_share(network, slow, way) for way in ways]
        alone = [
            [float(carried_share(network, [client], way)[0]) for way in ways]
            for client in range(len(RATES_BPS), len(rates))
        ]
    error = float(np.abs(np.array(together) - 1).max())
    rows = [
        row(f"carried by links of {RATES_BPS[0] / 1e6:g} to {RATES_BPS[-1] / 1e6:g} Mbit/s, "
            "largest error", 100 * error, "%", "the requested rate", 1 + error, "<= 2%"),
    ]  # fmt: skip
    for rate, shares in zip(FAST_BPS, alone, strict=True):
        worse = max(shares, key=lambda share: abs(share - 1))
        rows.append(
            row(f"carried by a link of {rate / 1e6:g} Mbit/s, error", 100 * abs(worse - 1), "%",
                "the requested rate", worse, "<= 2% where the machine can")
        )  # fmt: skip
    return rows


# ---------------------------------------------------------------------- federations


@contextmanager
def federation(data: wb.Dataset, fleet: Fleet) -> Iterator[Engine]:
    """Give an engine over a network of its own, with every client's node."""
    app = make_client_app(data, fleet)
    with STILL.up(fleet) as network, open_engine(network, app) as engine:
        yield engine


def start(data: wb.Dataset, fleet: Fleet, goal_s: float) -> Row:
    """Return how long it takes until every client's node has joined."""
    begin = time.perf_counter()
    with federation(data, fleet):
        took_s = time.perf_counter() - begin
    return against(f"start of {len(fleet)} clients", took_s, goal_s, "s")


class Memory:
    """What this process and all that it starts take while a block runs, in GB, at the highest.

    It is what this process had before, and what the machine has less; so the machine must do
    nothing else.
    """

    peak_gb = 0.0

    def __enter__(self) -> Self:
        self._own = psutil.Process().memory_info().rss
        self._free = psutil.virtual_memory().available
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            used = self._own + self._free - psutil.virtual_memory().available
            self.peak_gb = max(self.peak_gb, used / 1e9)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def search_round(data: wb.Dataset, fleet: Fleet) -> list[Row]:
    """Run one iteration with one round; return its time over prediction and bound, and memory."""
    torch.manual_seed(SEED)
    model = wb.models.alexnet(
        num_classes=data.num_classes, width=0.125, in_channels=data.input_shape[0], seed=SEED
    )
    search = wb.Search(
        model, data, fleet,
        netadapt=wb.NetAdapt(step=0.05, budget=0.25, iterations=1),
        grouping=wb.NetDAG(coeff=0.9, max_slowdown=1.1),
        training=wb.FedAvg(rounds=1),
        policy=wb.SearchPolicy(pretrain_rounds=0),
        limits=RoundLimits(deadline_s=120.0),
        testbed=STILL,
        seed=SEED,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        with Memory() as memory:
            run = search.run(Path(folder) / "run", progress=False)
        truth = round_table(run)
        failed = len(run.failures())
    assert not failed, f"{failed} messages failed"
    last = truth.iloc[-1]
    if last["limits"]:
        print(f"{len(fleet)} clients: {last['limits']}")  # noqa: T201
    rows = [
        row(f"round of a search, {len(fleet)} clients, over {what}", last["measured_s"], "s",
            f"{words}, {last[f'{what}_s']:.2f} s", 1 + last[f"over_{what}"], goal)
        for what, words, goal in (
            ("predicted", "SimulatedTestbed for the same bytes", "<= 1.15x (aim 1.10x)"),
            ("bound", "link rates and training alone", "<= 1.15x"),
        )
    ]  # fmt: skip
    return [*rows, against(f"memory of {len(fleet)} clients", memory.peak_gb, 4.0, "GB")]


@dataclass(frozen=True)
class Scaled:
    """A schedule by which every link has so many times the fleet's own rate."""

    factor: float

    def segment(self, fleet: Fleet, time_s: float) -> Segment:
        """Return the rates, for ever."""
        del time_s
        rates = fleet.rate_bps * self.factor
        return Segment(rates, rates, np.inf)


def rate_changes() -> Row:
    """Return how long it takes to give all of 210 links other rates, in both directions."""
    changes = []
    with STILL.up(Fleet.from_label_counts(np.ones((MANY, 4), dtype=int), seed=SEED)) as network:
        for number in range(1, 8):
            begin = time.perf_counter()
            network.follow(Scaled(1 + number / 100))
            changes.append(time.perf_counter() - begin)
    return against(
        f"change of all {MANY} rates in both directions", float(np.median(changes)), 0.5, "s"
    )


def many() -> list[Row]:
    """Return how 210 clients start and train a small model."""
    data = wb.load_dataset("digits")
    fleet = Fleet.dirichlet(data, clients=MANY, alpha=5.0, seed=SEED)
    torch.manual_seed(SEED)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(int(np.prod(data.input_shape)), 10)
    )
    job = Job(0, codec.describe(model, data.input_shape), flatten(model), 10_000)
    begin = time.perf_counter()
    with Memory() as memory, federation(data, fleet) as engine:
        start_s = time.perf_counter() - begin
        nodes = discover(engine.grid, MANY)
        driver = RoundDriver(engine.grid, engine.time, nodes, RoundLimits(deadline_s=100))
        [outcome] = driver.train(
            [job], [Group(0, np.arange(MANY))], wb.FedAvg(rounds=1), RoundKey(1, 1, 1, SEED)
        )
        assert len(outcome.replied) == np.count_nonzero(nodes.train_samples), outcome.lost
        round_s = outcome.end_s - outcome.start_s
    size = f"{sum(each.nbytes for each in flatten(model).values()) / 1e3:.0f} kB"
    return [
        row(f"start of {MANY} clients", start_s, "s", "none", 1.0, "they all join"),
        row(f"round of {MANY} clients, model of {size}", round_s, "s", "none", 1.0, "all reply"),
        row(f"memory of {MANY} clients", memory.peak_gb, "GB", "none", 1.0, "told"),
    ]  # fmt: skip


def benchmarks() -> list[Row]:
    """Return all rows; none, with the reason, where a live testbed can't be put up."""
    if reason := probe.why_no_namespaces():
        print(f"bench_live is skipped: {reason}")  # noqa: T201
        return []
    data = wb.load_dataset("digits")
    rows = link_rates()
    for clients, goal_s in ((8, 5.0), (56, 15.0)):
        fleet = Fleet.dirichlet(data, clients=clients, alpha=1.0, tiers=wb.PAPER_TIERS, seed=SEED)
        rows += [start(data, fleet, goal_s), *search_round(data, fleet)]
    return [*rows, rate_changes(), *many()]
