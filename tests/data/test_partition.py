"""Partitions: every sample once, the right shares, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.partition import by_identity, dirichlet, iid, three_way_split, train_test_split

SEEDS = st.integers(0, 2**31)
ALPHAS = st.one_of(st.floats(1e-3, 1e3), st.sampled_from([1e-300, 1e-12, 1e12]))


def check_disjoint(parts, samples: int, *, complete: bool = True) -> None:
    together = np.concatenate([*parts, np.array([], dtype=np.int64)])
    assert len(np.unique(together)) == len(together)
    if complete:
        assert sorted(together) == list(range(samples))
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@given(st.data(), ALPHAS, SEEDS)
def test_dirichlet_gives_each_sample_to_one_client(data, alpha, seed):
    labels = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=60))
    clients = data.draw(st.integers(1, len(labels)))
    parts = dirichlet(labels, clients, alpha, seed=seed)
    assert len(parts) == clients
    check_disjoint(parts, len(labels))
    again = dirichlet(labels, clients, alpha, seed=seed)
    assert all((one == other).all() for one, other in zip(parts, again, strict=True))


def test_dirichlet_shares_have_the_variance_of_the_distribution():
    clients, alpha, size = 10, 0.3, 1000
    labels = np.repeat(np.arange(400), size)
    parts = dirichlet(labels, clients, alpha, seed=1)
    shares = np.stack([np.bincount(labels[part], minlength=400) for part in parts]) / size
    # A share of a symmetric Dirichlet is Beta(alpha, (N - 1) alpha).
    variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    assert shares.mean() == pytest.approx(1 / clients)
    assert shares.var() == pytest.approx(variance, rel=0.1)


def test_alpha_decides_how_many_classes_a_client_has():
    labels = np.repeat(np.arange(10), 500)
    classes = [
        np.mean([len(np.unique(labels[part])) for part in dirichlet(labels, 20, alpha, seed=0)])
        for alpha in (0.02, 0.3, 100)
    ]
    assert classes[0] < 3 < classes[1] < classes[2] == 10


@given(st.integers(1, 200), st.data(), SEEDS)
def test_iid_parts_differ_by_one_at_most(samples, data, seed):
    clients = data.draw(st.integers(1, samples))
    parts = iid(samples, clients, seed=seed)
    check_disjoint(parts, samples)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_iid_is_shuffled():
    first = iid(1000, 2, seed=0)[0]
    assert 400 < first.mean() < 600
    assert (first != iid(1000, 2, seed=1)[0]).any()


@given(st.lists(st.integers(0, 9), max_size=80), st.integers(1, 5))
def test_by_identity_equals_a_dictionary(identity, min_samples):
    owned: dict[int, list[int]] = {}
    for row, owner in enumerate(identity):
        owned.setdefault(owner, []).append(row)
    expected = [owned[owner] for owner in sorted(owned) if len(owned[owner]) >= min_samples]
    if not expected:
        with pytest.raises(ValueError, match=f"min_samples = {min_samples}"):
            by_identity(identity, min_samples=min_samples)
        return
    parts = by_identity(identity, min_samples=min_samples)
    assert [part.tolist() for part in parts] == expected
    check_disjoint(parts, len(identity), complete=False)


def test_identities_may_be_names():
    parts = by_identity(["b", "a", "b"], min_samples=1)
    assert [part.tolist() for part in parts] == [[1], [0, 2]]


@given(
    st.lists(st.integers(0, 3), max_size=60),
    st.floats(0, 0.99),
    st.floats(0, 0.99),
    SEEDS,
)
def test_a_split_is_complete_and_has_the_right_sizes(labels, validation, test, seed):
    if validation + test >= 1:
        return
    labels = np.array(labels, dtype=np.int64)
    ((train, validated, tested),) = three_way_split(
        [np.arange(len(labels))],
        labels,
        validation_fraction=validation,
        test_fraction=test,
        seed=seed,
    )
    check_disjoint([train, validated, tested], len(labels))
    n = len(labels)
    assert len(train) >= min(n, 1)
    if n >= 2:
        assert (len(tested) > 0) == (test > 0)
    if n >= 3:
        assert (len(validated) > 0) == (validation > 0)
    if n >= 3 and n * min(validation or 1, test or 1) > 1 and n * (1 - validation - test) > 2:
        assert abs(len(tested) - n * test) <= 0.5 + 1e-9
        assert abs(len(validated) - n * validation) <= 0.5 + 1e-9
    # Each class is spread evenly: its share of the test samples is right up to one sample.
    for label in range(4):
        of_class = (labels == label).sum()
        share = of_class * len(tested) / max(n, 1)
        assert abs((labels[tested] == label).sum() - share) <= 1 + 1e-9


def test_a_clients_split_does_not_depend_on_the_others():
    labels = np.arange(100) % 5
    parts = [np.arange(0, 40), np.arange(40, 100)]
    both = train_test_split(parts, labels, test_fraction=0.25, seed=3)
    parts[0] = np.arange(0, 10)
    changed = train_test_split(parts, labels, test_fraction=0.25, seed=3)
    assert (both[1][1] == changed[1][1]).all()
    other_seed = train_test_split(parts, labels, test_fraction=0.25, seed=4)
    assert (other_seed[1][1] != changed[1][1]).any()


def test_one_sample_is_for_training_and_none_gives_nothing():
    splits = train_test_split(
        [np.array([5]), np.array([], dtype=np.int64)], np.zeros(6, int), test_fraction=0.9, seed=0
    )
    assert [(train.tolist(), test.tolist()) for train, test in splits] == [([5], []), ([], [])]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dirichlet([0.5, 1], 1, 1.0, seed=0), "labels must be whole numbers"),
        (lambda: dirichlet([[0]], 1, 1.0, seed=0), "labels must be whole numbers"),
        (lambda: iid(3, 4, seed=0), "clients is 4, but there are only 3 samples"),
        (lambda: by_identity([[1]], min_samples=1), "shape"),
        (lambda: by_identity([1], min_samples=0), "min_samples is 0"),
        (lambda: iid(3, 1, seed=-5), "seed is -5"),
    ],
)
def test_wrong_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
