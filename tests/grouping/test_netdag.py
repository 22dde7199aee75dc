"""NetDAG against the published results, and against exact arithmetic on random fleets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.grouping.brute import Brute
from workbench.fleet import Fleet
from workbench.grouping import netdag
from workbench.grouping.baselines import NetworkAwareGrouping
from workbench.grouping.netdag import NetDAG, neighbours, visiting_order

GOLDENS = sorted((Path(__file__).parent / "goldens").glob("*.npz"))


@pytest.fixture(params=GOLDENS, ids=[path.stem for path in GOLDENS])
def golden(request):
    """Inputs and results of the published code, in the order in which it visits the rows."""
    data = dict(np.load(request.param))
    order = data["row_order"]
    return {
        "order": order,
        "inputs": (
            data["label_counts"][order],
            np.unique(data["tier"], return_inverse=True)[1][order],
            data["initial_group"][order] - 1,
        ),
        "final": data["final_group"][order] - 1,
        # The groups stand in the file from the last to the first.
        "scores": data["all_scores"][:, ::-1],
        "swaps": data["swaps"],
        "means": data["swap_avg_emd"],
    }


@pytest.mark.parametrize("large", [10**12, 0], ids=["all pairs", "bounds"])
def test_reproduces_the_published_swaps_groups_and_scores(golden, large, monkeypatch):
    monkeypatch.setattr(netdag, "LARGE", large)
    result = NetDAG(coeff=0.9, max_iter=10, metric="chord").refine(*golden["inputs"])
    order = golden["order"]
    swaps = [(order[swap.client], order[swap.partner]) for swap in result.swaps]
    np.testing.assert_array_equal(swaps, golden["swaps"])
    np.testing.assert_array_equal(result.assignment, golden["final"])
    np.testing.assert_allclose(result.emd_trace, golden["scores"], rtol=0, atol=1e-12)
    means = [swap.mean_emd for swap in result.swaps]
    np.testing.assert_allclose(means, golden["means"], rtol=0, atol=1e-12)


def test_a_fleet_gives_the_published_groups_whatever_the_order_of_its_rows():
    data = np.load(GOLDENS[-1])
    order = data["row_order"]
    tier = np.unique(data["tier"], return_inverse=True)[1]
    fleet = Fleet.from_label_counts(
        data["label_counts"][order], tier=tier[order], rate_bps=data["bandwidth"][order]
    )
    start = NetworkAwareGrouping().group(fleet, 7)
    np.testing.assert_array_equal(start.assignment, data["initial_group"][order] - 1)
    result = NetDAG(metric="chord").group(fleet, 7)
    np.testing.assert_array_equal(result.assignment, data["final_group"][order] - 1)

    back = np.argsort(order)
    shuffled = Fleet.from_label_counts(
        data["label_counts"], tier=tier, rate_bps=fleet.rate_bps[back]
    )
    again = NetDAG(metric="chord").group(shuffled, 7)
    # Rows of equal rate are visited in row order, so the groups may differ, but not by much.
    assert again.emd("chord").mean() == pytest.approx(result.emd("chord").mean(), rel=0.5)
    for swap in again.swaps:
        assert swap.client != swap.partner


@st.composite
def fleets(draw):
    """Small fleets with everything awkward: ties, empty groups and classes, clients away."""
    clients = draw(st.integers(1, 11))
    classes = draw(st.integers(1, 5))
    groups = draw(st.integers(1, 5))
    most = draw(st.sampled_from([1, 3, 20, 300]))
    count = st.one_of(st.just(0), st.integers(0, most))
    row = st.lists(count, min_size=classes, max_size=classes)
    kinds = draw(st.lists(row, min_size=1, max_size=clients))
    away = -1 if draw(st.booleans()) else 0

    def each(values):
        return draw(st.lists(values, min_size=clients, max_size=clients))

    return {
        "label_counts": np.array(each(st.sampled_from(kinds))),
        "tier": np.array(each(st.integers(0, 2))),
        "assignment": np.array(each(st.integers(away, groups - 1))),
        "groups": groups,
        "coeff": draw(st.sampled_from([0.1, 0.5, 0.75, 0.9, 0.99, 1.0])),
        "max_iter": draw(st.integers(0, 6)),
        "allowed": (
            None
            if draw(st.booleans())
            else np.array(each(st.lists(st.booleans(), min_size=groups, max_size=groups)))
        ),
    }


@pytest.mark.parametrize("metric", ["l1", "chord"])
@settings(max_examples=300)
@given(case=fleets())
def test_equals_exact_arithmetic_on_random_fleets(metric, case):
    given_as = (case["label_counts"], case["tier"], case["assignment"])
    brute = Brute(*given_as, case["groups"], metric, case["allowed"]).run(
        case["coeff"], case["max_iter"]
    )
    strategy = NetDAG(coeff=case["coeff"], max_iter=case["max_iter"], metric=metric)
    for large in (10**12, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(netdag, "LARGE", large)
            result = strategy.refine(*given_as, groups=case["groups"], allowed=case["allowed"])
        assert [(swap.client, swap.partner) for swap in result.swaps] == brute.swaps
        assert result.assignment.tolist() == brute.assignment
        exact = np.array(brute.trace, dtype=np.float64)
        np.testing.assert_allclose(result.emd_trace, exact, rtol=0, atol=1e-12)
        np.testing.assert_allclose(result.emd(metric), exact[-1], rtol=0, atol=1e-12)


def dirichlet_counts(clients, seed, *, classes=10, alpha=0.3, size=120):
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet([alpha] * classes, clients)
    return np.round(shares * generator.lognormal(np.log(size), 0.6, (clients, 1))).astype(int)


@pytest.mark.parametrize("metric", ["l1", "chord"])
@pytest.mark.parametrize("coeff", [0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    "kind", ["dirichlet", "one class each", "small counts", "one tier", "restricted", "two groups"]
)
def test_bounds_decide_like_scoring_every_pair(metric, coeff, kind, monkeypatch):
    seed = 11
    generator = np.random.default_rng(seed)
    clients, groups = 900, 2 if kind == "two groups" else 7
    counts = dirichlet_counts(clients, seed)
    if kind == "one class each":
        counts = 50 * np.eye(6, dtype=int)[generator.integers(0, 6, clients)]
    if kind == "small counts":
        counts = generator.poisson(0.7, (clients, 4))
    tier = np.sort(generator.integers(0, 1 if kind == "one tier" else 14, clients))
    assignment = (groups - 1) - np.arange(clients) * groups // clients
    allowed = generator.random((clients, groups)) < 0.5 if kind == "restricted" else None
    strategy = NetDAG(coeff=coeff, metric=metric, max_iter=4)
    results = []
    for large in (10**12, 0):
        monkeypatch.setattr(netdag, "LARGE", large)
        results.append(strategy.refine(counts, tier, assignment, groups=groups, allowed=allowed))
    every_pair, bounds = results
    assert bounds.swaps == every_pair.swaps
    np.testing.assert_array_equal(bounds.assignment, every_pair.assignment)
    assert every_pair.swaps or coeff < 0.9


@pytest.mark.data
def test_bounds_decide_like_scoring_every_pair_on_celeba(workbench_data, monkeypatch):
    with np.load(workbench_data / "celeba_labels.npz") as data:
        kind = data["smiling"] + 2 * data["male"] + 4 * data["mouth_slightly_open"]
        _, owner, images = np.unique(data["identity"], return_inverse=True, return_counts=True)
    counts = np.zeros((len(images), 8), dtype=np.int64)
    np.add.at(counts, (owner, kind), 1)
    fleet = Fleet.from_label_counts(counts[images >= 5], seed=3)
    assert len(fleet) == 9343
    results = []
    for large in (10**12, netdag.LARGE):
        monkeypatch.setattr(netdag, "LARGE", large)
        results.append(NetDAG(max_iter=3).group(fleet, 7))
    assert results[0].swaps == results[1].swaps
    assert len(results[0].swaps) > 5


def test_the_order_of_visits_and_neighbours_is_that_of_the_text():
    assert visiting_order(7, 0) == [1, 2, 3, 4, 5, 6, 0]
    assert visiting_order(7, 1) == [2, 3, 4, 5, 6, 0, 1]
    assert visiting_order(1, 5) == [0]
    assert neighbours(3, 7) == [2, 4, 1, 5]
    assert neighbours(0, 7) == [1, 2]
    assert neighbours(6, 7) == [5, 4]
    assert neighbours(0, 1) == []


def test_groups_keep_their_number_of_clients_and_the_mean_falls_with_each_swap():
    counts = dirichlet_counts(56, 5)
    tier, assignment = np.arange(56) // 4, 6 - np.arange(56) // 8
    result = NetDAG().refine(counts, tier, assignment)
    assert result.sizes().tolist() == [8] * 7
    means = [result.emd_trace[0].mean(), *(swap.mean_emd for swap in result.swaps)]
    assert (np.diff(means) < 0).all()
    assert means[-1] == pytest.approx(result.emd().mean(), abs=1e-12)


def test_clients_without_samples_divide_nothing_by_zero():
    counts = np.zeros((6, 3), dtype=int)
    for metric in ("l1", "chord"):
        nobody = NetDAG(metric=metric).refine(counts, np.zeros(6, int), [0, 0, 1, 1, 2, 2])
        assert nobody.emd(metric).tolist() == [0, 0, 0]
        assert not nobody.swaps
        counts[0, 1] = 4
        someone = NetDAG(metric=metric).refine(counts, np.zeros(6, int), [0, 0, 1, 1, 2, 2])
        assert someone.emd(metric).tolist() == [0, 1, 1]
        assert np.isfinite(someone.emd_trace).all()
        counts[0, 1] = 0


def test_clients_that_are_away_stay_away_and_do_not_count():
    counts, tier = dirichlet_counts(30, 6), np.arange(30) // 3
    assignment = np.arange(30) % 3
    assignment[::5] = -1
    here = assignment >= 0
    result = NetDAG().refine(counts, tier, assignment)
    without = NetDAG().refine(counts[here], tier[here], assignment[here])
    assert (result.assignment[::5] == -1).all()
    np.testing.assert_array_equal(result.assignment[here], without.assignment)
    np.testing.assert_array_equal(result.emd_trace, without.emd_trace)


@pytest.mark.parametrize(
    ("settings_of_it", "name", "value"),
    [
        ({"coeff": 0}, "coeff", "0"),
        ({"coeff": 1.01}, "coeff", "1.01"),
        ({"coeff": float("nan")}, "coeff", "nan"),
        ({"max_iter": -1}, "max_iter", "-1"),
        ({"metric": "l2"}, "metric", "l2"),
        ({"max_slowdown": 0.9}, "max_slowdown", "0.9"),
        ({"max_slowdown": float("nan")}, "max_slowdown", "nan"),
        ({"coef": 0.9}, "coef", "0.9"),
    ],
)
def test_wrong_settings_are_named_at_construction(settings_of_it, name, value):
    with pytest.raises(ValueError, match=rf"(?s){name}.*{value}"):
        NetDAG(**settings_of_it)


@pytest.mark.parametrize(
    ("label_counts", "tier", "assignment", "message"),
    [
        ([[1, -2]], [0], [0], r"label_counts\[0, 1\] is -2"),
        ([[1.0, float("nan")]], [0], [0], r"label_counts\[0, 1\] is nan"),
        ([[1.5, 2.0]], [0], [0], r"label_counts\[0, 0\] is 1.5"),
        ([["a", "b"]], [0], [0], "label_counts must be numbers"),
        ([1, 2], [0], [0], r"label_counts must have the shape .* got \(2,\)"),
        ([[1, 2]], [0, 1], [0], r"tier must have the shape \(1,\), got \(2,\)"),
        ([[1, 2]], [0.5], [0], "tier must be whole numbers"),
        ([[1, 2]], [0], [0, 0], r"assignment must have the shape \(1,\)"),
        ([[1, 2]], [0], [-2], r"assignment\[0\] is -2"),
        ([[1, 2]], [0], [7], r"assignment\[0\] is 7; allowed are 0..1"),
        ([[1, 2]], [0], [-1], None),
    ],
)
def test_wrong_arrays_are_named(label_counts, tier, assignment, message):
    if message is None:
        assert not NetDAG().refine(label_counts, tier, assignment, groups=2).swaps
        return
    with pytest.raises(ValueError, match=message):
        NetDAG().refine(label_counts, tier, assignment, groups=2)


def test_allowed_must_be_one_boolean_for_each_client_and_group():
    with pytest.raises(ValueError, match=r"allowed must be .*\(2, 2\), got bool of \(2, 3\)"):
        NetDAG().refine([[1], [1]], [0, 0], [0, 1], allowed=np.ones((2, 3), dtype=bool))
