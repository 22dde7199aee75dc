"""Studies tell what each grouping is like, and which beat it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.grouping.fleets import CANDIDATE_BYTES, cifar_like
from workbench.grouping.baselines import NetworkAwareGrouping
from workbench.grouping.study import beaten, study


def test_to_beat_is_to_be_lower_in_both():
    table = pd.DataFrame(
        [
            {"strategy": "a", "emd": 1.0, "duration_s": 5.0},
            {"strategy": "a", "emd": 3.0, "duration_s": 7.0},
            {"strategy": "b", "emd": 1.5, "duration_s": 5.5},
            {"strategy": "c", "emd": 1.5, "duration_s": 4.0},
        ]
    )
    assert beaten(table) == {"a": ["b", "c"], "b": [], "c": []}


def test_a_study_tells_what_each_grouping_is_like():
    fleet = cifar_like(28, 1)
    table = study([fleet, fleet], CANDIDATE_BYTES, {"aware": NetworkAwareGrouping()})
    grouping = NetworkAwareGrouping().group(fleet, 7)
    assert table["fleet"].tolist() == [0, 1]
    np.testing.assert_array_equal(table["slowdown"], 1)
    np.testing.assert_allclose(table["emd"], grouping.emd().mean())
    np.testing.assert_allclose(
        table["duration_s"], grouping.round_duration_s(CANDIDATE_BYTES).max()
    )
    chord = study([fleet], CANDIDATE_BYTES, {"aware": NetworkAwareGrouping()}, metric="chord")
    assert chord["emd"][0] == pytest.approx(grouping.emd("chord").mean())
