"""Figures of a run show what its tables say."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go
import pytest

import workbench as wb
from tests.search import small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> wb.Run:
    return small.small_search().run(tmp_path_factory.mktemp("runs") / "one", progress=False)


def told_apart(figure: go.Figure) -> None:
    """Assert that the traces of a figure differ in more than colour."""
    looks = [
        (
            getattr(trace.marker, "symbol", None),
            getattr(trace.marker, "pattern", None) and trace.marker.pattern.shape,
            getattr(getattr(trace, "line", None), "dash", None),
        )
        for trace in figure.data
        if trace.showlegend is not False
    ]
    assert len(looks) == len(set(map(str, looks)))


def test_the_frontier(run: wb.Run) -> None:
    figure = wb.plots.frontier(run)
    table = run.frontier()
    accuracy, macs, size = figure.data
    assert list(accuracy.y) == table["accuracy"].tolist()
    assert list(accuracy.x) == (table["macs"] / 1e6).tolist()
    assert list(macs.y) == (100 * table["macs"] / table["macs"][0]).tolist()
    assert size.y[0] == 100
    told_apart(figure)


def test_round_durations_of_one_and_of_several(run: wb.Run) -> None:
    one = wb.plots.round_durations(run)
    shown = [value for trace in one.data for value in trace.y]
    assert shown == run.rounds()["duration_s"].tolist()
    told_apart(one)
    several = wb.plots.round_durations({"a": run, "b": run})
    assert [trace.name for trace in several.data] == [
        "a pre-training", "a search", "b pre-training", "b search",
    ]  # fmt: skip
    told_apart(several)


def test_candidates_mark_the_winner(run: wb.Run) -> None:
    others, winner = wb.plots.candidates(run, 1).data
    table = run.candidates()
    table = table[table["iteration"] == 1]
    assert list(winner.y) == table.loc[table["selected"], "block"].tolist()
    assert len(others.y) == len(table) - 1


def test_traffic_is_summed_up(run: wb.Run) -> None:
    down, up = wb.plots.traffic(run).data
    accounts = run.accounting()
    assert down.y[-1] * 1e6 == pytest.approx(accounts["bytes_down"].sum())
    assert up.y[-1] * 1e6 == pytest.approx(accounts["bytes_up"].sum())


def test_a_fleet() -> None:
    fleet = small.fleet()
    heat, *links = wb.plots.fleet(fleet).data
    assert heat.z.sum() == fleet.samples.sum()
    rates = sorted(rate for trace in links for rate in trace.y)
    assert rates == sorted(fleet.rate_bps / 1e6)


def test_compared_shows_every_measure() -> None:
    figure = wb.plots.compared(["a", "b"], {"x": [1.0, 2.0], "y": [3.0, 0.0]}, "title")
    bars = [(trace.xaxis, trace.name, *trace.y) for trace in figure.data]
    assert bars == [("x", "a", 1), ("x", "b", 2), ("x2", "a", 3), ("x2", "b", 0)]
    # plotly.js has no pattern for a list of colours.
    looks = [(trace.marker.color, trace.marker.pattern.shape) for trace in figure.data]
    assert len(set(looks)) == 2


def test_figures_are_plain(run: wb.Run, tmp_path: Path) -> None:
    figure = wb.plots.frontier(run)
    assert type(figure) is go.Figure
    figure.write_html(tmp_path / "figure.html", include_plotlyjs=False)


def test_a_comparison(run: wb.Run) -> None:
    figure = wb.plots.comparison(wb.compare({"one": run, "two": run}))
    assert [trace.name for trace in figure.data] == ["one", "one", "two", "two"]
    assert list(figure.data[0].y) == run.frontier()["accuracy"].tolist()
    assert figure.data[1].x[0] == 100
