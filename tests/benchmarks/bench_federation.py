"""Federated rounds beside the same training and tests in a bare loop, and beside Flower on Ray.

The bare loop trains and tests the same clients with the same functions, batches and seeds, one
after another, with one module, and moves no weights at all. Both are interleaved, so that a busy
machine slows both.
"""

from __future__ import annotations

import copy
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np
import psutil
import torch
from torch import nn

from workbench import models
from workbench.data.dataset import Dataset
from workbench.data.datasets import load_dataset
from workbench.federation import payload, training
from workbench.federation.client import Clients, make_client_app
from workbench.federation.dispatch import RoundLimits
from workbench.federation.local_grid import LocalGrid
from workbench.federation.nodes import discover
from workbench.federation.ray_engine import ray_grid
from workbench.federation.records import Group, Job
from workbench.federation.rounds import RoundDriver, RoundKey
from workbench.federation.strategies import FedAvg
from workbench.federation.timekeeping import VirtualTime
from workbench.fleet import Fleet
from workbench.pruning import codec
from workbench.pruning.cost import cost_of
from workbench.pruning.netadapt import NetAdapt
from workbench.search.policies import SearchPolicy
from workbench.search.search import Search
from workbench.testbed.simulated import SimulatedTestbed

CLIENTS = 56
SAMPLES = 50
REPEATS = 7
STRATEGY = FedAvg(learning_rate=0.01, batch_size=25)
SHAPE = (3, 32, 32)


def small_cnn() -> nn.Module:
    """Return a network of 86,000 parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2048, 39),
            nn.ReLU(),
            nn.Linear(39, 10),
        )


def federation() -> tuple[Dataset, Fleet]:
    """Return 56 clients with 50 training and 16 test samples each."""
    data = load_dataset("digits", channels=3)
    rows = np.random.default_rng(0).permutation(len(data.labels))
    train = tuple(np.resize(rows[25 * c :], SAMPLES) for c in range(CLIENTS))
    test = tuple(np.resize(rows[7 * c :], 16) for c in range(CLIENTS))
    counts = np.stack([np.bincount(data.labels[part], minlength=10) for part in train])
    base = Fleet.from_label_counts(counts, seed=0)
    fleet = Fleet(
        base.label_counts, base.tier, base.rate_bps, base.tiers, base.names,
        train_indices=train, test_indices=test,
    )  # fmt: skip
    return data, fleet


class Round:
    """One round of training and one of testing, over a grid."""

    def __init__(self, model: nn.Module, fleet: Fleet, grid: Any) -> None:
        self.job = Job(
            0, codec.describe(model, SHAPE), payload.flatten(model), cost_of(model, SHAPE).macs
        )
        self.grid = grid
        clock = VirtualTime(SimulatedTestbed().up(fleet))
        self.driver = RoundDriver(grid, clock, discover(grid, len(fleet)), RoundLimits())
        self.groups = [Group(0, np.arange(len(fleet)))]

    def __call__(self) -> None:
        key = RoundKey(1, 1, 1, 0)
        [outcome] = self.driver.train([self.job], self.groups, STRATEGY, key)
        assert not outcome.lost, outcome.lost
        self.driver.evaluate([self.job], self.groups)


class BareLoop:
    """The same training and tests without any federation."""

    def __init__(self, model: nn.Module, app: Clients) -> None:
        self.state = app.state
        self.module = copy.deepcopy(model)

    def __call__(self) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        local = training.LocalSettings(1, STRATEGY.batch_size, 0.01, 0.9, 1e-4, 0.0, 0)
        for client in range(CLIENTS):
            training.train(self.module, *self.state.data(client, test=False), local)
        for client in range(CLIENTS):
            training.test(self.module, *self.state.data(client, test=True))
        torch.set_num_threads(threads)


def interleaved(*runs: Callable[[], None], repeats: int = REPEATS) -> list[list[float]]:
    """Time several things in turn; the first turn warms up and does not count."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats + 1):
        for run, own in zip(runs, times, strict=True):
            begin = time.perf_counter()
            run()
            if turn:
                own.append(time.perf_counter() - begin)
    return times


def over(times: list[float], peer: list[float]) -> float:
    """Return the median of the ratios of neighbours in time."""
    return median(one / other for one, other in zip(times, peer, strict=True))


def rounds(name: str, model: nn.Module) -> list[dict[str, Any]]:
    """Return the rows of one model: one process, all cores, and Ray."""
    data, fleet = federation()
    app = make_client_app(data, fleet)
    bare = BareLoop(model, app)
    bare()
    begin = time.perf_counter()
    cores = LocalGrid(make_client_app(data, fleet), CLIENTS, workers=psutil.cpu_count() or 1)
    on_cores = Round(model, fleet, cores)
    on_cores()
    first_s = time.perf_counter() - begin
    alone = LocalGrid(make_client_app(data, fleet), CLIENTS)
    bare_s, alone_s, cores_s = interleaved(bare, Round(model, fleet, alone), on_cores)
    cores.close()
    peer = "the same training and tests in a bare loop, one thread"
    rows = [
        row(f"round, {CLIENTS} clients, {name}, one process", alone_s, peer, over(alone_s, bare_s),
            "<= 1.10x of the bare loop (aim 1.05x)"),
        row(f"round, {CLIENTS} clients, {name}, all cores", cores_s, peer, over(cores_s, bare_s),
            "<= 1.10x of the bare loop (aim 1.05x)"),
        start(f"start on all cores, {name}", first_s, cores_s, "<= 1 s"),
    ]  # fmt: skip
    if importlib.util.find_spec("ray") is not None:
        begin = time.perf_counter()
        with ray_grid(make_client_app(data, fleet), CLIENTS, None) as grid:
            on_ray = Round(model, fleet, grid)
            on_ray()
            first_s = time.perf_counter() - begin
            bare_s, ray_s = interleaved(bare, on_ray, repeats=3)
        rows += [
            row(f"round, {CLIENTS} clients, {name}, Flower on Ray", ray_s, peer,
                over(ray_s, bare_s), "for comparison"),
            start(f"start of Flower on Ray, {name}", first_s, ray_s, "for comparison"),
        ]  # fmt: skip
    return rows


def start(name: str, first_s: float, times: list[float], goal: str) -> dict[str, Any]:
    """Return the row of what the first round takes longer, from nothing, than the others."""
    seconds = first_s - median(times)
    return {
        "name": name, "median": seconds, "unit": "s", "peer": "one round",
        "ratio": seconds / median(times), "goal": goal,
    }  # fmt: skip


def row(name: str, times: list[float], peer: str, ratio: float, goal: str) -> dict[str, Any]:
    """Return one row of the table."""
    return {
        "name": name, "median": median(times), "unit": "s", "peer": peer, "ratio": ratio,
        "goal": goal,
    }  # fmt: skip


def memory() -> dict[str, Any]:
    """Return the memory of a round of 56 clients on the full AlexNet, in models of 227 MB."""
    data, fleet = federation()
    short = Fleet(
        fleet.label_counts, fleet.tier, fleet.rate_bps, fleet.tiers, fleet.names,
        train_indices=tuple(rows[:2] for rows in fleet.train_indices),
        test_indices=tuple(rows[:1] for rows in fleet.test_indices),
    )  # fmt: skip
    # What is loaded once, whatever the model, is no memory of a model.
    Round(small_cnn(), short, LocalGrid(make_client_app(data, short), CLIENTS))()
    model = models.alexnet()
    size = cost_of(model, SHAPE).size_bytes
    run = Round(model, short, LocalGrid(make_client_app(data, short), CLIENTS))
    del model
    before = psutil.Process().memory_info().rss
    with _Peak() as peak:
        run()
    models_used = (peak.rss - before) / size
    return {
        "name": "memory of a round, 56 clients, 56.8 M parameters", "median": models_used,
        "unit": "models", "peer": "one model, 227 MB", "ratio": models_used, "goal": "<= 4 models",
    }  # fmt: skip


class _Peak:
    """The largest resident size of this process while a block runs, sampled every 5 ms."""

    rss = 0

    def __enter__(self) -> Self:
        import threading

        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._over.wait(0.005):
            self.rss = max(self.rss, process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def iteration() -> list[dict[str, Any]]:
    """Return the time of a whole search iteration over its own training and tests alone."""
    data, fleet = federation()
    model = models.alexnet(width=0.125)
    spent = [0.0]

    def timed(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            begin = time.perf_counter()
            result = function(*arguments)
            spent[0] += time.perf_counter() - begin
            return result

        return call

    def run() -> tuple[float, float]:
        """Return the seconds of the iteration, and those of its training here."""
        search = Search(
            model, data, fleet,
            netadapt=NetAdapt(step=0.05, budget=0.3, iterations=1),
            training=FedAvg(rounds=3, batch_size=25),
            policy=SearchPolicy(pretrain_rounds=0),
        )  # fmt: skip
        marks: list[tuple[float, float]] = []

        def listen(event: Any) -> None:
            if event["event"] == "select":
                marks.append((time.perf_counter(), spent[0]))

        search.listeners.append(listen)
        with tempfile.TemporaryDirectory() as folder:
            search.run(Path(folder) / "run", progress=False)
        [begin, end] = marks
        return end[0] - begin[0], end[1] - begin[1]

    alone_s, inside_s, cores_s = [], [], []
    train, test = training.train, training.test
    training.train, training.test = timed(train), timed(test)
    try:
        for _ in range(3):
            with _one_process():
                whole, inside = run()
            alone_s.append(whole)
            inside_s.append(inside)
            cores_s.append(run()[0])
    finally:
        training.train, training.test = train, test
    peer = "its own training and tests, one thread"
    name = "one search iteration, 56 clients, AlexNet at width 0.125"
    return [
        row(f"{name}, one process", alone_s, peer, over(alone_s, inside_s),
            "<= 1.15x (aim 1.10x)"),
        row(f"{name}, all cores", cores_s, peer, over(cores_s, inside_s), "<= 1.15x (aim 1.10x)"),
    ]  # fmt: skip


class _one_process:  # noqa: N801  # reads as a block
    """Let searches compute in this process, so that what they do can be timed from here."""

    def __enter__(self) -> None:
        from workbench.federation import engines

        self._before = engines._MOST_WORKERS
        engines._MOST_WORKERS = 1

    def __exit__(self, *_: object) -> None:
        from workbench.federation import engines

        engines._MOST_WORKERS = self._before


def benchmarks() -> list[dict[str, Any]]:
    """Return all rows."""
    return [
        *rounds("86k-parameter CNN", small_cnn()),
        *rounds("AlexNet at width 0.125", models.alexnet(width=0.125)),
        *iteration(),
        memory(),
    ]
