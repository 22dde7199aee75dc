"""Tiers: the paper's table, tables of one's own, and drawing from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workbench.tiers import PAPER_TIERS, Tier, assign_tiers, draw_rates, load_tiers

# In Mbit/s: first value, last value, step.
PAPER = {
    "11": (2.5, 3, 0.5), "12": (4, 5, 0.5), "13": (6, 7.5, 0.5), "21": (8.5, 11.5, 1),
    "22": (13, 15, 1), "23": (17, 24, 1), "24": (26, 29, 1), "25": (31, 33, 1),
    "31": (35, 39, 1), "32": (41, 54, 1), "33": (46, 64, 1), "34": (66, 74, 1),
    "35": (75, 99, 1), "41": (100, 380, 20),
}  # fmt: skip


def test_the_papers_tiers():
    assert [tier.name for tier in PAPER_TIERS] == list(PAPER)
    for tier in PAPER_TIERS:
        low, high, step = (1e6 * value for value in PAPER[tier.name])
        expected = [low + k * step for k in range(round((high - low) / step) + 1)]
        np.testing.assert_allclose(tier.rates_bps, expected)
        assert tier.tier_class == {"1": "low", "2": "medium"}.get(tier.name[0], "high")


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.integers(1, 10**9))
def test_rates_go_from_low_to_high_in_steps(low, width, step):
    tier = Tier(name="x", tier_class="low", low_bps=low, high_bps=low + width, step_bps=step)
    if width // step < 10**5:
        assert tier.rates_bps.tolist() == list(range(low, low + width + 1, step))


@given(st.integers(0, 200), st.integers(1, 20), st.integers(0, 99))
def test_tiers_are_dealt_out_evenly(clients, count, seed):
    tiers = [
        Tier(name=str(k), tier_class="low", low_bps=1, high_bps=1, step_bps=1) for k in range(count)
    ]
    tier = assign_tiers(clients, tiers, np.random.default_rng(seed))
    shares = np.bincount(tier, minlength=count)
    assert len(tier) == clients
    assert shares.max() - shares.min() <= (1 if clients % count else 0)


def test_what_is_left_over_is_spread_over_the_table():
    tier = assign_tiers(14 + 2, PAPER_TIERS, np.random.default_rng(0))
    assert np.flatnonzero(np.bincount(tier) == 2).tolist() == [3, 10]


def test_drawn_rates_are_equally_likely_rates_of_the_tier():
    tier = np.repeat(np.arange(14), 20_000)
    rates = draw_rates(tier, PAPER_TIERS, np.random.default_rng(1))
    for index, candidate in enumerate(PAPER_TIERS):
        values, counts = np.unique(rates[tier == index], return_counts=True)
        np.testing.assert_array_equal(values, candidate.rates_bps)
        # Five standard deviations of a binomial count.
        share = 20_000 / len(values)
        assert (abs(counts - share) < 5 * math.sqrt(share)).all()


def test_a_clients_draw_does_not_depend_on_the_others():
    tier = np.array([0, 13, 5, 7])
    one = draw_rates(tier, PAPER_TIERS, np.random.default_rng(1))
    tier[1] = 2
    other = draw_rates(tier, PAPER_TIERS, np.random.default_rng(1))
    assert (one == other).tolist() == [True, False, True, True]


def test_no_tier_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one tier"):
        assign_tiers(3, [], np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"low_bps": 0}, "low_bps"),
        ({"low_bps": math.nan}, "low_bps"),
        ({"high_bps": math.inf}, "high_bps"),
        ({"high_bps": 0.5}, "high_bps is 0.5, but must be at least low_bps = 1"),
        ({"step_bps": 0}, "step_bps"),
        ({"tier_class": "fast"}, "tier_class"),
        ({"name": ""}, "name"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_tiers_are_refused_by_name(change, named):
    good = {"name": "x", "tier_class": "low", "low_bps": 1, "high_bps": 2, "step_bps": 1}
    with pytest.raises(ValidationError, match=named):
        Tier(**{**good, **change})


COLUMNS = "name,class,low_bps,high_bps,step_bps\n"


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "tiers.csv"
    path.write_text("# slow ones\n" + COLUMNS + "a,low,1e6,2e6,5e5\nb,high,1e7,1e7,1e6\n")
    first, second = load_tiers(path)
    assert first.rates_bps.tolist() == [1e6, 1.5e6, 2e6]
    assert (second.name, second.tier_class) == ("b", "high")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns"),
        ("name,class,low_bps\n", r"columns \['high_bps', 'step_bps'\] are missing"),
        (COLUMNS, "no tier found"),
        (COLUMNS + "a,low,1,2,1\na,low,1,2,1\n", "tier 2: the name 'a' occurs twice"),
        (COLUMNS + "a,low,1,2,1\nb,low,fast,2,1\n", "tier 2.*low_bps"),
        (COLUMNS + "a,low,1\n", "tier 1"),
    ],
)
def test_a_wrong_table_is_refused_with_file_and_line(tmp_path, text, message):
    path = tmp_path / "tiers.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"(?s)tiers.csv.*{message}"):
        load_tiers(path)
