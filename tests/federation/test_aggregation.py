"""The streaming mean against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.federation.aggregation import WeightedMean, fused_mean
from workbench.federation.payload import PayloadError


@given(
    seed=st.integers(0, 2**32 - 1),
    samples=st.lists(st.integers(0, 1000), min_size=1, max_size=12),
)
def test_equals_the_mean_in_double_precision(seed: int, samples: list[int]) -> None:
    generator = np.random.default_rng(seed)
    sent = {"float32": generator.normal(size=200_000).astype(np.float32)}
    clients = [
        {"float32": sent["float32"] + generator.normal(0, 0.1, 200_000).astype(np.float32)}
        for _ in samples
    ]
    mean = WeightedMean(sent)
    for flat, count in zip(clients, samples, strict=True):
        given = flat["float32"].copy()
        mean.add({"float32": given}, count)
        given[:] = np.nan  # memory that was handed in belongs to somebody else afterwards
    result = mean.result()["float32"]
    if sum(samples) == 0:
        expected = sent["float32"].astype(np.float64)
    else:
        expected = np.average(
            [flat["float32"].astype(np.float64) for flat in clients], axis=0, weights=samples
        )
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    assert result.dtype == np.float32


def test_one_client_is_taken_bit_for_bit() -> None:
    generator = np.random.default_rng(0)
    sent = {"float32": generator.normal(size=100).astype(np.float32)}
    flat = {"float32": generator.normal(size=100).astype(np.float32)}
    mean = WeightedMean(sent)
    mean.add(flat, 13)
    assert np.array_equal(mean.result()["float32"], flat["float32"])


def test_counters_take_the_largest_value() -> None:
    mean = WeightedMean({"int64": np.array([2])})
    for count in (5, 9, 4):
        mean.add({"int64": np.array([count])}, 3)
    assert mean.result()["int64"].tolist() == [9]


def test_nothing_that_is_refused_leaves_a_trace() -> None:
    sent = {"float32": np.zeros(3, dtype=np.float32)}
    mean = WeightedMean(sent)
    mean.add({"float32": np.ones(3, dtype=np.float32)}, 1)
    for bad in (np.full(3, np.nan, np.float32), np.ones(4, np.float32)):
        with pytest.raises(PayloadError):
            mean.add({"float32": bad}, 1)
    mean.add({"float32": np.full(3, 3, np.float32)}, 1)
    assert mean.clients == 2
    assert mean.result()["float32"].tolist() == [2, 2, 2]


def test_accuracy_without_samples_is_nan() -> None:
    assert np.isnan(fused_mean(0, 0))
    assert fused_mean(3, 4) == 0.75
