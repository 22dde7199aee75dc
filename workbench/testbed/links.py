"""The wanted state of all links: schedule, rates set by hand, cuts, who has left.

What every testbed keeps in the same way, whether it then shapes real links or computes with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from workbench.testbed.base import LinkChange, Segment

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workbench.fleet import Fleet
    from workbench.testbed.base import Direction, Schedule


class LinkState:
    """What the links of a fleet should be at any time; knows nothing of how it is done.

    Attributes
    ----------
    schedule
        What the links follow where nothing else was said; None keeps the fleet's rates.
    cut, present
        (N,) bool: the link is cut; the client takes part.
    """

    def __init__(self, fleet: Fleet, schedule: Schedule | None) -> None:
        self.fleet = fleet
        self.schedule = schedule
        self.cut: NDArray[np.bool_] = np.zeros(len(fleet), dtype=bool)
        self.present: NDArray[np.bool_] = np.ones(len(fleet), dtype=bool)
        self._held = {
            "down": np.full(len(fleet), np.nan),
            "up": np.full(len(fleet), np.nan),
        }
        self._listeners: list[Callable[[LinkChange], None]] = []
        self._known: tuple[float, Segment] | None = None

    # ------------------------------------------------------------------ what holds

    def segment(self, time_s: float) -> Segment:
        """Return the rates at ``time_s``, 0 where cut or absent, and the next change after it.

        The arrays are shared and read-only.
        """
        # A round asks for the same stretch of time once a message.
        if self._known is None or not self._known[0] <= time_s < self._known[1].until_s:
            base = self._scheduled(time_s)
            down = self._override("down", base.down_bps)
            up = self._override("up", base.up_bps)
            down.flags.writeable = up.flags.writeable = False
            self._known = time_s, Segment(down, up, base.until_s)
        return self._known[1]

    def held(self, direction: Direction) -> NDArray[np.float64]:
        """Return (N,) what was set by hand or cut, in bit/s; NaN where the schedule decides."""
        return np.where(self.cut | ~self.present, 0.0, self._held[direction])

    def _scheduled(self, time_s: float) -> Segment:
        if self.schedule is None:
            return Segment(self.fleet.rate_bps, self.fleet.rate_bps, np.inf)
        return self.schedule.segment(self.fleet, time_s)

    def _override(self, direction: Direction, rate_bps: NDArray[np.float64]) -> NDArray[np.float64]:
        held = self.held(direction)
        return np.where(np.isnan(held), rate_bps, held)

    # ------------------------------------------------------------------ what changes it

    def set_rate(
        self, client: int | str, rate_bps: float, direction: Direction | None, time_s: float
    ) -> None:
        """Hold a link at a rate; see `workbench.testbed.base.Network.set_rate`."""
        if not (np.isfinite(rate_bps) and rate_bps >= 0):
            raise ValueError(f"rate_bps is {rate_bps}, but must be a finite number from 0 up")
        if direction not in (None, "down", "up"):
            raise ValueError(f"direction is {direction!r}, but must be 'down', 'up' or None")
        row = self.fleet.index(client)
        for name in ("down", "up") if direction is None else (direction,):
            self._held[name][row] = rate_bps
        self._known = None
        self.tell("rate", [row], time_s, asked_bps=float(rate_bps), direction=direction)

    def follow(self, schedule: Schedule | None, time_s: float) -> None:
        """Let all links follow a schedule, or keep their present rates if it is None."""
        if schedule is None:
            base = self._scheduled(time_s)
            for held, rates in (
                (self._held["down"], base.down_bps),
                (self._held["up"], base.up_bps),
            ):
                np.copyto(held, rates, where=np.isnan(held))
        else:
            for held in self._held.values():
                held[:] = np.nan
        self.schedule = schedule
        self._known = None
        self.tell("rate", range(len(self.fleet)), time_s)

    def set_cut(self, client: int | str, cut: bool, time_s: float) -> None:
        """Cut or heal a link; nothing happens if it is so already."""
        row = self.fleet.index(client)
        if self.cut[row] != cut:
            self.cut[row] = cut
            self._known = None
            self.tell("cut" if cut else "heal", [row], time_s)

    def set_present(
        self, client: int | str, present: bool, time_s: float, *, tell: bool = True
    ) -> None:
        """Take a client out or put it back; nothing happens if it is so already."""
        row = self.fleet.index(client)
        if self.present[row] != present:
            self.present[row] = present
            self._known = None
            if tell:
                self.tell("add" if present else "remove", [row], time_s)

    # ------------------------------------------------------------------ who is told

    def on_change(self, callback: Callable[[LinkChange], None]) -> Callable[[], None]:
        """Call ``callback`` after each change; the returned function ends that."""
        self._listeners.append(callback)

        def end() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return end

    def tell(
        self,
        what: Literal["rate", "cut", "heal", "add", "remove"],
        rows: range | list[int] | NDArray[np.int64],
        time_s: float,
        *,
        asked_bps: float | None = None,
        direction: Direction | None = None,
    ) -> None:
        """Tell the listeners what happened to these clients."""
        if not self._listeners:
            return
        now = self.segment(time_s)
        for row in rows:
            change = LinkChange(
                time_s=time_s,
                client=self.fleet.names[row],
                what=what,
                down_bps=float(now.down_bps[row]),
                up_bps=float(now.up_bps[row]),
                asked_bps=asked_bps,
                direction=direction,
            )
            for listener in list(self._listeners):
                listener(change)
