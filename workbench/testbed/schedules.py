"""Schedules: when and how the rate of each link changes.

A schedule is a description that can be written to a run's config, and a pure function of fleet
and time: asked twice for the same time it answers the same, in whatever order it is asked, so a
run that is taken up again sees the rates that it would have seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.testbed.base import Segment
from workbench.testbed.replay import TraceSchedule
from workbench.tiers import draw_rates

if TYPE_CHECKING:
    from workbench.fleet import Fleet


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TierSchedule:
    """Draw every link's rate again from its tier in each period.

    In period 0, from 0 to ``period_s``, the links have the fleet's own rates. The draw of period
    k depends on ``seed`` and k alone. The published experiments use 300 s.

    Raises
    ------
    ValueError
        If ``period_s`` is not a finite number above 0, or ``seed`` is negative.
    """

    period_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300.0
    seed: Annotated[int, Field(ge=0)] = 0
    kind: Literal["tiers"] = "tiers"

    def segment(self, fleet: Fleet, time_s: float) -> Segment:
        """Return the rates of the period around ``time_s``, the same in both directions."""
        period = math.floor(time_s / self.period_s)
        if (period + 1) * self.period_s <= time_s:  # rounding
            period += 1
        until = (period + 1) * self.period_s
        if period <= 0:
            return Segment(fleet.rate_bps, fleet.rate_bps, until)
        rates = draw_rates(fleet.tier, fleet.tiers, np.random.default_rng([self.seed, 2, period]))
        return Segment(rates, rates, until)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ConstantSchedule:
    """Leave every link at the fleet's own rate, for ever."""

    kind: Literal["constant"] = "constant"

    def segment(self, fleet: Fleet, time_s: float) -> Segment:  # noqa: ARG002  # the interface
        """Return the fleet's rates, in both directions."""
        return Segment(fleet.rate_bps, fleet.rate_bps, math.inf)


AnySchedule = Annotated[
    TierSchedule | ConstantSchedule | TraceSchedule, Field(discriminator="kind")
]
"""The schedules that a testbed's description can hold and a config file can name."""
