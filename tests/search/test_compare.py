"""Runs side by side, and the presets of the papers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import workbench as wb
from tests.search import small
from workbench.federation.strategies import FedProx
from workbench.grouping.baselines import RandomGrouping
from workbench.search.compare import compare
from workbench.search.search import Search


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    small.small_search().run(folder / "netdag", progress=False)
    small.small_search(grouping=RandomGrouping(seed=1), training=FedProx(rounds=1)).run(
        folder / "random", progress=False
    )
    return folder / "netdag", folder / "random"


def test_one_row_a_run(two_runs: tuple[Path, Path]) -> None:
    comparison = compare(two_runs)
    table = comparison.table(sizes=(1.0, 0.0))
    assert list(table.index) == ["netdag", "random"]
    for path in two_runs:
        run = wb.Run(path)
        row = table.loc[path.name]
        assert row["accuracy at 100%"] == run.frontier()["accuracy"].iloc[0]
        assert np.isnan(row["accuracy at 0%"])
        assert row["hours"] * 3600 == pytest.approx(run.frontier()["duration_s"].sum())
        accounts = run.accounting()
        total = accounts["bytes_up"].sum() + accounts["bytes_down"].sum()
        assert row["traffic GB"] * 1e9 == pytest.approx(total)
        searching = accounts[accounts["iteration"] > 0]
        assert row["uplink MB a client"] * 1e6 == pytest.approx(searching["bytes_up"].sum() / 6)
        assert row["GMACs a client"] * 1e9 == pytest.approx(searching["macs"].sum() / 6)


def test_what_differs_is_named(two_runs: tuple[Path, Path]) -> None:
    settings = compare(two_runs).settings()
    assert settings.loc["grouping.type"].tolist() == ["NetDAG", "RandomGrouping"]
    assert settings.loc["training.rounds"].tolist() == [2, 1]
    assert "seed" not in settings.index


def test_different_data_is_refused_unless_asked_for(
    two_runs: tuple[Path, Path], search: Callable[..., Search], tmp_path: Path
) -> None:
    run = search(fleet=small.fleet(5)).run(tmp_path / "five", progress=False)
    with pytest.raises(ValueError, match="different data"):
        compare([two_runs[0], run])
    assert len(compare([two_runs[0], run], allow_different_data=True).table()) == 2


def test_other_links_are_the_same_data(
    two_runs: tuple[Path, Path], search: Callable[..., Search], tmp_path: Path
) -> None:
    slow = replace(small.fleet(), rate_bps=small.fleet().rate_bps / 2)
    run = search(fleet=slow).run(tmp_path / "slow", progress=False)
    table = compare({"fast": two_runs[0], "slow": run}).table()
    assert table["hours"]["slow"] > table["hours"]["fast"]


def test_names_have_to_differ(two_runs: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="same name"):
        compare([two_runs[0], two_runs[0]])
    with pytest.raises(ValueError, match="no run"):
        compare([])


def test_presets_are_the_papers_settings() -> None:
    nafnas = wb.presets.nafnas(small.dataset(), small.fleet(12))
    assert nafnas.netadapt == wb.NetAdapt(step=0.025, decay=0.96, budget=0.25, iterations=15)
    assert nafnas.training.rounds == 20
    assert nafnas.config["grouping"]["coeff"] == 0.9
    narrow = wb.models.convnet(num_classes=10, in_channels=1, width=0.1)
    decnas = wb.presets.decnas(small.dataset(), small.fleet(12), model=narrow, groups=4)
    assert decnas.groups == 4
    assert decnas.policy.dropping == wb.EarlyDropping(ratio=0.33)
    assert decnas.rounds(7) == 5
    with pytest.raises(ValueError, match="setting is 'mnist'"):
        wb.presets.decnas(small.dataset(), small.fleet(12), setting="mnist")  # type: ignore[arg-type]
