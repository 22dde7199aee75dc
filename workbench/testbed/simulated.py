"""The simulated testbed: a network in virtual time, on any machine, the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.testbed import timing
from workbench.testbed.base import Network, Testbed
from workbench.testbed.links import LinkState
from workbench.testbed.replay import TraceSchedule
from workbench.testbed.schedules import AnySchedule, TierSchedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from workbench.fleet import Fleet
    from workbench.testbed.base import Direction, LinkChange, Schedule

Speed = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SimulatedTestbed(Testbed):
    """A network that is computed: every message lasts as long as its link would take.

    Parameters
    ----------
    schedule
        When and how the link rates change.
    device_macs_per_s
        Multiply-accumulates per second of a client's device in training: one number for all, or
        one for each client in row order. The default is about what 2 cores of a laptop reach on
        the full AlexNet.
    latency_s
        Time that every message takes on top of its bytes.
    goodput
        Share of the link rate that carries model bytes; TCP over Ethernet reaches 0.956.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    schedule: AnySchedule = TierSchedule()
    device_macs_per_s: Speed | tuple[Speed, ...] = 1e11
    latency_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    goodput: Annotated[float, Field(gt=0, le=1)] = 1.0

    def up(self, fleet: Fleet) -> SimulatedNetwork:
        """Return the network of a fleet, its clock at 0.

        Raises
        ------
        ValueError
            If there is a device speed for each client, but not as many as clients.
        """
        return SimulatedNetwork(self, fleet)


class SimulatedNetwork(Network):
    """A network in virtual time: nothing passes by itself, `advance` moves the clock.

    Rates set by hand and cuts hold from the moment they are made until they are changed: a
    transfer is timed by what is known when it is asked about.
    """

    def __init__(self, testbed: SimulatedTestbed, fleet: Fleet) -> None:
        speeds = np.atleast_1d(np.asarray(testbed.device_macs_per_s, dtype=np.float64))
        if len(speeds) not in (1, len(fleet)):
            raise ValueError(
                f"device_macs_per_s has {len(speeds)} values, but must have one, or one for each "
                f"of the {len(fleet)} clients"
            )
        self.testbed = testbed
        self.fleet = fleet
        self._speeds = np.broadcast_to(speeds, len(fleet))
        self._links = LinkState(fleet, testbed.schedule)
        self._now_s = 0.0

    # ------------------------------------------------------------------ time

    def now_s(self) -> float:
        """Seconds of virtual time since the network came up."""
        return self._now_s

    def advance(self, to_s: float) -> None:
        """Set the clock; listeners hear which links' rates differ from before.

        Raises
        ------
        ValueError
            If ``to_s`` is infinite or earlier than now.
        """
        if not (np.isfinite(to_s) and to_s >= self._now_s):
            raise ValueError(f"to_s is {to_s}, but must be finite and at least {self._now_s}")
        before = self._links.segment(self._now_s)
        self._now_s = float(to_s)
        if to_s < before.until_s:
            return
        after = self._links.segment(self._now_s)
        changed = (before.down_bps != after.down_bps) | (before.up_bps != after.up_bps)
        self._links.tell("rate", np.flatnonzero(changed), self._now_s)

    def transfer_s(
        self,
        client: ArrayLike,
        size_bytes: ArrayLike,
        start_s: ArrayLike,
        direction: Direction = "down",
    ) -> NDArray[np.float64]:
        """Return how long messages take, latency included.

        Parameters
        ----------
        client
            (m,) rows of the fleet; a client may occur several times, messages do not share links.
        size_bytes
            (m,) or one number for all, from 0 up.
        start_s
            (m,) or one number for all: virtual time at which the message is sent.
        direction
            ``down`` to the client or ``up`` to the server.

        Returns
        -------
        (m,) float64
            Durations in s; infinity where the link never carries the message.

        Raises
        ------
        ValueError
            If a value is out of range.
        """
        if direction not in ("down", "up"):
            raise ValueError(f"direction is {direction!r}, but must be 'down' or 'up'")
        rows = np.atleast_1d(np.asarray(client, dtype=np.int64))
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self.fleet)):
            raise ValueError(f"client must lie in 0..{len(self.fleet) - 1}, got {rows.tolist()}")
        start = _checked("start_s", start_s, rows)
        bits = _checked("size_bytes", size_bytes, rows) * 8 / self.testbed.goodput

        finish = start.copy()
        held = self._links.held(direction)[rows]
        fixed = ~np.isnan(held)
        with np.errstate(divide="ignore", invalid="ignore"):
            finish[fixed] = np.where(
                bits[fixed] > 0, start[fixed] + bits[fixed] / held[fixed], start[fixed]
            )
        free = np.flatnonzero(~fixed)
        finish[free] = self._scheduled_finish(rows[free], bits[free], start[free], direction)
        return finish - start + self.testbed.latency_s

    def transfer_one_s(
        self, client: int, size_bytes: float, start_s: float, direction: Direction = "down"
    ) -> float:
        """Return how long one message takes, as `transfer_s` does, but quickly.

        A round asks for one message after the other, and most end before their link changes.
        """
        segment = self._links.segment(start_s)
        rate = float((segment.down_bps if direction == "down" else segment.up_bps)[client])
        bits = size_bytes * 8 / self.testbed.goodput
        if rate > 0 and start_s + bits / rate < segment.until_s:
            return start_s + bits / rate - start_s + self.testbed.latency_s
        return float(self.transfer_s([client], size_bytes, start_s, direction)[0])

    def _scheduled_finish(
        self,
        rows: NDArray[np.int64],
        bits: NDArray[np.float64],
        start: NDArray[np.float64],
        direction: Direction,
    ) -> NDArray[np.float64]:
        schedule = self._links.schedule
        if isinstance(schedule, TraceSchedule):
            return schedule.finish_s(self.fleet, direction, rows, bits, start)

        def segment_at(time_s: float) -> tuple[NDArray[np.float64], float]:
            segment = self._links.segment(time_s)
            rates = segment.down_bps if direction == "down" else segment.up_bps
            return rates[rows], segment.until_s

        return timing.finish_by_segments(segment_at, bits, start)

    def compute_s(self, macs: float, client: int | str = 0) -> float:
        """Return how long a client's device takes for so many multiply-accumulates.

        Raises
        ------
        ValueError
            If ``macs`` is negative or not finite.
        """
        if not (np.isfinite(macs) and macs >= 0):
            raise ValueError(f"macs is {macs}, but must be a finite number from 0 up")
        return float(macs / self._speeds[self.fleet.index(client)])

    # ------------------------------------------------------------------ what holds now

    def rates_bps(self, direction: Direction = "down") -> NDArray[np.float64]:
        """Present rate of each client's link, (N,) in bit/s; 0 where it is cut."""
        now = self._links.segment(self._now_s)
        return now.down_bps if direction == "down" else now.up_bps

    def present(self) -> NDArray[np.bool_]:
        """Which clients of the fleet take part, (N,) bool; a cut link does not change that."""
        return self._links.present.copy()

    def links(self) -> pd.DataFrame:
        """One row a client; the measured rates equal the requested ones, nothing is measured."""
        now = self._links.segment(self._now_s)
        return pd.DataFrame(
            {
                "client": list(self.fleet.names),
                "tier": [self.fleet.tiers[index].name for index in self.fleet.tier],
                "requested_down_bps": now.down_bps,
                "measured_down_bps": now.down_bps,
                "requested_up_bps": now.up_bps,
                "measured_up_bps": now.up_bps,
                "cut": self._links.cut,
                "present": self._links.present,
            }
        )

    # ------------------------------------------------------------------ controls

    def set_rate(
        self, client: int | str, rate_bps: float, direction: Direction | None = None
    ) -> None:
        """Set a link's rate, in both directions unless one is named; the schedule lets it be."""
        self._links.set_rate(client, rate_bps, direction, self._now_s)

    def follow(self, schedule: Schedule | None) -> None:
        """Let all links follow a schedule from now on; None keeps the present rates."""
        self._links.follow(schedule, self._now_s)

    def cut(self, client: int | str) -> None:
        """Cut a client's link: nothing passes until it is healed."""
        self._links.set_cut(client, True, self._now_s)

    def heal(self, client: int | str) -> None:
        """Heal a link that was cut; its rate is what it would be without the cut."""
        self._links.set_cut(client, False, self._now_s)

    def remove(self, client: int | str) -> None:
        """Take a client out: it takes part in nothing until it is added again."""
        self._links.set_present(client, False, self._now_s)

    def add(self, client: int | str) -> None:
        """Put back a client of the fleet that was removed."""
        self._links.set_present(client, True, self._now_s)

    def on_change(self, callback: Callable[[LinkChange], None]) -> Callable[[], None]:
        """Call ``callback`` after each change; the returned function ends that."""
        return self._links.on_change(callback)

    def close(self) -> None:
        """Do nothing: nothing was set up."""


def _checked(name: str, values: ArrayLike, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    array = np.broadcast_to(np.asarray(values, dtype=np.float64), rows.shape).copy()
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        raise ValueError(f"{name} holds {array[bad][0]}, but must be finite and from 0 up")
    return array
