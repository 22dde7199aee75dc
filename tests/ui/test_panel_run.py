"""A run that is read while it grows, and its events in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.search import small
from workbench.search.run import Run
from workbench.ui.panel_run import FollowedRun, sentence


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    return small.small_search().run(tmp_path_factory.mktemp("run"), progress=False)


def test_a_growing_run_is_read_to_its_present_end(run: Run, tmp_path: Path) -> None:
    lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    followed = FollowedRun()
    assert followed.at(tmp_path) is None
    for name in ("config.json", "manifest.json", "fleet.npz"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    for length in range(len(lines) + 1):
        half = b"" if length == len(lines) else lines[length][: len(lines[length]) // 2]
        (tmp_path / "events.jsonl").write_bytes(b"".join(lines[:length]) + half)
        shown = followed.at(tmp_path)
        assert shown is not None
        assert shown.events == run.events[:length]
        assert shown.frontier().equals(Run(tmp_path).frontier())


def test_events_that_were_cut_off_and_written_again(run: Run, tmp_path: Path) -> None:
    for name in ("config.json", "manifest.json", "events.jsonl"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    followed = FollowedRun()
    followed.at(tmp_path)
    events = tmp_path / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    other = json.loads(lines[-1]) | {"reason": "something else"}
    events.write_bytes(b"".join(lines[:-1]) + json.dumps(other).encode() + b"\n")
    shown = followed.at(tmp_path)
    assert shown is not None
    assert shown.events == Run(tmp_path).events
    events.write_bytes(b"".join(lines[:2]))
    shown = followed.at(tmp_path)
    assert shown is not None
    assert shown.events == run.events[:2]


def test_every_event_has_words(run: Run) -> None:
    link = {
        "event": "link", "phase": "search", "iteration": 1, "time_s": 3725.0,
        "client": "client-3", "what": "rate", "asked_bps": 5e6,
    }  # fmt: skip
    assert sentence(link) == "1:02:05  iteration 1: client-3: rate set to 5 Mbit/s"
    assert sentence(link | {"what": "cut", "asked_bps": None}).endswith("client-3: link cut")
    for event in run.events:
        words = sentence(event).split(": ", 1)[1]
        assert words != event["event"], f"no words for {event['event']}"
        assert "None" not in words
