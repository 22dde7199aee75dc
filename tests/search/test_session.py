"""A search in the background: watched, paused, changed while it runs, and resumed all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.search import small
from workbench.grouping.baselines import NetworkAwareGrouping, RandomGrouping
from workbench.search.folder import RunFolder, RunFolderError
from workbench.search.run import Run
from workbench.search.search import Search
from workbench.testbed.schedules import ConstantSchedule, TierSchedule
from workbench.testbed.simulated import SimulatedTestbed

PATIENCE_S = 120


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Killed(BaseException):
    """What stands for the end of the process."""


def without_clock(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k != "wall_s"} for event in run.events]


def at(search: Search, name: str, iteration: int, act: Callable[[Search], None]) -> None:
    """Do something once, at the first event of a kind in an iteration."""
    done: list[bool] = []

    def listen(event: Mapping[str, Any]) -> None:
        first = event.get("round", 1) == 1
        if not done and first and (event["event"], event["iteration"]) == (name, iteration):
            done.append(True)
            act(search)

    search.listeners.append(listen)


def test_a_search_in_the_background_finds_the_same(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    here = search().run(tmp_path / "here", progress=False)
    other = search()
    heard: list[str] = []
    other.session.watch(lambda what: heard.append(f"{what} {other.session.status}"))
    other.start(tmp_path / "there")
    run = other.wait(PATIENCE_S)
    assert without_clock(run) == without_clock(here)
    assert other.session.status == "finished"
    assert other.session.rounds_done == other.session.rounds_total
    assert heard[0] == "status starting"
    assert "network running" in heard
    assert heard[-1] == "status finished"
    assert other.network is None


def test_pause_resume_and_stop_from_another_thread(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    searching = search()
    waiting, stopped = threading.Event(), threading.Event()

    def watch(what: str) -> None:
        del what
        if searching.session.status == "paused":
            waiting.set()

    searching.session.watch(watch)
    at(searching, "round", 0, lambda each: each.pause())
    searching.start(tmp_path)
    assert waiting.wait(PATIENCE_S)
    events = len(Run(tmp_path).events)
    with pytest.raises(RuntimeError, match="running already"):
        searching.start(tmp_path)
    with pytest.raises(TimeoutError, match="still runs"):
        searching.wait(0.01)
    assert len(Run(tmp_path).events) == events
    at(searching, "round", 1, lambda each: (each.stop(), stopped.set()))  # type: ignore[func-returns-value]
    searching.resume()
    assert stopped.wait(PATIENCE_S)
    run = searching.wait(PATIENCE_S)
    assert searching.session.status == "stopped"
    assert not run.finished
    searching.start(tmp_path)
    assert searching.wait(PATIENCE_S).finished


def test_what_goes_wrong_is_told(search: Callable[..., Search], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("not a run")
    searching = search()
    searching.start(tmp_path)
    with pytest.raises(RunFolderError, match="holds"):
        searching.wait(PATIENCE_S)
    assert searching.session.status == "failed"
    assert isinstance(searching.session.error, RunFolderError)
    with pytest.raises(RuntimeError, match="not started"):
        search().wait()


def test_settings_may_be_assigned_before_and_are_checked(search: Callable[..., Search]) -> None:
    searching = search()
    told: list[str] = []
    end = searching.session.watch(told.append)
    before = searching.config
    searching.grouping = RandomGrouping(seed=3)
    assert searching.config != before
    assert told == ["grouping"]
    end()
    with pytest.raises(ValueError, match="groups is 9, but there are 6 clients"):
        searching.groups = 9
    assert searching.groups is None, "what does not fit is not kept"
    with pytest.raises(ValueError, match="grouping is 'random'"):
        searching.grouping = "random"  # type: ignore[assignment]
    assert told == ["grouping"]


def test_a_change_comes_into_force_at_the_next_iteration(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    searching = search()

    def change(each: Search) -> None:
        each.grouping = NetworkAwareGrouping()

    at(searching, "group", 1, change)
    run = searching.run(tmp_path, progress=False)
    first, second = (event["grouping"]["strategy"] for event in run.of("group"))
    assert (first, second) == ("NetDAG", "NetworkAwareGrouping")
    (changed,) = run.of("change")
    assert (changed["setting"], changed["iteration"]) == ("grouping", 1)
    assert changed["value"] == {"type": "NetworkAwareGrouping"}


def test_a_schedule_is_followed_from_the_next_round_on(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    """Where rounds last minutes and links are drawn every minute, rates are soon others."""
    slow = SimulatedTestbed(schedule=ConstantSchedule(), device_macs_per_s=2e4)
    searching = search(testbed=slow)
    quick = replace(slow, schedule=TierSchedule(period_s=60, seed=5))

    def change(each: Search) -> None:
        each.testbed = quick

    at(searching, "round", 1, change)
    run = searching.run(tmp_path, progress=False)
    first, second = (np.array(event["rate_bps"]) for event in run.of("group"))
    assert np.array_equal(first, run.fleet.rate_bps)
    assert not np.array_equal(second, first)


def test_while_it_runs_only_some_settings_change(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    searching = search()
    refused: list[str] = []

    def change(each: Search) -> None:
        for name, value in (
            ("fleet", each.fleet),
            ("seed", 5),
            ("testbed", SimulatedTestbed(latency_s=1.0)),
        ):
            try:
                setattr(each, name, value)
            except ValueError as error:
                refused.append(str(error))

    at(searching, "round", 0, change)
    searching.run(tmp_path, progress=False)
    assert [text.split(" ")[0] for text in refused] == ["fleet", "seed", "of"]
    assert all("stop it first" in text for text in refused)
    searching.seed = 5
    assert searching.seed == 5


def test_clients_leave_and_are_cut_off(search: Callable[..., Search], tmp_path: Path) -> None:
    searching = search()

    def change(each: Search) -> None:
        assert each.network is not None
        each.network.keep(5)
        each.network.cut(0)

    at(searching, "select", 0, change)
    run = searching.run(tmp_path, progress=False)
    later = run.accounting().query("iteration >= 1")
    assert set(later.query("client == 5")["status"]) <= {"absent"}
    assert set(later.query("client == 0")["status"]) == {"unreachable"}
    assert {event["what"] for event in run.of("link")} == {"remove", "cut"}
    assert all(event["grouping"]["assignment"][5] == -1 for event in run.of("group"))


def changing_search() -> Search:
    """Return a search that is changed in every way while it runs, always at the same events."""
    searching = small.small_search()

    def first(each: Search) -> None:
        assert each.network is not None
        each.network.set_rate(1, 3e5, "down")
        each.network.cut(2)
        each.grouping = RandomGrouping(seed=9)

    def second(each: Search) -> None:
        assert each.network is not None
        each.network.heal(2)
        each.network.remove(4)
        each.testbed = SimulatedTestbed(schedule=TierSchedule(period_s=2, seed=1))

    at(searching, "round", 0, first)
    at(searching, "round", 1, second)
    return searching


def test_changes_survive_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before any of many writes and resumed, the run ends as without the interruption.

    A change made since the last complete round is lost with it; here it is made again, because the
    same event brings it about.
    """
    count = [0]
    die_at = [10**9]
    monkeypatch.setattr(RunFolder, "_write", RunFolder._write)
    monkeypatch.setattr(RunFolder, "append", RunFolder.append)

    def act(number: int) -> None:
        del number
        count[0] += 1
        if count[0] == die_at[0]:
            raise Killed

    small.count_writes(act)
    whole = changing_search().run(tmp_path / "whole", progress=False)
    assert len(whole.of("change")) == 2
    assert len(whole.of("link")) == 4
    writes = count[0]
    for place in range(3, writes, max(1, writes // 8)):
        folder = tmp_path / f"killed{place}"
        count[0], die_at[0] = 0, place
        with pytest.raises(Killed):
            changing_search().run(folder, progress=False)
        die_at[0] = 10**9
        run = changing_search().run(folder, progress=False)
        assert without_clock(run) == without_clock(whole), place


def test_a_changed_search_goes_on_in_its_folder_and_no_other(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    first = search()

    def change(each: Search) -> None:
        each.grouping = NetworkAwareGrouping()

    at(first, "group", 1, change)
    at(first, "select", 1, lambda each: each.stop())
    first.run(tmp_path, progress=False)
    with pytest.raises(RunFolderError, match=r"grouping\.type"):
        search(grouping=RandomGrouping()).run(tmp_path, progress=False)
    again = search()
    run = again.run(tmp_path, progress=False)
    assert run.finished
    assert again.grouping == NetworkAwareGrouping(), "what is in force is what the search shows"
    assert run.of("group")[-1]["grouping"]["strategy"] == "NetworkAwareGrouping"
