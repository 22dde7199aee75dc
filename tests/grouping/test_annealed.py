"""Annealed groups: the best there are on small fleets, within the limit, and told truthfully."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import workbench as wb
from tests.grouping.fleets import CANDIDATE_BYTES, cifar_like
from workbench.grouping.annealed import exchanges
from workbench.grouping.divergence import Metric
from workbench.search import config

SIZES = [4e6, 3e6, 2e6]


def random_fleet(clients: int, seed: int, *, classes: int = 4) -> wb.Fleet:
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 20, (clients, classes)) * (
        generator.random((clients, classes)) < 0.5
    )
    return wb.Fleet.from_label_counts(counts, seed=seed)


def slowest_of_tiers(fleet: wb.Fleet) -> NDArray[np.float64]:
    return np.array([fleet.tiers[tier].low_bps for tier in fleet.tier])


def lowest_emd(fleet: wb.Fleet, groups: int, limit_s: float, metric: Metric) -> float:
    """Try every assignment to groups of the network-aware sizes whose round is short enough."""
    aware = wb.NetworkAwareGrouping().group(fleet, groups)
    found = np.inf
    for assignment in set(itertools.permutations(aware.assignment.tolist())):
        tried = wb.Grouping(
            strategy="", assignment=np.array(assignment), groups=groups,
            label_counts=fleet.label_counts, tier=fleet.tier, rate_bps=fleet.rate_bps,
        )  # fmt: skip
        if tried.round_duration_s(SIZES).max() <= limit_s:
            found = min(found, float(tried.emd(metric).mean()))
    return found


@pytest.mark.parametrize("metric", ["l1", "chord"])
@pytest.mark.parametrize("seed", range(6))
def test_small_fleets_get_the_best_groups_there_are(seed: int, metric: Metric) -> None:
    fleet = random_fleet(7, seed)
    start_s = wb.NetworkAwareGrouping().group(fleet, 3).round_duration_s(SIZES).max()
    strategy = wb.AnnealedGrouping(max_slowdown=1.3, lasting=False, metric=metric, proposals=20_000)
    grouping = strategy.group(fleet, 3, sizes_bytes=SIZES)
    assert grouping.emd(metric).mean() == pytest.approx(
        lowest_emd(fleet, 3, 1.3 * start_s, metric), abs=1e-9
    )


@given(
    clients=st.integers(3, 40),
    seed=st.integers(0, 10_000),
    max_slowdown=st.sampled_from([1.0, 1.05, 1.5, None]),
    lasting=st.booleans(),
    metric=st.sampled_from(["l1", "chord"]),
    absent=st.floats(0, 0.4),
)
def test_groups_keep_their_sizes_their_limit_and_what_netdag_reached(
    clients: int,
    seed: int,
    max_slowdown: float | None,
    lasting: bool,
    metric: Metric,
    absent: float,
) -> None:
    fleet = random_fleet(clients, seed)
    present = np.random.default_rng(seed).random(clients) >= absent
    present[:3] = True
    here = {"sizes_bytes": SIZES, "available": present}
    strategy = wb.AnnealedGrouping(
        max_slowdown=max_slowdown, lasting=lasting, metric=metric, proposals=3000, seed=seed
    )
    grouping = strategy.group(fleet, 3, **here)
    aware = wb.NetworkAwareGrouping().group(fleet, 3, **here)

    assert grouping.sizes().tolist() == aware.sizes().tolist()
    assert ((grouping.assignment == -1) == ~present).all()
    if not lasting or max_slowdown is None:
        exact = wb.NetDAG(max_slowdown=max_slowdown, metric=metric).group(fleet, 3, **here)
        assert grouping.emd(metric).mean() <= exact.emd(metric).mean() + 1e-12
    if max_slowdown is not None:
        limit_s = max_slowdown * aware.round_duration_s(SIZES).max()
        assert grouping.round_duration_s(SIZES).max() <= limit_s
    assert_told(grouping, aware, metric)


def assert_told(grouping: wb.Grouping, aware: wb.Grouping, metric: Metric) -> None:
    """Assert that the swaps lead from the start to the result, and the distances are theirs."""
    assignment = aware.assignment.copy()
    for swap in grouping.swaps:
        assert assignment[swap.client] == swap.group
        assert assignment[swap.partner] == swap.neighbour
        assignment[swap.client], assignment[swap.partner] = swap.neighbour, swap.group
        after = wb.Grouping(
            strategy="", assignment=assignment, groups=grouping.groups,
            label_counts=grouping.label_counts, tier=grouping.tier,
        )  # fmt: skip
        assert swap.mean_emd == pytest.approx(after.emd(metric).mean(), abs=1e-12)
    assert (assignment == grouping.assignment).all()
    assert grouping.emd_trace is not None
    assert grouping.emd_trace[0] == pytest.approx(aware.emd(metric), abs=1e-12)
    assert grouping.emd_trace[-1] == pytest.approx(grouping.emd(metric), abs=1e-12)
    if grouping.swaps:
        assert grouping.swaps[-1].iteration <= len(grouping.emd_trace) - 2


def test_a_lasting_limit_outlives_redrawn_links() -> None:
    fleet = cifar_like(56, seed=3)
    aware = wb.NetworkAwareGrouping().group(fleet, 7)
    slow = fleet.with_rates(slowest_of_tiers(fleet))

    def at_worst(grouping: wb.Grouping) -> float:
        moved = wb.Grouping.from_dict(grouping.to_dict(), slow)
        return float(moved.round_duration_s(CANDIDATE_BYTES).max())

    lasting, passing = (
        wb.AnnealedGrouping(lasting=lasting, proposals=20_000).group(
            fleet, 7, sizes_bytes=CANDIDATE_BYTES
        )
        for lasting in (True, False)
    )
    assert at_worst(lasting) <= at_worst(aware)
    assert at_worst(passing) > at_worst(aware), "or this test proves nothing"
    for grouping in (lasting, passing):
        duration_s = grouping.round_duration_s(CANDIDATE_BYTES).max()
        assert duration_s <= aware.round_duration_s(CANDIDATE_BYTES).max()


def test_a_rate_below_its_tier_counts_as_it_is() -> None:
    fleet = cifar_like(28, seed=1)
    rates = fleet.rate_bps.copy()
    rates[5] = 1e5
    fleet = fleet.with_rates(rates)
    grouping = wb.AnnealedGrouping(proposals=5000).group(fleet, 7, sizes_bytes=CANDIDATE_BYTES)
    assert grouping.assignment[5] == 6


def test_more_alike_than_netdag_at_the_same_duration() -> None:
    fleet = cifar_like(210, seed=0)
    given_sizes = {"sizes_bytes": CANDIDATE_BYTES}
    annealed = wb.AnnealedGrouping().group(fleet, 7, **given_sizes)
    exact = wb.NetDAG(max_slowdown=1.0).group(fleet, 7, **given_sizes)
    assert annealed.emd().mean() < 0.7 * exact.emd().mean()
    assert annealed.round_duration_s(CANDIDATE_BYTES).max() <= (
        exact.round_duration_s(CANDIDATE_BYTES).max()
    )


def test_the_seed_decides() -> None:
    fleet = cifar_like(56, seed=0)

    def assignment(seed: int, iteration: int = 0) -> list[int]:
        strategy = wb.AnnealedGrouping(seed=seed, proposals=20_000)
        return strategy.group(
            fleet, 7, sizes_bytes=CANDIDATE_BYTES, iteration=iteration
        ).assignment.tolist()

    assert assignment(1) == assignment(1) == assignment(1, iteration=5)
    assert assignment(1) != assignment(2)


def test_without_proposals_it_is_netdag() -> None:
    fleet = cifar_like(56, seed=0)
    nothing = wb.AnnealedGrouping(max_slowdown=1.1, lasting=False, proposals=0)
    exact = wb.NetDAG(max_slowdown=1.1)
    left, right = (
        strategy.group(fleet, 7, sizes_bytes=CANDIDATE_BYTES) for strategy in (nothing, exact)
    )
    assert left.assignment.tolist() == right.assignment.tolist()
    assert left.swaps == right.swaps


@pytest.mark.parametrize(
    "counts",
    [np.zeros((6, 3)), np.ones((6, 3)), np.vstack([np.zeros((5, 3)), [[4, 0, 0]]])],
    ids=["no samples", "all alike", "one client with samples"],
)
def test_fleets_with_nothing_to_gain(counts: NDArray[np.float64]) -> None:
    fleet = wb.Fleet.from_label_counts(counts, seed=1)
    grouping = wb.AnnealedGrouping(proposals=1000).group(fleet, 3, sizes_bytes=SIZES)
    assert np.isfinite(grouping.emd()).all()
    assert grouping.sizes().tolist() == [2, 2, 2]


def test_one_group_and_one_client() -> None:
    one_group = wb.AnnealedGrouping(proposals=100).group(random_fleet(5, 0), 1, sizes_bytes=[1e6])
    assert one_group.assignment.tolist() == [0] * 5
    one_client = wb.AnnealedGrouping(proposals=100).group(random_fleet(1, 0), 1, sizes_bytes=[1e6])
    assert one_client.assignment.tolist() == [0]


def test_a_dead_link_leaves_no_limit() -> None:
    fleet = random_fleet(9, 2)
    rates = fleet.rate_bps.copy()
    rates[0] = 0
    grouping = wb.AnnealedGrouping(proposals=1000).group(
        fleet.with_rates(rates), 3, sizes_bytes=SIZES
    )
    assert grouping.round_duration_s(SIZES).max() == np.inf
    assert grouping.sizes().tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_slowdown", 0.9),
        ("max_slowdown", float("nan")),
        ("coeff", 0),
        ("coeff", 1.1),
        ("max_iter", -1),
        ("metric", "l2"),
        ("proposals", -1),
        ("seed", -1),
        ("unknown", 1),
    ],
)
def test_wrong_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        wb.AnnealedGrouping(**{field: value})  # type: ignore[arg-type]


def test_a_limit_needs_the_sizes() -> None:
    with pytest.raises(ValueError, match="max_slowdown is 1, which needs sizes_bytes"):
        wb.AnnealedGrouping().group(random_fleet(5, 0), 2)
    wb.AnnealedGrouping(max_slowdown=None, proposals=10).group(random_fleet(5, 0), 2)


def test_settings_go_into_a_config_and_back() -> None:
    strategy = wb.AnnealedGrouping(max_slowdown=None, metric="chord", seed=4)
    assert config.restore(config.describe(strategy)) == strategy


@given(st.integers(1, 5), st.lists(st.integers(0, 4), max_size=30), st.randoms())
def test_exchanges_lead_there_and_never_in_vain(
    groups: int, start: list[int], generator: object
) -> None:
    before = np.array([group % groups for group in start], dtype=np.int64)
    after = before.copy()
    generator.shuffle(after)  # type: ignore[attr-defined]  # random.Random
    now = before.copy()
    for group, neighbour, client, partner in exchanges(before, after):
        assert (now[client], now[partner]) == (group, neighbour)
        assert group != neighbour
        wrong = (now != after).sum()
        now[client], now[partner] = neighbour, group
        assert (now != after).sum() < wrong
    assert (now == after).all()
