"""Figures of groupings show what the groupings are."""

from __future__ import annotations

import numpy as np
import pytest

import workbench as wb
from tests.grouping.fleets import CANDIDATE_BYTES, cifar_like


@pytest.fixture(scope="module")
def fleet() -> wb.Fleet:
    return cifar_like(56, seed=0)


@pytest.fixture(scope="module")
def start(fleet: wb.Fleet) -> wb.Grouping:
    return wb.NetworkAwareGrouping().group(fleet, 7)


@pytest.fixture(scope="module")
def netdag(fleet: wb.Fleet) -> wb.Grouping:
    available = np.arange(56) != 10
    return wb.NetDAG().group(fleet, 7, sizes_bytes=CANDIDATE_BYTES, available=available)


def test_bubbles_are_the_clients_of_each_tier_in_each_group(
    fleet: wb.Fleet, netdag: wb.Grouping
) -> None:
    figure = wb.plots.groups(netdag)
    shown = {
        (int(group), label.split()[0]): (int(clients), (trace.marker.symbol, size))
        for trace in figure.data
        for group, label, clients, size in zip(
            trace.x, trace.y, trace.customdata, trace.marker.size, strict=True
        )
    }
    expected: dict[tuple[int, str], int] = {}
    for row in np.flatnonzero(netdag.assignment >= 0):
        key = int(netdag.assignment[row]), fleet.tiers[fleet.tier[row]].name
        expected[key] = expected.get(key, 0) + 1
    assert {key: clients for key, (clients, _) in shown.items()} == expected
    areas = {(symbol, clients): size**2 for clients, (symbol, size) in shown.values()}
    for (symbol, clients), area in areas.items():
        assert area == pytest.approx(areas[symbol, 1] * clients)


def test_tiers_are_rows_with_the_slowest_at_the_bottom(netdag: wb.Grouping) -> None:
    rows = wb.plots.groups(netdag).layout.yaxis.categoryarray
    assert len(rows) == 14
    assert rows[0] == "11 low (2.5\N{EN DASH}3)"
    assert rows[-1] == "41 high (100\N{EN DASH}380)"


def test_several_groupings_share_one_scale(start: wb.Grouping, netdag: wb.Grouping) -> None:
    figure = wb.plots.groups({"a": start, "b": netdag, "c": netdag, "d": start})
    assert [note.text for note in figure.layout.annotations] == ["a", "b", "c", "d"]
    sizes: dict[tuple[str, int], set[float]] = {}
    for trace in figure.data:
        for clients, size in zip(trace.customdata, trace.marker.size, strict=True):
            sizes.setdefault((trace.marker.symbol, int(clients)), set()).add(round(size, 6))
    assert {symbol for symbol, _ in sizes} == {"circle", "square", "diamond"}
    assert all(len(found) == 1 for found in sizes.values())


def test_no_grouping_is_refused() -> None:
    with pytest.raises(ValueError, match="no grouping"):
        wb.plots.groups({})


def test_without_a_tier_table_tiers_have_numbers(fleet: wb.Fleet, start: wb.Grouping) -> None:
    refined = wb.NetDAG().refine(fleet.label_counts, fleet.tier, start.assignment)
    figure = wb.plots.groups(refined)
    assert figure.layout.yaxis.categoryarray[0] == "tier 0"
    assert sum(sum(trace.customdata) for trace in figure.data) == 56


def test_label_distribution_is_the_difference_of_shares(
    fleet: wb.Fleet, netdag: wb.Grouping
) -> None:
    (cells,) = wb.plots.label_distribution(netdag).data
    here = fleet.label_counts[netdag.assignment >= 0].sum(axis=0)
    for group in range(7):
        mine = fleet.label_counts[netdag.members(group)].sum(axis=0)
        expected = 100 * (mine / mine.sum() - here / here.sum())
        assert cells.z[:, group] == pytest.approx(expected)
        assert np.abs(cells.z[:, group]).sum() / 100 == pytest.approx(netdag.emd()[group])
    assert not any("-0.0" in text for row in cells.text for text in row)


def test_before_and_after_have_one_scale(start: wb.Grouping, netdag: wb.Grouping) -> None:
    names = [f"class {n}" for n in range(10)]
    figure = wb.plots.label_distribution(netdag, before=start, class_names=names)
    before, after = figure.data
    assert before.coloraxis == after.coloraxis == "coloraxis"
    assert figure.layout.coloraxis.cmax == max(np.abs(before.z).max(), np.abs(after.z).max())
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    assert before.y[3] == "class 3", "one client is away in one of them, so the shares differ"
    alone = wb.plots.label_distribution(start, before=start, class_names=names).data[1]
    share = start.label_counts.sum(axis=0)[3] / start.label_counts.sum()
    assert alone.y[3] == f"class 3 ({100 * share:.0f}%)"


def test_class_names_must_be_as_many_as_classes(start: wb.Grouping) -> None:
    with pytest.raises(ValueError, match="2 names, but there are 10 classes"):
        wb.plots.label_distribution(start, class_names=["a", "b"])


def test_the_trace_is_what_the_grouping_kept(netdag: wb.Grouping) -> None:
    *groups, swaps = wb.plots.emd_trace(netdag).data
    assert netdag.emd_trace is not None
    assert [list(trace.y) for trace in groups] == netdag.emd_trace.T.tolist()
    assert len({(trace.line.dash, trace.marker.symbol) for trace in groups}) == 7
    assert swaps.y[0] == netdag.emd_trace[0].mean()
    assert list(swaps.y[1:]) == [swap.mean_emd for swap in netdag.swaps]


def test_a_grouping_without_iterations_has_no_trace(start: wb.Grouping) -> None:
    with pytest.raises(ValueError, match="NetworkAwareGrouping has no iterations"):
        wb.plots.emd_trace(start)
