"""Worker processes: the same replies as without them, in order, and nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import psutil
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict

from tests.federation.conftest import Federation, job_of, network
from workbench.data.dataset import Dataset
from workbench.federation import payload
from workbench.federation.client import make_client_app
from workbench.federation.dispatch import RoundLimits
from workbench.federation.local_grid import LocalGrid
from workbench.federation.nodes import discover
from workbench.federation.records import Group
from workbench.federation.rounds import RoundDriver, RoundKey
from workbench.federation.strategies import FedAvg
from workbench.federation.timekeeping import VirtualTime
from workbench.federation.workers import WorkerDiedError
from workbench.fleet import Fleet
from workbench.testbed.simulated import SimulatedTestbed

KEY = RoundKey(iteration=1, round=1, rounds=1, seed=1)


def groups(clients: int, number: int) -> list[Group]:
    return [Group(g, np.arange(g, clients, number)) for g in range(number)]


def driver_with(workers: int, dataset: Dataset, fleet: Fleet) -> tuple[RoundDriver, LocalGrid]:
    grid = LocalGrid(make_client_app(dataset, fleet), len(fleet), workers)
    time_ = VirtualTime(SimulatedTestbed().up(fleet))
    return RoundDriver(grid, time_, discover(grid, len(fleet)), RoundLimits()), grid


OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Remember the children that other tests have left running, such as a browser's driver."""
    OTHERS.clear()
    OTHERS.update(child.pid for child in psutil.Process().children())


def children() -> list[psutil.Process]:
    """Return this test's child processes."""
    return [child for child in psutil.Process().children() if child.pid not in OTHERS]


def test_the_same_bits_with_any_number_of_workers(digits: Dataset, seven: Fleet) -> None:
    jobs = [job_of(network(seed), seed) for seed in range(3)]
    results = []
    for workers in (1, 2, 3):
        driver, grid = driver_with(workers, digits, seven)
        assert (len(children()) > 0) is False
        held = driver.train(jobs, groups(7, 3), FedAvg(), KEY, test=True, hold=True)
        assert len(children()) == (workers if workers > 1 else 0)
        uploaded = driver.upload(held, KEY)
        tested = driver.evaluate(jobs, groups(7, 2))
        grid.close()
        assert children() == []
        results.append(
            (
                [outcome.weights["float32"].tobytes() for outcome in uploaded if outcome.weights],
                [outcome.accuracy for outcome in (*held, *tested)],
            )
        )
        assert len(results[-1][0]) == 3
    assert results[0] == results[1] == results[2]


def test_larger_models_get_new_workers(digits: Dataset, seven: Fleet) -> None:
    driver, grid = driver_with(2, digits, seven)
    driver.train([job_of(network())], groups(7, 1), FedAvg(), KEY)
    first = {child.pid for child in children()}
    jobs = [job_of(network(seed), seed) for seed in range(5)]
    outcomes = driver.train(jobs, groups(7, 5), FedAvg(), KEY)
    assert not any(outcome.lost for outcome in outcomes)
    assert first.isdisjoint(child.pid for child in children())
    grid.close()


def federation_with(act: Any, digits: Dataset, fleet: Fleet) -> Federation:
    def wrap(app: Any) -> Any:
        def call(message: Message, context: Context) -> Message:
            if message.metadata.message_type == "train":
                act(int(context.node_config["partition-id"]))
            return app(message, context)

        return call

    federation = Federation(digits, fleet, wrap=wrap)
    federation.grid._most_workers = 2
    return federation


def test_an_error_in_a_worker_is_the_clients(digits: Dataset, seven: Fleet) -> None:
    def act(client: int) -> None:
        if client == 4:
            raise ValueError("bad lens")

    federation = federation_with(act, digits, seven)
    [outcome] = federation.driver.train([job_of(network())], groups(7, 1), FedAvg(), KEY)
    assert outcome.replied == [0, 1, 2, 3, 5, 6]
    assert outcome.clients[4].reason == "ValueError: bad lens"
    federation.grid.close()


def test_a_worker_that_dies_is_named(digits: Dataset, seven: Fleet) -> None:
    def act(client: int) -> None:
        if client == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    federation = federation_with(act, digits, seven)
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        federation.driver.train([job_of(network())], groups(7, 1), FedAvg(), KEY)
    federation.grid.close()
    assert children() == []


def test_a_reply_that_is_too_large_is_an_error() -> None:
    def app(message: Message, _context: Context) -> Message:
        big = payload.to_record({"float32": np.zeros(1_000_000, dtype=np.float32)})
        return Message(RecordDict({"weights": big}), reply_to=message)

    grid = LocalGrid(app, 2, workers=2)  # type: ignore[arg-type]
    small = payload.to_record({"float32": np.zeros(10, dtype=np.float32)})
    content = RecordDict({"weights": small})
    replies = grid.send_and_receive([Message(content, node, "train") for node in (1, 2)])
    assert all("room for" in (reply.error.reason or "") for reply in replies)
    grid.close()


def test_workers_end_with_their_parent() -> None:
    """A process that is killed leaves no worker behind."""

    def app(message: Message, _context: Context) -> Message:
        metrics = MetricRecord({"pid": os.getpid()})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        grid = LocalGrid(app, 2, workers=2)  # type: ignore[arg-type]
        small = payload.to_record({"float32": np.zeros(10, dtype=np.float32)})
        content = RecordDict({"weights": small})
        replies = grid.send_and_receive([Message(content, node, "train") for node in (1, 2)])
        pids = {int(reply.content["metrics"]["pid"]) for reply in replies}
        os.write(writing, " ".join(map(str, pids)).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    os.waitpid(parent, 0)
    pids = [int(word) for word in os.read(reading, 100).split()]
    os.close(reading)
    assert pids
    assert os.getpid() not in pids
    end = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    )
