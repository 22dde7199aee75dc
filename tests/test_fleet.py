"""Fleets: who has which samples and which link."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.data.dataset import Dataset
from workbench.data.sources import ArraySource
from workbench.fleet import Fleet
from workbench.tiers import PAPER_TIERS, Tier


def tiny(labels, **options) -> Dataset:
    pixels = np.zeros((len(labels), 1, 8, 8), dtype=np.uint8)
    classes = [str(k) for k in range(max(labels) + 1)]
    return Dataset("tiny", labels, classes, ArraySource(pixels), mean=[0], std=[1], **options)


def everything(fleet: Fleet) -> np.ndarray:
    return np.concatenate([*fleet.train_indices, *fleet.validation_indices, *fleet.test_indices])


def test_dirichlet_gives_every_sample_to_one_client(digits):
    fleet = Fleet.dirichlet(digits, clients=56, alpha=0.3, seed=7)
    assert sorted(everything(fleet)) == list(range(len(digits)))
    for row in range(56):
        mine = np.concatenate([fleet.train_indices[row], fleet.test_indices[row]])
        counts = np.bincount(digits.labels[mine], minlength=10)
        assert (counts == fleet.label_counts[row]).all()
        if len(mine) > 1:
            assert len(fleet.test_indices[row]) == max(1, int(len(mine) / 4 + 0.5))
    assert (fleet.train_samples + fleet.test_samples == fleet.samples).all()
    assert fleet.validation_samples.sum() == 0


@pytest.mark.parametrize("clients", [56, 112, 210])
def test_the_papers_tiers_have_the_same_number_of_clients_each(digits, clients):
    fleet = Fleet.dirichlet(digits, clients=clients, alpha=0.3, seed=1)
    assert set(np.bincount(fleet.tier)) == {clients // 14}
    for tier, rate in zip(fleet.tier, fleet.rate_bps, strict=True):
        assert rate in PAPER_TIERS[tier].rates_bps


def test_the_same_seed_gives_the_same_fleet_whatever_numpys_global_state(digits):
    made = []
    for state in (1, 2):
        np.random.seed(state)  # noqa: NPY002  # the point of the test
        made.append(Fleet.dirichlet(digits, clients=20, alpha=0.3, seed=7).fingerprint())
    made.append(Fleet.dirichlet(digits, clients=20, alpha=0.3, seed=8).fingerprint())
    assert made[0] == made[1] != made[2]


def test_the_fingerprint_sees_every_part(digits):
    options = {"clients": 10, "alpha": 0.5, "seed": 1}
    fleet = Fleet.dirichlet(digits, **options)
    others = [
        fleet.with_rates(fleet.rate_bps * 2),
        Fleet.dirichlet(digits, **options, test_fraction=0.5),
        Fleet.dirichlet(digits, **options, validation_fraction=0.25),
        Fleet.dirichlet(digits, **options, tiers=PAPER_TIERS[:13]),
    ]
    assert len({fleet.fingerprint(), *(other.fingerprint() for other in others)}) == 5


def test_a_client_too_small_to_split_trains_and_one_without_samples_takes_no_part():
    # One class, alpha so small that nearly everything goes to one of 20 clients.
    fleet = Fleet.dirichlet(tiny([0] * 20), clients=20, alpha=0.01, seed=3)
    assert (fleet.samples == 0).any()
    assert (fleet.can_train == (fleet.samples > 0)).all()
    parts = [np.array([0]), np.array([], dtype=np.int64), np.array([1, 2])]
    fleet = Fleet.from_partition(tiny([0, 1, 1]), parts, seed=0)
    assert fleet.train_samples.tolist() == [1, 0, 1]
    assert fleet.test_samples.tolist() == [0, 0, 1]
    assert fleet.can_train.tolist() == [True, False, True]


def test_six_two_two(digits):
    fleet = Fleet.iid(digits, clients=10, test_fraction=0.2, validation_fraction=0.2)
    assert sorted(everything(fleet)) == list(range(len(digits)))
    np.testing.assert_allclose(fleet.train_samples / fleet.samples, 0.6, atol=0.01)
    np.testing.assert_allclose(fleet.validation_samples / fleet.samples, 0.2, atol=0.01)
    assert fleet.settings["validation_fraction"] == 0.2


def test_only_the_clients_images_are_given_out(digits):
    reserved = digits.reserve_for_server(0.1, seed=4)
    for fleet in (
        Fleet.dirichlet(reserved, clients=7, alpha=1.0),
        Fleet.iid(reserved, clients=7),
        Fleet.by_identity(reserved, np.arange(len(digits)) % 50),
    ):
        assert sorted(everything(fleet)) == reserved.client_indices.tolist()


def test_by_identity():
    identity = [3, 3, 3, 1, 1, 7]
    dataset = tiny([0, 1, 0, 1, 1, 0], identity=identity)
    fleet = Fleet.by_identity(dataset, min_samples=2, test_fraction=0)
    assert [part.tolist() for part in fleet.train_indices] == [[3, 4], [0, 1, 2]]
    assert fleet.label_counts.tolist() == [[0, 2], [2, 1]]
    with pytest.raises(ValueError, match="min_samples = 4 samples; the largest has 3"):
        Fleet.by_identity(dataset, min_samples=4)
    with pytest.raises(ValueError, match="names nobody"):
        Fleet.by_identity(tiny([0, 1]))
    with pytest.raises(ValueError, match=r"shape \(6,\), got \(2,\)"):
        Fleet.by_identity(dataset, [1, 2])


def test_label_counts_alone():
    fleet = Fleet.from_label_counts(
        [[1, 2], [0, 0]], tier=[13, 0], rate_bps=[1e6, 2e6], names=["a", "b"]
    )
    assert len(fleet) == 2
    assert fleet.samples.tolist() == [3, 0]
    assert fleet.can_train.tolist() == [True, False]
    assert fleet.index("b") == fleet.index(1) == 1
    assert fleet.table()["tier"].tolist() == ["41", "11"]
    assert "2 clients" in fleet._repr_html_()
    drawn = Fleet.from_label_counts([[1]], tier=[13])
    assert drawn.rate_bps[0] in PAPER_TIERS[13].rates_bps


def test_the_class_names_stay_with_rates_replaced(small_fleet):
    faster = small_fleet.with_rates(np.full(14, 5e6))
    assert (faster.rate_bps == 5e6).all()
    assert (faster.label_counts == small_fleet.label_counts).all()
    assert (small_fleet.rate_bps != 5e6).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_counts": [1, 2]}, "shape"),
        ({"label_counts": [[1, -1]]}, r"label_counts\[0, 1\] is -1"),
        ({"label_counts": [[0.5]]}, "whole numbers"),
        ({"label_counts": [[np.nan]]}, "whole numbers"),
        ({"label_counts": [[1]], "tier": [14]}, r"tier\[0\] is 14; tiers are numbered 0..13"),
        ({"label_counts": [[1]], "tier": [0.5]}, r"tier\[0\] is 0.5"),
        ({"label_counts": [[1]], "tier": [0, 1]}, "tier must have the shape"),
        ({"label_counts": [[1]], "rate_bps": [-1]}, r"rate_bps\[0\] is -1"),
        ({"label_counts": [[1]], "rate_bps": [np.inf]}, r"rate_bps\[0\] is inf"),
        ({"label_counts": [[1]], "names": []}, "names must be 1 different"),
        ({"label_counts": [[1], [1]], "names": ["a", "a"]}, "names must be 2 different"),
        ({"label_counts": [[1]], "tiers": []}, "at least one tier"),
        ({"label_counts": [[1]], "seed": -1}, "seed is -1"),
    ],
)
def test_wrong_counts_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        Fleet.from_label_counts(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clients": 0}, "clients is 0"),
        ({"clients": 1798}, "clients is 1798, but there are only 1797 samples"),
        ({"alpha": 0}, "alpha is 0"),
        ({"alpha": -1}, "alpha is -1"),
        ({"alpha": np.nan}, "alpha is nan"),
        ({"alpha": np.inf}, "alpha is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"test_fraction": 1}, "test_fraction is 1"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1"),
        ({"test_fraction": 0.6, "validation_fraction": 0.4}, "nothing for training"),
    ],
)
def test_wrong_fleets_are_refused_by_name(digits, arguments, message):
    with pytest.raises(ValueError, match=message):
        Fleet.dirichlet(digits, **{"clients": 4, "alpha": 0.3, **arguments})


def test_unknown_clients_are_named(small_fleet):
    with pytest.raises(KeyError, match="no client 'x'; there are client-0 … client-13"):
        small_fleet.index("x")
    with pytest.raises(KeyError, match=r"no client 14; there are 0\.\.13"):
        small_fleet.index(14)
    with pytest.raises(ValueError, match="parts is empty"):
        Fleet.from_partition(tiny([0]), [])


def test_a_tier_table_of_ones_own(digits):
    tiers = (
        Tier(name="slow", tier_class="low", low_bps=1e6, high_bps=1e6, step_bps=1e6),
        Tier(name="fast", tier_class="high", low_bps=1e9, high_bps=1e9, step_bps=1e6),
    )
    fleet = Fleet.iid(digits, clients=8, tiers=tiers)
    assert sorted(fleet.rate_bps) == [1e6] * 4 + [1e9] * 4
