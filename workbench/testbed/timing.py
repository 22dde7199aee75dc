"""How long a transfer takes over a link whose rate changes while it runs.

Two ways to the same answer, both vectorised over transfers. `finish_by_segments` walks through
time from one change of any link to the next and fits every schedule. `finish_by_curve` looks up
the answer in a cumulative sum and fits recordings with many changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

IDLE_SEGMENTS = 100_000
"""After so many segments in which no transfer moved, all that wait are taken to wait for ever."""

ROUNDING = 1e-12
"""A transfer of which no larger part is left has ended."""


def finish_by_segments(
    segment_at: Callable[[float], tuple[NDArray[np.float64], float]],
    size_bits: NDArray[np.float64],
    start_s: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return when each of m transfers ends.

    Parameters
    ----------
    segment_at
        Given a time in s, returns the rate of each transfer's link, (m,) in bit/s, 0 for an
        outage, and the time after the given one until which all of them hold (may be infinite).
    size_bits
        (m,) from 0 up.
    start_s
        (m,) when each transfer begins.

    Returns
    -------
    (m,) float64
        Times in s; infinity where the link never carries all bits. Nothing to carry takes no
        time.

    Raises
    ------
    ValueError
        If ``segment_at`` returns a time that does not lie after the one it was given.
    """
    finish = np.where(size_bits > 0, np.inf, start_s)
    left = np.array(size_bits, dtype=np.float64)
    waiting = np.flatnonzero(left > 0)
    now = float(start_s[waiting].min(initial=np.inf))
    idle = 0
    while waiting.size and idle < IDLE_SEGMENTS:
        rates, until = segment_at(now)
        if not until > now:
            raise ValueError(f"a segment that holds at {now} s must end later, got {until} s")
        rate, begin = rates[waiting], np.maximum(start_s[waiting], now)
        with np.errstate(divide="ignore"):
            end = begin + left[waiting] / rate
        done = end <= until  # at an infinite ``until`` this is all, an outage for ever included
        finish[waiting[done]] = end[done]
        waiting, rate, begin = waiting[~done], rate[~done], begin[~done]
        carried = rate * np.maximum(until - begin, 0) if waiting.size else rate
        left[waiting] -= carried
        # What is left of a transfer that ends at the change itself may be rounding alone.
        over = left[waiting] <= ROUNDING * size_bits[waiting]
        finish[waiting[over]] = until
        waiting = waiting[~over]
        idle = 0 if done.any() or (carried > 0).any() else idle + 1
        now = max(until, float(start_s[waiting].min(initial=np.inf))) if waiting.size else until
    return finish


@dataclass(frozen=True, eq=False)
class RateCurve:
    """A recorded rate: ``rate_bps[k]`` holds from ``time_s[k]`` to ``time_s[k + 1]``.

    Attributes
    ----------
    time_s
        (k + 1,) ascending from 0; the last one is the end of the recording.
    rate_bps
        (k,) from 0 up, 0 for an outage.
    loop
        Whether the recording begins again at its end; if not, its last rate stays.
    """

    time_s: NDArray[np.float64]
    rate_bps: NDArray[np.float64]
    loop: bool

    @property
    def duration_s(self) -> float:
        """Length of the recording."""
        return float(self.time_s[-1])

    def step(self, time_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return for each time the rate, and the time of the next step after it.

        A step need not change the rate. Without ``loop`` there is no step after the last one.
        """
        steps = len(self.rate_bps)
        if not self.loop:
            row = np.searchsorted(self.time_s[:-1], time_s, side="right") - 1
            last = row == steps - 1
            return self.rate_bps[row], np.where(last, np.inf, self.time_s[row + 1])
        whole = np.floor(time_s / self.duration_s)
        row = np.searchsorted(self.time_s, time_s - whole * self.duration_s, side="right") - 1
        whole, row = whole + row // steps, row % steps
        until = whole * self.duration_s + self.time_s[row + 1]
        # Rounding may put a time that is exactly a step just before that step.
        return self.rate_bps[row], np.maximum(until, np.nextafter(time_s, np.inf))


def finish_by_curve(
    curve: RateCurve, size_bits: NDArray[np.float64], start_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return when each of m transfers over links of the same recorded rate ends, (m,) in s.

    With B(t) the bits that the link carries from 0 to t, a transfer ends at the first t with
    B(t) = B(start) + size. Infinity where the link never carries all bits.
    """
    bits = np.concatenate([[0.0], np.cumsum(curve.rate_bps * np.diff(curve.time_s))])
    duration, total, last = curve.duration_s, float(bits[-1]), float(curve.rate_bps[-1])
    if curve.loop and total == 0:
        return np.where(size_bits > 0, np.inf, start_s)

    whole = np.floor(start_s / duration) if curve.loop else np.zeros_like(start_s)
    phase = start_s - whole * duration
    begun = np.interp(phase, curve.time_s, bits)
    if not curve.loop:
        begun = begun + np.maximum(phase - duration, 0) * last
    wanted = begun + (1 - ROUNDING) * size_bits - 4 * np.finfo(float).eps * begun

    # How many whole recordings are passed; an exact multiple ends in the one before.
    rounds = np.maximum(np.ceil(wanted / total) - 1, 0) if curve.loop else np.zeros_like(wanted)
    rest = wanted - rounds * total
    row = np.clip(np.searchsorted(bits, rest, side="left") - 1, 0, len(curve.rate_bps) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = curve.time_s[row] + np.maximum(rest - bits[row], 0) / curve.rate_bps[row]
        after = duration + np.maximum(rest - total, 0) / last
    finish = (whole + rounds) * duration + np.where(rest <= total, inside, after)
    return np.where(size_bits > 0, np.maximum(finish, start_s), start_s)
