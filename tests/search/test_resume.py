"""A run that is killed at any instant ends as one that was never killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.search import small
from workbench.federation.strategies import FedProx
from workbench.pruning.netadapt import NetAdapt
from workbench.search.folder import RunFolder, RunFolderError
from workbench.search.policies import Availability, EarlyDropping, SearchPolicy
from workbench.search.run import Run
from workbench.search.search import Search

DECNAS = SearchPolicy(
    pretrain_rounds=1,
    dropping=EarlyDropping(ratio=0.5),
    accuracy="local",
    scheduling="random",
    tune_rounds=1,
    tune_iterations=(-1, 0),
)


class Killed(BaseException):
    """What stands for the end of the process."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def die(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Let the process die before the n-th write; returns the count, which goes on."""

    def prepare(die_at: int) -> list[int]:
        monkeypatch.undo()
        monkeypatch.setattr(RunFolder, "_write", RunFolder._write)
        monkeypatch.setattr(RunFolder, "append", RunFolder.append)
        count = [0]

        def act(number: int) -> None:
            count[0] = number
            if number == die_at:
                raise Killed

        small.count_writes(act)
        return count

    return prepare


def same(one: Run, other: Run) -> None:
    """Assert that two runs found the same, bit for bit."""
    models = sorted(path.name for path in (one.path / "models").glob("*.*"))
    assert models == sorted(path.name for path in (other.path / "models").glob("*.*"))
    for name in models:
        left, right = (run.path / "models" / name for run in (one, other))
        assert left.read_bytes() == right.read_bytes(), name
    assert one.frontier().equals(other.frontier())
    for left, right in zip(one.events, other.events, strict=True):
        assert without_clock(left) == without_clock(right)


def without_clock(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "wall_s"}


@pytest.mark.parametrize("settings", [{}, {"policy": DECNAS, "training": FedProx(rounds=2)}])
def test_every_instant(
    search: Callable[..., Search],
    tmp_path: Path,
    die: Callable[[int], list[int]],
    settings: dict[str, Any],
) -> None:
    whole = search(**settings).run(tmp_path / "whole", progress=False)
    assert whole.finished
    count = die(10**9)
    search(**settings).run(tmp_path / "counted", progress=False)
    writes = count[0]
    assert writes > 40
    # Every instant would take minutes; every seventh, and each from another phase, will do.
    for die_at in range(3, writes, max(1, writes // 9)):
        path = tmp_path / f"killed-{die_at}"
        die(die_at)
        with pytest.raises(Killed):
            search(**settings).run(path, progress=False)
        die(0)
        same(search(**settings).run(path, progress=False), whole)


def test_a_killed_process(search: Callable[..., Search], tmp_path: Path) -> None:
    whole = search().run(tmp_path / "whole", progress=False)
    path = tmp_path / "killed"
    # Each attempt goes on where the one before was killed, and dies ten writes later.
    for die_at in (13, 11, 10, 9, 8):
        ended = subprocess.run(
            [sys.executable, "-m", "tests.search.small", str(path), str(die_at)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    same(search().run(path, progress=False), whole)


def test_a_finished_run_is_read_and_not_run_again(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    first = search().run(tmp_path, progress=False)
    before = (tmp_path / "events.jsonl").read_bytes()
    again = search().run(tmp_path, progress=False)
    assert (tmp_path / "events.jsonl").read_bytes() == before
    assert again.frontier().equals(first.frontier())


def test_stopping_and_going_on(search: Callable[..., Search], tmp_path: Path) -> None:
    whole = search().run(tmp_path / "whole", progress=False)
    stopped = search()
    stopped.listeners.append(lambda event: event["event"] == "group" and stopped.stop())
    run = stopped.run(tmp_path / "stopped", progress=False)
    assert not run.finished
    assert len(run.rounds()) == 1
    same(search().run(tmp_path / "stopped", progress=False), whole)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"seed": 5}, "seed: 4 -> 5"),
        ({"netadapt": NetAdapt(step=0.2, budget=0.4, iterations=2)}, "netadapt.step: 0.1 -> 0.2"),
        ({"training": FedProx(rounds=2)}, "training.type: 'FedAvg' -> 'FedProx'"),
        ({"availability": Availability(rate=0.5)}, "availability.rate: 1.0 -> 0.5"),
        ({"model": small.model(1)}, "model.weights"),
    ],
)
def test_another_config_is_refused_by_name(
    search: Callable[..., Search], tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    search().run(tmp_path, progress=False)
    before = (tmp_path / "events.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match="another config") as caught:
        search(**settings).run(tmp_path, progress=False)
    assert named in str(caught.value)
    assert (tmp_path / "events.jsonl").read_bytes() == before


def test_a_folder_with_other_things_is_refused(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match=r"thesis\.tex"):
        search().run(tmp_path, progress=False)


def test_a_folder_that_cannot_be_written_is_refused(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(RunFolderError, match="can't be written"):
        search().run(blocked / "run", progress=False)


def test_a_folder_in_use_is_refused(search: Callable[..., Search], tmp_path: Path) -> None:
    first = search()
    with RunFolder(tmp_path).open(first.config), pytest.raises(RunFolderError, match="in use"):
        search().run(tmp_path, progress=False)


def test_the_config_is_everything(search: Callable[..., Search], tmp_path: Path) -> None:
    run = search().run(tmp_path, progress=False)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["seed"] == 4
    assert config["grouping"] == {"type": "NetDAG", **config["grouping"]}
    assert run.manifest["packages"]["torch"] == str(torch.__version__)
