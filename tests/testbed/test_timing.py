"""The two ways to time a transfer, against a walk in exact fractions."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.testbed.timing import RateCurve, finish_by_curve, finish_by_segments

RATES = st.sampled_from([0, 0, 1, 3, 8, 1000, 2_500_000])
SIZES = st.integers(0, 5_000_000)
STARTS = st.integers(0, 60)


def exact_finish(segments, size: int, start: int) -> Fraction | float:
    """Walk through (until, rate) one by one; the last one holds for ever if it ends at inf."""
    left, now = Fraction(size), Fraction(start)
    if size == 0:
        return now
    for until, rate in segments:
        if until <= now:
            continue
        if rate and (until == math.inf or now + left / rate <= until):
            return now + left / rate
        if until == math.inf:
            return math.inf
        left -= rate * (until - now)
        now = Fraction(until)
    raise AssertionError("the oracle ran out of segments")


@st.composite
def links(draw):
    """Draw changes of rate, at times that all links share, and one list of rates a link."""
    edges = np.cumsum(draw(st.lists(st.integers(1, 20), min_size=0, max_size=6))).tolist()
    clients = draw(st.integers(1, 5))
    row = st.lists(RATES, min_size=len(edges) + 1, max_size=len(edges) + 1)
    rates = draw(st.lists(row, min_size=clients, max_size=clients))
    sizes = draw(st.lists(SIZES, min_size=clients, max_size=clients))
    starts = draw(st.lists(STARTS, min_size=clients, max_size=clients))
    return [*edges, math.inf], rates, sizes, starts


def test_one_transfer_by_hand():
    # 10 bit/s for 10 s, an outage of 10 s, then 1 bit/s: 104 bits from 2 s on.
    curve = RateCurve(np.array([0.0, 10, 20, 30]), np.array([10.0, 0, 1]), loop=False)
    finish = finish_by_curve(curve, np.array([80.0, 81, 104]), np.array([2.0, 2, 2]))
    assert finish.tolist() == pytest.approx([10, 21, 44])


@given(links())
def test_segments_equal_the_exact_walk(case):
    edges, rates, sizes, starts = case
    table = np.array(rates, dtype=float)

    def segment_at(time_s):
        place = next(k for k, until in enumerate(edges) if time_s < until)
        return table[:, place], edges[place]

    finish = finish_by_segments(segment_at, np.array(sizes, float), np.array(starts, float))
    expected = [
        float(exact_finish(list(zip(edges, row, strict=True)), size, start))
        for row, size, start in zip(rates, sizes, starts, strict=True)
    ]
    np.testing.assert_allclose(finish, expected, rtol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_fractional_numbers_too(seed):
    generator = np.random.default_rng(seed)
    steps, clients = int(generator.integers(1, 12)), 7
    edges = np.concatenate([[0], np.cumsum(generator.uniform(0.01, 30, steps))])
    rates = generator.uniform(1e3, 1e8, steps)
    sizes = generator.uniform(0, 1e9, clients)
    starts = generator.uniform(0, 1.5 * edges[-1], clients)
    segments = [*zip(edges[1:-1], rates, strict=False), (math.inf, rates[-1])]

    def segment_at(time_s):
        until, rate = next(pair for pair in segments if time_s < pair[0])
        return np.full(clients, rate), until

    expected = []
    for size, start in zip(sizes, starts, strict=True):
        exact = [(u if u == math.inf else Fraction(u), Fraction(r)) for u, r in segments]
        expected.append(float(exact_finish(exact, Fraction(size), Fraction(start))))
    np.testing.assert_allclose(finish_by_segments(segment_at, sizes, starts), expected, rtol=1e-9)
    curve = RateCurve(edges, rates, loop=False)
    np.testing.assert_allclose(finish_by_curve(curve, sizes, starts), expected, rtol=1e-9)


@st.composite
def recordings(draw):
    steps = draw(st.integers(1, 8))
    spans = draw(st.lists(st.integers(1, 5), min_size=steps, max_size=steps))
    rates = draw(st.lists(RATES, min_size=steps, max_size=steps))
    return np.concatenate([[0], np.cumsum(spans)]).tolist(), rates


@given(recordings(), st.booleans(), st.lists(st.tuples(SIZES, STARTS), min_size=1, max_size=6))
def test_curve_equals_the_exact_walk(recording, loop, transfers):
    edges, rates = recording
    curve = RateCurve(np.array(edges, float), np.array(rates, float), loop)
    sizes, starts = (np.array(column, float) for column in zip(*transfers, strict=True))
    finish = finish_by_curve(curve, sizes, starts)
    for end, (size, start) in zip(finish, transfers, strict=True):
        if loop and not any(rates):
            assert end == (math.inf if size else start)
            continue
        # A looped recording carries some bits each time: so many repetitions are enough, but
        # long ones are skipped in one step.
        if loop:
            total = sum(r * (b - a) for r, a, b in zip(rates, edges, edges[1:], strict=False))
            skipped = max(size // total - 1, 0)
            segments = [
                (edges[-1] * again + until, rate)
                for again in range(start // edges[-1] + 5)
                for until, rate in zip(edges[1:], rates, strict=True)
            ]
            expected = exact_finish(segments, size - skipped * total, start)
            expected += skipped * edges[-1]
        else:
            segments = [*zip(edges[1:-1], rates, strict=False), (math.inf, rates[-1])]
            expected = exact_finish(segments, size, start)
        assert end == pytest.approx(float(expected), rel=1e-9)


@given(recordings(), st.booleans(), st.lists(st.integers(0, 200), min_size=1, max_size=5))
def test_step_names_the_rate_and_the_next_change(recording, loop, times):
    edges, rates = recording
    curve = RateCurve(np.array(edges, float), np.array(rates, float), loop)
    rate, until = curve.step(np.array(times, float))
    for time, found_rate, found_until in zip(times, rate, until, strict=True):
        phase = time % edges[-1] if loop else time
        place = min(sum(edge <= phase for edge in edges) - 1, len(rates) - 1)
        assert found_rate == rates[place]
        if loop or place < len(rates) - 1:
            assert found_until == time - phase + edges[place + 1]
        else:
            assert found_until == math.inf


@given(st.floats(1e-3, 1e3), st.integers(1, 7), st.floats(0, 1e7), st.integers(0, 10_000))
def test_steps_of_any_width_always_lead_on(width, steps, time, repetitions):
    curve = RateCurve(np.arange(steps + 1) * width, np.ones(steps), loop=True)
    # At the very end of a repetition rounding is at its worst.
    for at in (time, repetitions * curve.duration_s):
        _, until = curve.step(np.array([at]))
        assert at < until[0] <= at + width * (1 + 1e-9) + 1e-6


def test_a_link_that_is_down_for_ever_never_ends():
    def outage(time_s):
        return np.zeros(2), time_s + 1

    finish = finish_by_segments(outage, np.array([8.0, 0]), np.array([0.0, 3]))
    assert finish.tolist() == [math.inf, 3]


def test_a_segment_that_does_not_lead_on_is_refused():
    with pytest.raises(ValueError, match="must end later"):
        finish_by_segments(lambda time_s: (np.ones(1), time_s), np.array([8.0]), np.zeros(1))


def test_times_between_transfers_are_skipped():
    asked = []

    def segment_at(time_s):
        asked.append(time_s)
        return np.full(2, 8.0), math.floor(time_s) + 1.0

    finish = finish_by_segments(segment_at, np.array([8.0, 8]), np.array([0.0, 1_000_000]))
    assert finish.tolist() == [1, 1_000_001]
    assert len(asked) < 5


def test_an_exact_multiple_of_a_recording_ends_before_its_last_outage():
    curve = RateCurve(np.array([0.0, 1, 10]), np.array([0.1, 0.0]), loop=True)
    finish = finish_by_curve(curve, np.array([0.1, 0.3, 0.7]), np.zeros(3))
    assert finish.tolist() == pytest.approx([1, 21, 61])


def test_a_transfer_that_ends_where_an_outage_begins_does_not_wait_for_its_end():
    # 0.1 x 3 and 0.3 differ in floating point.
    def segment_at(time_s):
        return np.full(2, 0.1 if time_s < 3 else 0.0), 3.0 if time_s < 3 else math.inf

    assert finish_by_segments(segment_at, np.array([0.3, 0.31]), np.zeros(2)).tolist() == [
        pytest.approx(3),
        math.inf,
    ]


@given(st.integers(0, 2**32 - 1))
def test_late_in_a_recording_too(seed):
    generator = np.random.default_rng(seed)
    # Up to 10 Gbit have passed before a transfer of some bits fills the time up to an outage.
    span, rate = generator.uniform(1, 100), generator.uniform(1e6, 1e8)
    curve = RateCurve(np.array([0, span, span + 1]), np.array([rate, 0]), loop=True)
    start = np.array([span * generator.uniform(0.999, 1)])
    finish = finish_by_curve(curve, (span - start) * rate, start)
    assert finish[0] == pytest.approx(span)


def test_timing_needs_neither_flower_nor_widgets():
    code = (
        "import sys, types\n"
        "package = types.ModuleType('workbench'); package.__path__ = ['workbench']\n"
        "sys.modules['workbench'] = package\n"
        "import workbench.testbed.timing\n"
        "assert not {'flwr', 'ipywidgets', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
