"""The same search on Flower's simulation engine, on a local Ray."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.search.small import small_search

pytestmark = pytest.mark.ray


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.filterwarnings("default")
def test_ray_finds_what_this_process_finds(tmp_path: Path) -> None:
    here = small_search().run(tmp_path / "here", progress=False)
    there = small_search(engine="ray").run(tmp_path / "ray", progress=False)
    ours, theirs = here.frontier(), there.frontier()
    assert theirs["block"].tolist() == ours["block"].tolist()
    assert theirs["macs"].tolist() == ours["macs"].tolist()
    assert theirs["accuracy"].tolist() == pytest.approx(ours["accuracy"].tolist(), abs=0.05)
    assert theirs["duration_s"].tolist() == pytest.approx(ours["duration_s"].tolist())


def test_without_ray_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match=r"pip install.*ray"):
        small_search(engine="ray").run(tmp_path, progress=False)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="engine is 'spark'; allowed are"):
        small_search(engine="spark")
