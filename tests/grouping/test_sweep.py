"""What-if tables tell what NetDAG would do, one row a setting."""

from __future__ import annotations

import numpy as np
import pytest

from tests.grouping.fleets import CANDIDATE_BYTES, cifar_like
from workbench.grouping.netdag import NetDAG
from workbench.grouping.sweep import sweep


def test_a_row_tells_what_its_netdag_does():
    fleet = cifar_like(56, 2)
    table = sweep(fleet, CANDIDATE_BYTES, coeff=[0.5, 0.9], max_slowdown=[None, 1.1])
    assert table["coeff"].tolist() == [0.5, 0.9, 0.5, 0.9]
    assert table["max_slowdown"].tolist() == [np.inf, np.inf, 1.1, 1.1]
    for row in table.itertuples():
        limit = None if row.max_slowdown == np.inf else row.max_slowdown
        grouping = NetDAG(coeff=row.coeff, max_slowdown=limit).group(
            fleet, 7, sizes_bytes=CANDIDATE_BYTES
        )
        assert row.emd == pytest.approx(grouping.emd().mean())
        assert row.duration_s == grouping.round_duration_s(CANDIDATE_BYTES).max()
        assert row.swaps == len(grouping.swaps)
        assert row.seconds > 0


def test_a_sweep_can_use_another_metric_and_fewer_iterations():
    fleet = cifar_like(56, 2)
    table = sweep(fleet, CANDIDATE_BYTES, coeff=[0.9], metric="chord", max_iter=1)
    grouping = NetDAG(metric="chord", max_iter=1).group(fleet, 7)
    assert table["emd"][0] == pytest.approx(grouping.emd("chord").mean())
    assert table["swaps"][0] == len(grouping.swaps)


def test_models_of_one_size_take_the_number_of_groups():
    fleet = cifar_like(56, 2)
    table = sweep(fleet, 1e6, coeff=[0.9], groups=4)
    grouping = NetDAG().group(fleet, 4)
    assert table["duration_s"][0] == grouping.round_duration_s([1e6] * 4).max()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coeff": [0.5, 0]}, r"(?s)coeff.*0"),
        ({"coeff": []}, r"coeff is \[\], but must be a list"),
        ({"coeff": 0.5}, r"coeff is 0\.5, but must be a list"),
        ({"max_slowdown": [0.5]}, r"(?s)max_slowdown.*0\.5"),
        ({"groups": 3}, "groups is 3, but there are 7 sizes"),
        ({"sizes": 1e6}, "groups must say how many"),
        ({"sizes": [1, 2]}, "sizes_bytes must be descending"),
    ],
)
def test_wrong_values_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        sweep(cifar_like(28, 2), **{"sizes": CANDIDATE_BYTES, **given})
