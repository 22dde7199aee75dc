"""What all groupings share, and what each of them promises."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from workbench.fleet import Fleet
from workbench.grouping.balanced import BalancedGrouping
from workbench.grouping.baselines import NetworkAwareGrouping, RandomGrouping
from workbench.grouping.netdag import NetDAG
from workbench.grouping.result import Grouping

STRATEGIES = [
    RandomGrouping(seed=3),
    NetworkAwareGrouping(),
    BalancedGrouping(),
    NetDAG(max_iter=3),
    NetDAG(max_iter=3, max_slowdown=1.1),
]
SIZES = [70e6, 60e6, 50e6, 40e6, 30e6, 20e6, 10e6]


def fleet_of(clients, seed=5, classes=6):
    counts = np.random.default_rng(seed).poisson(9, (clients, classes))
    return Fleet.from_label_counts(counts, seed=seed)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
@given(
    clients=st.integers(1, 40),
    groups=st.integers(1, 9),
    seed=st.integers(0, 5),
    away=st.integers(0, 4),
)
def test_every_available_client_is_in_one_group_of_even_size(strategy, clients, groups, seed, away):
    fleet = fleet_of(clients, seed)
    available = np.arange(clients) % 5 >= away
    sizes = SIZES[:1] * groups
    if groups > available.sum():
        message = f"groups is {groups}, but only {available.sum()} clients"
        with pytest.raises(ValueError, match=message):
            strategy.group(fleet, groups, sizes_bytes=sizes, available=available)
        return
    grouping = strategy.group(fleet, groups, sizes_bytes=sizes, available=available, iteration=2)
    assert grouping.assignment.dtype == np.int64
    assert ((grouping.assignment == -1) == ~available).all()
    assert grouping.sizes().sum() == available.sum()
    assert grouping.sizes().min() >= 1
    if not isinstance(strategy, BalancedGrouping):
        assert np.ptp(grouping.sizes()) <= 1
    again = strategy.group(fleet, groups, sizes_bytes=sizes, available=available, iteration=2)
    np.testing.assert_array_equal(grouping.assignment, again.assignment)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_a_grouping_survives_json(strategy):
    fleet = fleet_of(40)
    grouping = strategy.group(fleet, 7, sizes_bytes=SIZES)
    back = Grouping.from_dict(json.loads(json.dumps(grouping.to_dict())), fleet)
    np.testing.assert_array_equal(back.assignment, grouping.assignment)
    assert back.swaps == grouping.swaps
    assert back.strategy == type(strategy).__name__
    assert dict(back.settings) == dict(grouping.settings)
    np.testing.assert_array_equal(back.emd(), grouping.emd())
    with pytest.raises(ValueError, match="40 clients, the fleet has 39"):
        Grouping.from_dict(grouping.to_dict(), fleet_of(39))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_the_parameters_of_a_strategy_survive_json(strategy):
    adapter = TypeAdapter(type(strategy))
    assert adapter.validate_json(adapter.dump_json(strategy)) == strategy
    assert strategy.settings() == adapter.dump_python(strategy)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
@pytest.mark.parametrize(
    ("request_of_it", "message"),
    [
        ({"groups": 0}, "groups is 0, but must be at least 1"),
        ({"groups": 41}, "groups is 41, but only 40 clients"),
        ({"sizes_bytes": [2, 1]}, r"sizes_bytes must be 7 sizes, one a group, got \(2,\)"),
        ({"sizes_bytes": SIZES[::-1]}, "sizes_bytes must be descending"),
        ({"sizes_bytes": [np.nan] * 7}, r"sizes_bytes\[0\] is nan"),
        ({"available": np.ones(39, dtype=bool)}, "available must be 40 booleans"),
        ({"available": np.ones(40)}, "available must be 40 booleans, got float64"),
    ],
)
def test_wrong_requests_are_named(strategy, request_of_it, message):
    given_to_it = {"groups": 7, "sizes_bytes": SIZES, **request_of_it}
    with pytest.raises(ValueError, match=message):
        strategy.group(fleet_of(40), **given_to_it)


def test_random_groups_differ_between_iterations_and_seeds():
    fleet = fleet_of(40)
    drawn = [
        RandomGrouping(seed).group(fleet, 7, iteration=iteration).assignment.tolist()
        for seed in (0, 1)
        for iteration in (0, 1)
    ]
    assert len({tuple(assignment) for assignment in drawn}) == 4
    with pytest.raises(ValueError, match="seed"):
        RandomGrouping(seed=-1)


def test_network_aware_groups_are_cut_from_the_clients_sorted_by_rate():
    rate = [5e6, 9e6, 1e6, 7e6, 9e6, 3e6, 2e6]
    fleet = Fleet.from_label_counts(np.ones((7, 2)), rate_bps=rate)
    grouping = NetworkAwareGrouping().group(fleet, 3)
    # Sorted from the fastest: rows 4 and 1 (equal, the later first), 3 | 0, 5 | 6, 2.
    assert grouping.assignment.tolist() == [1, 0, 2, 0, 0, 1, 2]
    slow_away = NetworkAwareGrouping().group(fleet, 3, available=np.array(rate) > 2e6)
    assert slow_away.assignment.tolist() == [1, 0, -1, 1, 0, 2, -1]


def test_netdag_starts_from_network_aware_groups():
    fleet = fleet_of(56)
    start = NetworkAwareGrouping().group(fleet, 7)
    unmoved = NetDAG(max_iter=0).group(fleet, 7)
    np.testing.assert_array_equal(unmoved.assignment, start.assignment)
    moved = NetDAG().group(fleet, 7)
    undone = moved.assignment.copy()
    for swap in reversed(moved.swaps):
        undone[swap.client], undone[swap.partner] = swap.group, swap.neighbour
    np.testing.assert_array_equal(undone, start.assignment)
    np.testing.assert_allclose(moved.emd_trace[0], start.emd(), rtol=0, atol=1e-12)


def test_a_limited_slowdown_is_kept_and_needs_sizes():
    fleet = fleet_of(112, classes=10)
    for limit in (1.0, 1.1, 2.0):
        start = NetworkAwareGrouping().group(fleet, 7).round_duration_s(SIZES).max()
        grouping = NetDAG(coeff=1, max_slowdown=limit).group(fleet, 7, sizes_bytes=SIZES)
        assert grouping.round_duration_s(SIZES).max() <= limit * start * (1 + 1e-12)
        assert grouping.swaps
    unlimited = NetDAG(coeff=1).group(fleet, 7, sizes_bytes=SIZES)
    assert unlimited.round_duration_s(SIZES).max() > 2 * start
    np.testing.assert_array_equal(
        NetDAG(coeff=1, max_slowdown=1e9).group(fleet, 7, sizes_bytes=SIZES).assignment,
        unlimited.assignment,
    )
    with pytest.raises(ValueError, match=r"max_slowdown is 1\.1, which needs sizes_bytes"):
        NetDAG(max_slowdown=1.1).group(fleet, 7)


def test_balanced_groups_have_alike_amounts_of_data_and_labels():
    generator = np.random.default_rng(8)
    counts = np.round(generator.dirichlet([0.3] * 10, 210) * 300).astype(int)
    fleet = Fleet.from_label_counts(counts)
    balanced = BalancedGrouping(max_ratio=1.1).group(fleet, 7)
    samples = balanced.counts().sum(axis=1)
    assert samples.max() <= 1.1 * samples.min()
    drawn = [RandomGrouping(seed).group(fleet, 7).emd().mean() for seed in range(10)]
    assert balanced.emd().mean() < min(drawn)
    with pytest.raises(ValueError, match=r"(?s)max_ratio.*0\.9"):
        BalancedGrouping(max_ratio=0.9)


def test_balanced_groups_follow_the_greedy_of_the_paper():
    counts = [[6, 0], [0, 6], [5, 0], [0, 5], [0, 0]]
    grouping = BalancedGrouping(max_ratio=2).group(Fleet.from_label_counts(counts), 2)
    # The two largest open the groups; the third may go to either (11 : 6), and balances the
    # labels of the group of the other class; so does the fourth. The last has no samples.
    assert grouping.assignment.tolist() == [0, 1, 1, 0, 0]
    assert grouping.emd().max() < 0.2
