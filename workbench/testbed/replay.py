"""The schedule that follows recorded rates, one recording for each client and direction."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.testbed.base import Segment
from workbench.testbed.timing import finish_by_curve
from workbench.testbed.traces import find_trace, load_trace, shipped_traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from workbench.fleet import Fleet
    from workbench.testbed.base import Direction
    from workbench.testbed.timing import RateCurve

STEP_S = 1e-9
"""Changes closer together than this are one: times in s have no finer resolution after months."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TraceFile:
    """A file with a recorded rate, as a config names it.

    Parameters
    ----------
    file
        The file name of a shipped trace, or a path.
    sha256
        Of its content; found out if empty, checked if not.

    Raises
    ------
    ValueError
        If the content has changed, or is no trace.
    FileNotFoundError
        If there is no such file.
    """

    file: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""

    def __post_init__(self) -> None:
        """Read the file, so that nothing is found wrong with it later."""
        found = load_trace(self.file).sha256
        if self.sha256 not in ("", found):
            raise ValueError(f"{self.file} has SHA-256 {found}, but {self.sha256} is expected")
        object.__setattr__(self, "sha256", found)


def _as_file(value: object) -> object:
    return TraceFile(file=str(value)) if isinstance(value, str | Path) else value


File = Annotated[TraceFile, BeforeValidator(_as_file)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LinkTrace:
    """The recordings of one link; a path stands for a `TraceFile`.

    Parameters
    ----------
    down, up
        Server to client and client to server. Without ``up`` the link follows ``down`` in both
        directions.
    """

    down: File
    up: File | None = None


def _as_link(value: object) -> object:
    if isinstance(value, str) and value in shipped_traces():
        try:
            up = find_trace(f"{value}.up.csv").name
        except FileNotFoundError:
            up = None
        return LinkTrace(down=f"{value}.down.csv", up=up)  # type: ignore[arg-type]  # becomes one
    return LinkTrace(down=value) if isinstance(value, str | Path) else value  # type: ignore[arg-type]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TraceSchedule:
    """Let each link follow a recording, in each direction its own.

    Parameters
    ----------
    links
        The recordings: `LinkTrace`, or a name out of `shipped_traces`, or a path for both
        directions.
    loop
        Whether a recording begins again at its end; if not, its last rate stays. The two
        directions of a link have each the length of its own file.
    stagger_s
        Client i begins ``i * stagger_s`` into its recording, so that clients with the same
        recording do not fade at the same time.
    assignment
        For each client the place of its recording in ``links``; in turn if empty.

    Raises
    ------
    ValueError
        If a file is no trace or has changed, or a value is out of range.
    FileNotFoundError
        If a file is missing.

    Examples
    --------
    >>> TraceSchedule(["ATT-LTE-driving", "Verizon-LTE-short"], stagger_s=10).loop
    True
    """

    links: Annotated[
        tuple[Annotated[LinkTrace, BeforeValidator(_as_link)], ...], Field(min_length=1)
    ]
    loop: bool = True
    stagger_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    assignment: tuple[int, ...] = ()
    kind: Literal["traces"] = "traces"

    def __post_init__(self) -> None:
        """Check that the assignment names recordings that there are."""
        wrong = [place for place in self.assignment if not 0 <= place < len(self.links)]
        if wrong:
            raise ValueError(
                f"assignment holds {wrong[0]}; links are numbered 0..{len(self.links) - 1}"
            )

    def segment(self, fleet: Fleet, time_s: float) -> Segment:
        """Return the recorded rates at ``time_s`` and the next step of any recording.

        Raises
        ------
        ValueError
            If ``assignment`` has not one entry a client.
        """
        rates, until = {}, np.inf
        for direction in ("down", "up"):
            rates[direction] = np.empty(len(fleet))
            for curve, rows, shift in self._curves(fleet, direction, np.arange(len(fleet))):
                rate, next_s = curve.step(time_s + shift)
                rates[direction][rows] = rate
                until = min(until, float((next_s - shift).min()))
        return Segment(rates["down"], rates["up"], max(until, time_s + STEP_S))

    def finish_s(
        self,
        fleet: Fleet,
        direction: Direction,
        client: NDArray[np.int64],
        size_bits: NDArray[np.float64],
        start_s: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return when m transfers end, (m,) in s, without walking through every step."""
        finish = np.empty(len(client))
        for curve, rows, shift in self._curves(fleet, direction, client):
            end = finish_by_curve(curve, size_bits[rows], start_s[rows] + shift)
            finish[rows] = np.maximum(end - shift, start_s[rows])
        return finish

    def _curves(
        self, fleet: Fleet, direction: Direction, client: NDArray[np.int64]
    ) -> Iterator[tuple[RateCurve, NDArray[np.int64], NDArray[np.float64]]]:
        """Yield each recording, the rows of ``client`` that follow it, and how far into it."""
        if self.assignment and len(self.assignment) != len(fleet):
            raise ValueError(
                f"assignment has {len(self.assignment)} entries, but the fleet has {len(fleet)} "
                "clients"
            )
        place = np.array(self.assignment)[client] if self.assignment else client % len(self.links)
        for number in np.unique(place):
            link = self.links[number]
            file = link.up if direction == "up" and link.up is not None else link.down
            rows = np.flatnonzero(place == number).astype(np.int64)
            yield (
                _curve(file.file, file.sha256, self.loop),
                rows,
                self.stagger_s * client[rows].astype(np.float64),
            )


@lru_cache(maxsize=256)
def _curve(file: str, sha256: str, loop: bool) -> RateCurve:
    trace = load_trace(file)
    if trace.sha256 != sha256:
        raise ValueError(f"{file} has changed since the schedule was made")
    return trace.curve(loop=loop)
