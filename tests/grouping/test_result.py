"""Groupings tell their distances, their round durations and their history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.fleet import Fleet
from workbench.grouping.baselines import NetworkAwareGrouping
from workbench.grouping.divergence import distances, group_counts
from workbench.grouping.netdag import NetDAG
from workbench.grouping.result import Grouping, Swap
from workbench.tiers import PAPER_TIERS


def grouping_by_hand(**changed):
    given_to_it = {
        "strategy": "ByHand",
        "assignment": np.array([0, 0, 1, -1]),
        "groups": 3,
        "label_counts": np.array([[4, 0], [0, 4], [3, 1], [9, 9]]),
        "tier": np.array([0, 1, 1, 0]),
        "rate_bps": np.array([8e6, 4e6, 2e6, 1e6]),
        **changed,
    }
    return Grouping(**given_to_it)


def test_distances_by_hand():
    counts = [[4, 4], [3, 1], [0, 0]]
    np.testing.assert_allclose(distances(counts, [7, 5]), [1 / 6, 1 / 3, 1])
    chord = distances([[1, 0], [0, 1], [1, 1], [0, 0]], [5, 0], "chord")
    np.testing.assert_allclose(chord, [0, 2**0.5, (2 - 2**0.5) ** 0.5, 1])
    assert distances([[0, 0]], [0, 0]).tolist() == [0]
    with pytest.raises(ValueError, match="metric is 'l2'; allowed are l1, chord"):
        distances([[1]], [1], "l2")


@given(st.data())
def test_group_counts_are_sums_of_the_members(data):
    clients, groups = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))
    each = st.lists(st.integers(-1, groups - 1), min_size=clients, max_size=clients)
    assignment = np.array(data.draw(each))
    counts = np.arange(clients * 3).reshape(clients, 3)
    expected = [counts[assignment == group].sum(axis=0) for group in range(groups)]
    np.testing.assert_array_equal(group_counts(counts, assignment, groups), expected)


def test_a_grouping_knows_its_members_labels_and_distances():
    grouping = grouping_by_hand()
    assert grouping.members(0).tolist() == [0, 1]
    assert grouping.members(2).tolist() == []
    assert grouping.sizes().tolist() == [2, 1, 0]
    assert grouping.counts().tolist() == [[4, 4], [3, 1], [0, 0]]
    # The client that is away does not count for the whole either: 7 and 5 of 12 samples.
    np.testing.assert_allclose(grouping.emd(), [1 / 6, 1 / 3, 1])
    assert grouping.emd("chord")[2] == 1
    with pytest.raises(ValueError, match=r"group is 3; there are 0\.\.2"):
        grouping.members(3)


def test_a_round_lasts_for_the_slowest_client_of_each_group():
    grouping = grouping_by_hand()
    # There and back: 2 * 8 bits a byte; the slowest links of the groups carry 4 and 2 Mbit/s.
    np.testing.assert_allclose(grouping.round_duration_s([1e6, 5e5, 1e5]), [4, 4, 0])
    np.testing.assert_allclose(grouping.round_duration_s([1e6, 5e5, 1e5], [1, 2, 3]), [5, 6, 0])
    np.testing.assert_allclose(grouping.round_duration_s([0, 0, 0], 1.5), [1.5, 1.5, 0])
    cut = grouping_by_hand(rate_bps=np.array([8e6, 0, 2e6, 1e6]))
    assert cut.round_duration_s([1e6, 5e5, 1e5]).tolist() == [np.inf, 4, 0]
    with pytest.raises(ValueError, match="sizes_bytes must be 3 sizes"):
        grouping.round_duration_s([1e6])
    with pytest.raises(ValueError, match=r"sizes_bytes\[1\] is -1"):
        grouping.round_duration_s([1, -1, 1])
    with pytest.raises(ValueError, match="link rates are unknown"):
        grouping_by_hand(rate_bps=None).round_duration_s([1, 1, 1])


def test_the_table_has_a_row_for_each_group():
    grouping = grouping_by_hand(
        tiers=PAPER_TIERS, swaps=(Swap(0, 0, 1, 1, 2, 0.5), Swap(1, 1, 0, 1, 2, 0.4))
    )
    table = grouping.table()
    assert table["clients"].tolist() == [2, 1, 0]
    assert table["samples"].tolist() == [8, 4, 0]
    assert table["tiers"].tolist() == ["11, 12", "12", ""]
    assert table["slowest_mbit_s"].tolist()[:2] == [4, 2]
    # The second swap took back the first.
    assert table["swapped_in"].tolist() == [0, 0, 0]
    once = grouping_by_hand(swaps=(Swap(1, 1, 0, 1, 2, 0.4),)).table()
    assert once["swapped_in"].tolist() == [1, 1, 0]
    without_fleet = NetDAG().refine([[1, 0], [0, 1]], [0, 1], [0, 1]).table()
    assert "slowest_mbit_s" not in without_fleet
    assert without_fleet["tiers"].tolist() == ["0", "1"]


def test_the_html_shows_table_and_figure():
    fleet = Fleet.from_label_counts(np.random.default_rng(0).poisson(5, (28, 4)))
    grouping = NetDAG().group(fleet, 7)
    html = grouping._repr_html_()
    assert "NetDAG" in html
    assert html.count("<tr") >= 8
    assert html.count("<title>group") == len(
        {(tier, group) for tier, group in zip(fleet.tier, grouping.assignment, strict=True)}
    )
    assert "<svg" in NetworkAwareGrouping().group(fleet, 7)._repr_html_()
    assert "<svg" in grouping_by_hand()._repr_html_()
