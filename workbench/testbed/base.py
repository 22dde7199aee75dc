"""The interface of every testbed: a description that is put up, and the network that it gives.

A `Testbed` is a description (frozen, serialisable); ``up(fleet)`` returns a `Network`, a context
manager with the controls that a notebook uses. What differs between testbeds stays behind these
two classes; the federation asks a network only for what stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from workbench.fleet import Fleet

Direction = Literal["down", "up"]
"""``down`` is server to client, ``up`` is client to server."""


@dataclass(frozen=True)
class Segment:
    """Link rates that hold until ``until_s`` (seconds since the testbed came up)."""

    down_bps: NDArray[np.float64]
    up_bps: NDArray[np.float64]
    until_s: float


@runtime_checkable
class Schedule(Protocol):
    """When and how each link's rate changes; a pure function of fleet and time."""

    def segment(self, fleet: Fleet, time_s: float) -> Segment:
        """Return the rates at ``time_s`` and the time of the next change (may be infinite)."""
        ...


@dataclass(frozen=True)
class LinkChange:
    """One change of a network, as told to the callbacks of `Network.on_change`."""

    time_s: float
    client: str
    what: Literal["rate", "cut", "heal", "add", "remove"]
    down_bps: float
    up_bps: float
    asked_bps: float | None = None
    """The rate that was set by hand; None where the schedule or a cut decided."""
    direction: Direction | None = None
    """The direction that it was set for; None for both."""


class Network(ABC):
    """A network that is up: one link per client of ``fleet``; leaving it takes it down."""

    fleet: Fleet

    @abstractmethod
    def now_s(self) -> float:
        """Seconds since the network came up, virtual or real."""

    @abstractmethod
    def rates_bps(self, direction: Direction = "down") -> NDArray[np.float64]:
        """Present rate of each client's link, (N,) in bit/s; 0 where it is cut."""

    @abstractmethod
    def links(self) -> pd.DataFrame:
        """One row a client: client, tier, and per direction requested and measured rate."""

    @abstractmethod
    def set_rate(
        self, client: int | str, rate_bps: float, direction: Direction | None = None
    ) -> None:
        """Set a link's rate, in both directions unless one is named; the schedule lets it be."""

    @abstractmethod
    def follow(self, schedule: Schedule | None) -> None:
        """Let all links follow a schedule from now on; None keeps the present rates."""

    @abstractmethod
    def cut(self, client: int | str) -> None:
        """Cut a client's link: nothing passes until it is healed."""

    @abstractmethod
    def heal(self, client: int | str) -> None:
        """Heal a link that was cut; its rate is what it would be without the cut."""

    @abstractmethod
    def remove(self, client: int | str) -> None:
        """Take a client out: it takes part in nothing until it is added again."""

    @abstractmethod
    def add(self, client: int | str) -> None:
        """Put back a client of the fleet that was removed."""

    def keep(self, clients: int) -> None:
        """Let the first ``clients`` of the fleet take part, and take the others out.

        Raises
        ------
        ValueError
            If there are not so many clients.
        """
        if not 0 <= clients <= len(self.fleet):
            raise ValueError(f"clients is {clients}; allowed are 0 to {len(self.fleet)}")
        for row in range(len(self.fleet)):
            if row < clients:
                self.add(row)
            else:
                self.remove(row)

    @abstractmethod
    def present(self) -> NDArray[np.bool_]:
        """Which clients of the fleet take part, (N,) bool; a cut link does not change that."""

    @abstractmethod
    def on_change(self, callback: Callable[[LinkChange], None]) -> Callable[[], None]:
        """Call ``callback`` after each change; the returned function ends that."""

    @abstractmethod
    def close(self) -> None:
        """Take the network down; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Testbed(ABC):
    """A description of a network, before it is up."""

    __test__ = False  # pytest would collect a class of this name

    @abstractmethod
    def up(self, fleet: Fleet) -> Network:
        """Put the network up for a fleet; use it as a context manager."""
