"""Tier and constant schedules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from workbench.testbed.base import Schedule
from workbench.testbed.schedules import AnySchedule, ConstantSchedule, TierSchedule


def test_period_0_has_the_fleets_own_rates(counted_fleet):
    segment = TierSchedule(period_s=300, seed=1).segment(counted_fleet, 299.9)
    assert segment.until_s == 300
    assert (segment.down_bps == counted_fleet.rate_bps).all()
    assert (segment.up_bps == counted_fleet.rate_bps).all()


def test_later_periods_draw_from_each_clients_tier(counted_fleet):
    schedule = TierSchedule(period_s=10, seed=1)
    seen = [set() for _ in range(len(counted_fleet))]
    for period in range(1, 200):
        segment = schedule.segment(counted_fleet, period * 10)
        assert segment.until_s == (period + 1) * 10
        for row, rate in enumerate(segment.down_bps):
            seen[row].add(rate)
    for row, tier in enumerate(counted_fleet.tier):
        assert seen[row] == set(counted_fleet.tiers[tier].rates_bps)


def test_a_period_depends_on_seed_and_number_alone(counted_fleet):
    schedule = TierSchedule(period_s=10, seed=1)
    forwards = [schedule.segment(counted_fleet, 10 * k + 5).down_bps for k in range(20)]
    backwards = [
        TierSchedule(period_s=10, seed=1).segment(counted_fleet, 10 * k).down_bps
        for k in reversed(range(20))
    ][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    other = TierSchedule(period_s=10, seed=2).segment(counted_fleet, 15).down_bps
    assert (other != forwards[1]).any()
    # A longer period draws the same numbers, only later.
    slow = TierSchedule(period_s=300, seed=1).segment(counted_fleet, 300).down_bps
    np.testing.assert_array_equal(slow, forwards[1])


@given(st.floats(1e-3, 1e4), st.integers(0, 10**6))
def test_every_period_ends_after_the_time_asked_for(period_s, number):
    from workbench.fleet import Fleet

    fleet = Fleet.from_label_counts([[1]])
    time_s = number * period_s
    segment = TierSchedule(period_s=period_s).segment(fleet, time_s)
    assert time_s < segment.until_s <= time_s + period_s * (1 + 1e-9)


def test_constant(counted_fleet):
    segment = ConstantSchedule().segment(counted_fleet, 1e9)
    assert segment.until_s == math.inf
    assert (segment.up_bps == counted_fleet.rate_bps).all()


@pytest.mark.parametrize("schedule", [TierSchedule(period_s=5, seed=9), ConstantSchedule()])
def test_a_schedule_survives_its_config(schedule):
    adapter = TypeAdapter(AnySchedule)
    assert adapter.validate_json(adapter.dump_json(schedule)) == schedule
    assert isinstance(schedule, Schedule)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"period_s": 0}, "period_s"),
        ({"period_s": math.inf}, "period_s"),
        ({"period_s": math.nan}, "period_s"),
        ({"seed": -1}, "seed"),
        ({"period": 3}, "period"),
    ],
)
def test_wrong_values_are_refused_by_name(arguments, named):
    with pytest.raises(ValidationError, match=named):
        TierSchedule(**arguments)
