"""A search on live testbeds goes on whatever happens to clients, links and processes."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

from workbench.federation.dispatch import RoundLimits
from workbench.federation.live_grid import SuperLinkLostError
from workbench.federation.strategies import FedAvg
from workbench.federation.superlink import LiveEngine
from workbench.pruning.netadapt import NetAdapt
from workbench.search.policies import SearchPolicy
from workbench.search.run import Run
from workbench.testbed.core import CoreTestbed

from .small import fleet

CLIENTS = 4
SLOW = 2
"""The client that has an accident; its link needs seconds for a message."""


@pytest.fixture
def live_search(search, live_testbed, monkeypatch):
    """Return a function that makes a search on a live testbed, and what it runs on."""
    opened: list[LiveEngine] = []
    enter = LiveEngine.__enter__

    def seen(engine):
        opened.append(enter(engine))
        return opened[-1]

    monkeypatch.setattr(LiveEngine, "__enter__", seen)
    rates = np.full(CLIENTS, 50e6)
    rates[SLOW] = 0.2e6

    def make(**settings):
        defaults = {
            "fleet": fleet(CLIENTS).with_rates(rates),
            "testbed": live_testbed(),
            "training": FedAvg(rounds=1, local_epochs=1, batch_size=6),
            "limits": RoundLimits(deadline_s=40),
            "netadapt": NetAdapt(
                step=0.1, budget=0.4, iterations=1, conv_multiple=1, linear_multiple=1
            ),
            "policy": SearchPolicy(pretrain_rounds=1),
        }
        return search(**(defaults | settings)), opened

    return make


class InBackground:
    """A search that runs in a thread, so that something can happen to it."""

    def __init__(self, search, folder, opened):
        self.error = None
        self._opened = opened
        self._thread = threading.Thread(target=self._run, args=[search, folder], daemon=True)
        self._thread.start()

    def _run(self, search, folder):
        try:
            search.run(folder, progress=False)
        except Exception as error:  # noqa: BLE001  # looked at by the test
            self.error = error

    def engine(self, timeout_s=30):
        end = time.monotonic() + timeout_s
        while not self._opened:
            assert time.monotonic() < end, self.error
            time.sleep(0.01)
        return self._opened[-1]

    def wait_for_bytes(self, way, size, timeout_s=60):
        """Wait until the slow client's link has carried so much."""
        network = self.engine()._network
        end = time.monotonic() + timeout_s
        while network.carried_bytes(way)[SLOW] < size:
            assert time.monotonic() < end, self.error
            time.sleep(0.02)

    def wait_for_rounds(self, folder, count, timeout_s=60):
        """Wait until so many rounds are over."""
        end = time.monotonic() + timeout_s
        while len(Run(folder).rounds()) < count:
            assert time.monotonic() < end, self.error
            assert self._thread.is_alive(), self.error
            time.sleep(0.05)

    def wait_for_a_round_with(self, folder, replies, timeout_s=60):
        """Wait until so many clients have taken part in a round."""
        end = time.monotonic() + timeout_s
        while not (Run(folder).rounds()["replies"] == replies).any():
            assert time.monotonic() < end, self.error
            assert self._thread.is_alive(), self.error
            time.sleep(0.05)

    def join(self, timeout_s):
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the search did not end in time"
        return self.error


def resumed(search, folder, opened) -> Run:
    """Go on with a run on a new testbed, where no link is slow: that was for the accident."""
    opened.clear()
    running = InBackground(search, folder, opened)
    running.engine()._network.set_rate(SLOW, 50e6)
    assert running.join(90) is None
    return Run(folder)


def size_of(search) -> int:
    return search.initial_cost.size_bytes


def failures_of(run: Run) -> dict[str, set[str]]:
    """Return why the slow client failed, by status; nobody else may have."""
    table = run.failures()
    assert set(table["client"]) <= {SLOW}
    return {status: set(part["reason"]) for status, part in table.groupby("status")}


# ---------------------------------------------------------------------- clients


def test_a_client_killed_in_its_upload_is_left_out(live_search, tmp_path):
    search, opened = live_search()
    running = InBackground(search, tmp_path, opened)
    running.wait_for_bytes("up", size_of(search) // 2)
    os.kill(int(running.engine().processes[SLOW]), signal.SIGKILL)
    assert running.join(90) is None
    run = Run(tmp_path)
    assert run.finished
    (reason,) = failures_of(run)["failed"]
    assert reason == f"the process of client-{SLOW} ended with status -9"
    # It was there when it was asked who it is, and then never again.
    assert (run.rounds()["replies"] == CLIENTS - 1).all()


def test_a_client_killed_in_training_is_left_out(live_search, tmp_path):
    training = FedAvg(rounds=1, local_epochs=150, batch_size=6)
    rates = np.full(CLIENTS, 50e6)
    search, opened = live_search(
        training=training, fleet=fleet(CLIENTS).with_rates(rates), limits=RoundLimits(deadline_s=60)
    )
    running = InBackground(search, tmp_path, opened)
    running.wait_for_bytes("down", size_of(search))
    time.sleep(0.3)
    engine = running.engine()
    assert engine._network.carried_bytes("up")[SLOW] < size_of(search)
    os.kill(int(engine.processes[SLOW]), signal.SIGKILL)
    search.stop()  # the first round is enough
    assert running.join(120) is None
    run = Run(tmp_path)
    assert failures_of(run) == {"failed": {f"the process of client-{SLOW} ended with status -9"}}
    assert run.rounds()["replies"].tolist() == [CLIENTS - 1]


def test_clients_leave_and_come_back_while_rounds_run(live_search, tmp_path):
    search, opened = live_search(
        training=FedAvg(rounds=1, local_epochs=1, batch_size=6),
        policy=SearchPolicy(pretrain_rounds=500),
    )
    told = []
    running = InBackground(search, tmp_path, opened)
    running.wait_for_bytes("up", size_of(search) // 2)
    network = running.engine()._network
    network.on_change(lambda change: told.append((change.what, change.client)))
    network.remove(SLOW)
    running.wait_for_rounds(tmp_path, 1)
    network.set_rate(SLOW, 50e6)
    network.add(SLOW)
    running.wait_for_a_round_with(tmp_path, CLIENTS)
    search.stop()
    assert running.join(60) is None
    run = Run(tmp_path)
    replies = run.rounds()["replies"].tolist()
    assert replies[0] == CLIENTS - 1
    assert replies[-1] == CLIENTS
    assert told == [
        ("remove", f"client-{SLOW}"),
        ("rate", f"client-{SLOW}"),
        ("add", f"client-{SLOW}"),
    ]
    assert [each["what"] for each in run.of("link")] == ["remove", "rate", "add"]
    (reason,) = failures_of(run)["failed"]
    assert "ended" in reason


# ---------------------------------------------------------------------- links


def test_a_link_cut_for_20_s_costs_only_time(live_search, tmp_path):
    search, opened = live_search(limits=RoundLimits(deadline_s=80))
    running = InBackground(search, tmp_path, opened)
    running.wait_for_bytes("up", size_of(search) // 2)
    network = running.engine()._network
    network.cut(SLOW)
    time.sleep(20)
    assert Run(tmp_path).rounds().empty
    network.heal(SLOW)
    network.set_rate(SLOW, 20e6)
    search.stop()
    assert running.join(60) is None
    rounds = Run(tmp_path).rounds()
    assert rounds["replies"].tolist() == [CLIENTS]
    assert rounds["duration_s"].iloc[0] > 20
    assert failures_of(Run(tmp_path)) == {}


def test_a_link_cut_for_good_costs_the_deadline(live_search, tmp_path):
    search, opened = live_search(limits=RoundLimits(deadline_s=10))
    running = InBackground(search, tmp_path, opened)
    running.wait_for_bytes("down", size_of(search) // 2)
    network = running.engine()._network
    network.cut(SLOW)
    running.wait_for_rounds(tmp_path, 2)  # the second one is of the first iteration
    search.stop()
    network.heal(SLOW)  # two rounds are enough; what remains need not wait as well
    network.set_rate(SLOW, 50e6)
    assert running.join(100) is None
    run = Run(tmp_path)
    assert set(failures_of(run)) == {"late"}
    rounds = run.rounds()
    assert len(rounds) >= 2
    assert (rounds["replies"] == CLIENTS - 1).all()
    assert (rounds["duration_s"] >= 9.9).all()


# ---------------------------------------------------------------------- processes


def test_a_killed_superlink_is_a_clear_error_and_the_run_resumes(live_search, tmp_path):
    search, opened = live_search()
    running = InBackground(search, tmp_path, opened)
    running.wait_for_bytes("down", size_of(search) // 2)
    os.kill(running.engine().superlink.process, signal.SIGKILL)
    error = running.join(60)
    assert isinstance(error, SuperLinkLostError)
    assert "its process has ended" in str(error)
    again, _ = live_search(fleet=search.fleet)
    assert resumed(again, tmp_path, opened).finished


def test_a_killed_notebook_leaves_a_run_that_resumes_on_a_new_testbed(live_search, tmp_path):
    search, opened = live_search()
    if isinstance(search.testbed, CoreTestbed):
        pytest.skip("gRPC, which speaks to a core-daemon, does not survive a fork")
    process = os.fork()
    if process == 0:
        try:
            search.listeners.append(lambda event: event["event"] == "round" and kill_soon())
            search.run(tmp_path, progress=False)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert len(Run(tmp_path).rounds()) >= 1
    assert not Run(tmp_path).finished
    run = resumed(search, tmp_path, opened)
    assert run.finished
    rounds = run.rounds()
    assert not rounds.duplicated(["iteration", "round"]).any()
    assert (rounds["replies"] == CLIENTS).all()


def kill_soon():
    """Kill this process in the middle of the next round."""
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGKILL])
    timer.start()
