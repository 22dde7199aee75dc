"""What time it is for the rounds: virtual on a simulated network, the clock's on a real one.

The driver of the rounds asks a timekeeper for each reply when it arrived and what that time was
spent on; it does not know which kind of network it drives.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workbench.testbed.namespaces import NamespaceNetwork

if TYPE_CHECKING:
    from workbench.testbed.base import Direction, Network
    from workbench.testbed.simulated import SimulatedNetwork


@dataclass(frozen=True)
class Exchange:
    """One message to a client and its reply: who, how much, and what it had to compute."""

    client: int
    start_s: float
    bytes_down: int
    bytes_up: int
    macs: float
    measured_compute_s: float


@dataclass(frozen=True)
class Timing:
    """When a reply arrived, and how long its parts took, in seconds."""

    end_s: float
    transfer_s: float
    compute_s: float


class Timekeeper(Protocol):
    """Tells the time of rounds on one network."""

    waits: bool
    """Whether time passes by itself, so that a deadline is waited for."""

    def now_s(self) -> float:
        """Seconds since the network came up."""
        ...

    def timing(self, exchange: Exchange) -> Timing:
        """Return when the reply to a message arrived; called when it is at hand."""
        ...

    def advance(self, to_s: float) -> None:
        """Let virtual time pass; real time passes by itself."""
        ...

    def resume_at(self, time_s: float) -> None:
        """Go on from the time at which an interrupted run was."""
        ...


class VirtualTime:
    """Time on a simulated network: computed from bytes, link rates and MACs."""

    waits = False

    def __init__(self, network: SimulatedNetwork) -> None:
        self._network = network

    def now_s(self) -> float:
        """Virtual seconds since the network came up."""
        return self._network.now_s()

    def timing(self, exchange: Exchange) -> Timing:
        """Compute when the reply arrives: download, computation, upload, one after the other."""
        download = self._transfer(exchange.client, exchange.bytes_down, exchange.start_s, "down")
        compute = self._network.compute_s(exchange.macs, exchange.client)
        begin = exchange.start_s + download + compute
        upload = self._transfer(exchange.client, exchange.bytes_up, begin, "up")
        return Timing(begin + upload, download + upload, compute)

    def advance(self, to_s: float) -> None:
        """Set the virtual clock."""
        self._network.advance(to_s)

    def resume_at(self, time_s: float) -> None:
        """Set the virtual clock."""
        self._network.advance(time_s)

    def _transfer(self, client: int, size: int, start_s: float, direction: Direction) -> float:
        if not math.isfinite(start_s):
            return math.inf
        return self._network.transfer_one_s(client, size, start_s, direction)


class WallTime:
    """Time on a real network: read from the clock."""

    waits = True

    def __init__(self, network: Network) -> None:
        self._network = network
        self._before_s = 0.0

    def now_s(self) -> float:
        """Seconds that this run has had a network, over all its interruptions."""
        return self._before_s + self._network.now_s()

    def timing(self, exchange: Exchange) -> Timing:
        """Read the clock; what was not computation was transfer and waiting."""
        end = self.now_s()
        transfer = max(0.0, end - exchange.start_s - exchange.measured_compute_s)
        return Timing(end, transfer, exchange.measured_compute_s)

    def advance(self, to_s: float) -> None:
        """Wait until ``to_s``, if that is still to come."""
        time.sleep(max(0.0, to_s - self.now_s()))

    def resume_at(self, time_s: float) -> None:
        """Count on from ``time_s``; the network's schedule goes on from there where it can."""
        if isinstance(self._network, NamespaceNetwork):
            self._network.resume_at(time_s)
        self._before_s = time_s - self._network.now_s()
