"""The namespace testbed: real sockets over really shaped links, on one Linux machine.

The server and every client live in network namespaces of their own, joined by a bridge; each
client's link is limited by a token bucket in either direction. Nothing is bound on the host and
none of its interfaces is touched: the notebook reaches the server's namespace by sockets that
were opened in there and handed to it. See `workbench.testbed.keeper` for how it is held together,
and why nothing of it can be left behind.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.testbed.addresses import Delay
from workbench.testbed.base import Network, Testbed
from workbench.testbed.enclosure import Enclosure, NetworkLostError
from workbench.testbed.links import LinkState
from workbench.testbed.schedules import AnySchedule, TierSchedule
from workbench.testbed.shaping import LOWEST_RATE_BPS, Bucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workbench.fleet import Fleet
    from workbench.testbed.base import Direction, LinkChange, Schedule

MOST_CLIENTS = 60_000
_SAMPLE_S = 1.0
_KEPT_SAMPLES = 600


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NamespaceTestbed(Testbed):
    """A network of Linux namespaces, put up in seconds and gone without a trace.

    Parameters
    ----------
    schedule
        When and how the link rates change.
    latency_s, jitter_s
        Delay of every packet on every link in each direction, and how much it varies; needs the
        kernel's netem.
    loss
        Share of packets that every link loses in each direction; needs netem.
    rootless
        Whether to live inside a user namespace, as an ordinary user can where the kernel allows
        it. None does so only where it is needed.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    schedule: AnySchedule = TierSchedule()
    latency_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    jitter_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rootless: bool | None = None

    def up(self, fleet: Fleet) -> NamespaceNetwork:
        """Put the network up for a fleet; use it as a context manager.

        Raises
        ------
        RuntimeError
            If this machine can't; the message says why and what helps.
        """
        return NamespaceNetwork(self, fleet)


class NamespaceNetwork(Network):
    """A network of namespaces that is up, its links following the schedule.

    Attributes
    ----------
    inside
        Ways into the server's and the clients' namespaces: sockets, programs, processes.
    """

    def __init__(self, testbed: NamespaceTestbed, fleet: Fleet) -> None:
        if len(fleet) > MOST_CLIENTS:
            raise ValueError(f"the fleet has {len(fleet)} clients; {MOST_CLIENTS} are possible")
        self.testbed = testbed
        self.fleet = fleet
        self._state = LinkState(fleet, testbed.schedule)
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._closed = False
        self._failure: Exception | None = None
        self.inside = self._enclose()
        try:
            self._put_up()
        except BaseException:
            self.close()
            raise

    def _enclose(self) -> Enclosure:
        delay = Delay(self.testbed.latency_s, self.testbed.jitter_s, self.testbed.loss)
        return Enclosure(delay, rootless=self.testbed.rootless)

    def _put_up(self) -> None:
        wanted = self._state.segment(0.0)
        self.inside.join(dict(enumerate(self.fleet.names)), wanted.down_bps, wanted.up_bps)
        self._applied = {"down": wanted.down_bps.copy(), "up": wanted.up_bps.copy()}
        self._samples: deque[tuple[float, NDArray[np.int64]]] = deque(maxlen=_KEPT_SAMPLES)
        self._began = time.monotonic()
        self._sample()
        self._minder = threading.Thread(
            target=self._mind, name=f"{self.inside.mark}-mind", daemon=True
        )
        self._minder.start()

    # ------------------------------------------------------------------ what holds now

    def now_s(self) -> float:
        """Seconds since the network came up."""
        return time.monotonic() - self._began

    def resume_at(self, time_s: float) -> None:
        """Set the clock, so that a run that is taken up again meets its schedule where it was."""
        with self._lock:
            self._samples = deque(
                [(then + time_s - self.now_s(), carried) for then, carried in self._samples],
                maxlen=_KEPT_SAMPLES,
            )
            self._began = time.monotonic() - time_s
            self._apply()

    def rates_bps(self, direction: Direction = "down") -> NDArray[np.float64]:
        """Present rate of each client's link, (N,) in bit/s; 0 where it is cut."""
        with self._lock:
            now = self._state.segment(self.now_s())
            return (now.down_bps if direction == "down" else now.up_bps).copy()

    def present(self) -> NDArray[np.bool_]:
        """Which clients of the fleet take part, (N,) bool; a cut link does not change that."""
        with self._lock:
            return self._state.present.copy()

    def carried_bytes(self, direction: Direction = "down") -> NDArray[np.int64]:
        """Bytes that each link has carried since it came up, (N,), frame headers included."""
        down, up = self.carried()[1]
        return np.array(down if direction == "down" else up, dtype=np.int64)

    def carried(self) -> tuple[float, NDArray[np.int64]]:
        """Return the time in s, and the bytes that each link has carried by then.

        The bytes are (2, N), down and up, frame headers included, all read at once.
        """
        now, carried = self._sample()
        return now, carried.copy()

    def links(self, window_s: float = 1.0) -> pd.DataFrame:
        """One row a client: name, tier, requested and measured rate per direction, cut, present.

        The measured rate is the mean over at least the last ``window_s`` (at most since the
        network came up), from the counters of the interface's queue: it is below the
        requested one while there is too little to send.
        """
        now, after = self._sample()
        with self._lock:
            old = [sample for sample in self._samples if sample[0] <= now - window_s]
            then, before = old[-1] if old else self._samples[0]
            measured = (after - before) * 8 / max(now - then, 1e-3)
            wanted = self._state.segment(now)
            return pd.DataFrame(
                {
                    "client": list(self.fleet.names),
                    "tier": [self.fleet.tiers[index].name for index in self.fleet.tier],
                    "requested_down_bps": wanted.down_bps,
                    "measured_down_bps": measured[0],
                    "requested_up_bps": wanted.up_bps,
                    "measured_up_bps": measured[1],
                    "cut": self._state.cut,
                    "present": self._state.present,
                }
            )

    # ------------------------------------------------------------------ controls

    def set_rate(
        self, client: int | str, rate_bps: float, direction: Direction | None = None
    ) -> None:
        """Set a link's rate, in both directions unless one is named; the schedule lets it be."""
        Bucket.for_rate(rate_bps)
        with self._lock:
            self._state.set_rate(client, rate_bps, direction, self.now_s())
            self._apply()

    def follow(self, schedule: Schedule | None) -> None:
        """Let all links follow a schedule from now on; None keeps the present rates."""
        with self._lock:
            self._state.follow(schedule, self.now_s())
            self._apply()

    def cut(self, client: int | str) -> None:
        """Cut a client's link: nothing passes until it is healed."""
        with self._lock:
            self._state.set_cut(client, True, self.now_s())
            self._apply()

    def heal(self, client: int | str) -> None:
        """Heal a link that was cut; its rate is what it would be without the cut."""
        with self._lock:
            self._state.set_cut(client, False, self.now_s())
            self._apply()

    def remove(self, client: int | str) -> None:
        """Take a client out, with its namespace, its link and its processes."""
        with self._lock:
            row = self.fleet.index(client)
            if not self._state.present[row]:
                return
            self._state.set_present(client, False, self.now_s())
            self.inside.leave(row)
            self._apply()

    def add(self, client: int | str) -> None:
        """Put back a client of the fleet that was removed; its data are what they were."""
        with self._lock:
            row = self.fleet.index(client)
            if self._state.present[row]:
                return
            silent = np.zeros(len(self.fleet))
            self.inside.join({row: self.fleet.names[row]}, silent, silent)
            self._applied["down"][row] = self._applied["up"][row] = 0.0
            self._state.set_present(row, True, self.now_s(), tell=False)
            self._apply()
            self._state.tell("add", [row], self.now_s())

    def on_change(self, callback: Callable[[LinkChange], None]) -> Callable[[], None]:
        """Call ``callback`` after each change; the returned function ends that."""
        return self._state.on_change(callback)

    def close(self) -> None:
        """Take everything down: processes, namespaces, links, files; twice does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._wake.notify_all()
        self.inside.close()

    # ------------------------------------------------------------------ behind the controls

    def _apply(self) -> None:
        """Bring the links to what they should be now."""
        if self._failure is not None:
            raise RuntimeError("the links do not follow their schedule any more") from self._failure
        wanted = self._state.segment(self.now_s())
        # A recorded rate may be next to nothing, which the kernel cannot count.
        new = {
            name: np.where((rates > 0) & (rates < LOWEST_RATE_BPS), LOWEST_RATE_BPS, rates)
            for name, rates in (("down", wanted.down_bps), ("up", wanted.up_bps))
        }
        differs = {name: new[name] != self._applied[name] for name in new}
        rows = np.flatnonzero((differs["down"] | differs["up"]) & self._state.present)
        if rows.size:
            rates = [
                (
                    int(row),
                    float(new["down"][row]) if differs["down"][row] else None,
                    float(new["up"][row]) if differs["up"][row] else None,
                )
                for row in rows
            ]
            self.inside.set_rates(rates)
        self._applied = new
        self._wake.notify_all()

    def _sample(self) -> tuple[float, NDArray[np.int64]]:
        """Read all counters; (2, N) bytes down and up, and keep them for `links`."""
        with self._lock:
            counters = self.inside.carried()
            now = self.now_s()
            # A client that was removed keeps what its links had carried.
            carried = self._samples[-1][1].copy() if self._samples else None
            if carried is None:
                carried = np.zeros((2, len(self.fleet)), dtype=np.int64)
            for row, down, up in counters:
                carried[:, row] = down, up
            self._samples.append((now, carried))
            return now, carried

    def _mind(self) -> None:
        """Follow the schedule and read the counters, until the network is down."""
        with self._lock, suppress(NetworkLostError):
            try:
                self._keep_minding()
            except NetworkLostError:
                raise
            except Exception as error:  # noqa: BLE001  # raised again where a control is used
                self._failure = error

    def _keep_minding(self) -> None:
        while not self._closed:
            now = self.now_s()
            segment = self._state.segment(now)
            until = min(segment.until_s, self._samples[-1][0] + _SAMPLE_S)
            self._wake.wait(max(0.0, until - now))
            if self._closed:
                return
            before = self._applied
            self._apply()
            changed = (before["down"] != self._applied["down"]) | (
                before["up"] != self._applied["up"]
            )
            if changed.any():
                self._state.tell("rate", np.flatnonzero(changed), self.now_s())
            if self.now_s() - self._samples[-1][0] >= _SAMPLE_S:
                self._sample()
