"""Figures of what-if tables show what the tables say."""

from __future__ import annotations

import pandas as pd
import pytest

import workbench as wb
from tests.grouping.fleets import CANDIDATE_BYTES, cifar_like


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    fleet = cifar_like(56, seed=0)
    return wb.sweep(fleet, CANDIDATE_BYTES, coeff=[0.9, 0.1, 0.5], max_slowdown=[None, 1.1])


def test_one_line_a_limit_and_measure(table: pd.DataFrame) -> None:
    figure = wb.plots.sweep(table)
    free, limited = table.iloc[:3].sort_values("coeff"), table.iloc[3:].sort_values("coeff")
    expected = [(part, measure) for part in (free, limited) for measure in ("emd", "duration_s")]
    for trace, (part, measure) in zip(figure.data, expected, strict=True):
        assert list(trace.x) == [0.1, 0.5, 0.9]
        assert list(trace.y) == part[measure].tolist()
    shown = [trace for trace in figure.data if trace.showlegend]
    assert [trace.name for trace in shown] == ["no limit", "max_slowdown 1.1"]
    assert len({(trace.line.dash, trace.marker.symbol) for trace in shown}) == 2


def test_pareto_has_a_trace_a_strategy_and_a_line_of_the_best() -> None:
    def points(*rows: tuple[float, float]) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=["emd", "duration_s"])

    tables = {
        "a": points((0.1, 9), (0.3, 5), (0.3, 6)),
        "b": points((0.2, 9), (0.4, 3), (0.05, float("inf"))),
    }
    line, *strategies = wb.plots.pareto(tables).data
    # Down to the first of the best, along them, and on to the right.
    assert list(zip(line.x, line.y, strict=True)) == [
        (0.1, 9), (0.1, 9), (0.3, 5), (0.4, 3), (0.4, 3),
    ]  # fmt: skip
    assert [trace.name for trace in strategies] == ["a", "b"]
    for trace, given in zip(strategies, tables.values(), strict=True):
        assert list(trace.x) == given["emd"].tolist()
        assert list(trace.y) == given["duration_s"].tolist()
    assert strategies[0].marker.symbol != strategies[1].marker.symbol


def test_no_points_are_an_empty_figure() -> None:
    figure = wb.plots.pareto({})
    assert len(figure.data) == 1
