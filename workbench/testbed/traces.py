"""Traces: recordings of a link's rate, read from files.

Two formats are read. CSV with the columns ``time_s,rate_bps``: a rate holds until the next line,
the last one as long as the one before. And the packet-delivery format of the Mahimahi emulator
(R. Netravali et al., USENIX ATC 2015): each line is a time in whole ms, up to which one packet of
1,504 bytes could be delivered; its packets are counted in bins of 1 s.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.testbed.timing import RateCurve
from workbench.tiers import scenario_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER = "time_s,rate_bps"
PACKET_BITS = 1504 * 8
MAX_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded rate.

    Attributes
    ----------
    name
        The file's name without its ending.
    time_s
        (k + 1,) from 0 on: when each rate begins, and the end of the recording.
    rate_bps
        (k,) from 0 up, 0 for an outage.
    sha256
        Of the file.
    """

    name: str
    time_s: NDArray[np.float64]
    rate_bps: NDArray[np.float64]
    sha256: str

    @property
    def duration_s(self) -> float:
        """Length of the recording."""
        return float(self.time_s[-1])

    @property
    def mean_bps(self) -> float:
        """Bits of the whole recording over its length."""
        return float(self.rate_bps @ np.diff(self.time_s)) / self.duration_s

    def curve(self, *, loop: bool) -> RateCurve:
        """Return the recording as `workbench.testbed.timing` takes it."""
        return RateCurve(self.time_s, self.rate_bps, loop)

    def __repr__(self) -> str:
        outage = float(np.diff(self.time_s)[self.rate_bps == 0].sum())
        return (
            f"Trace({self.name!r}, {self.duration_s:g} s, {self.mean_bps / 1e6:.2f} Mbit/s on the "
            f"mean, {outage:g} s without any)"
        )


def trace_folder() -> Path:
    """Return the folder of the shipped traces."""
    return scenario_folder() / "traces"


def shipped_traces() -> tuple[str, ...]:
    """Return the names of the shipped recordings, such as ``ATT-LTE-driving``.

    Each stands for a file ``NAME.down.csv`` and, where that was recorded, one ``NAME.up.csv``.
    """
    return tuple(sorted(path.name.split(".")[0] for path in trace_folder().glob("*.down.csv")))


def find_trace(file: str | Path) -> Path:
    """Return where a trace lies: a path, or the file name of a shipped one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    for path in (Path(file), trace_folder() / Path(file).name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no trace {file}; shipped are {', '.join(shipped_traces())}")


def load_trace(file: str | Path, *, bin_s: float = 1.0) -> Trace:
    """Read a trace in either format; the first line tells which.

    Parameters
    ----------
    file
        A path, or the file name of a shipped trace.
    bin_s
        Width of the bins in which the packets of a Mahimahi file are counted.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is wrong, or nothing is ever delivered; the message names file and line.
    """
    path = find_trace(file)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; a trace has at most {MAX_BYTES}")
    content = path.read_bytes()
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file: {error}") from error
    header = lines[0].strip() if lines else ""
    if header == HEADER:
        time_s, rate_bps = _read_csv(path, lines)
    elif header.isdecimal():
        time_s, rate_bps = _read_packets(path, lines, bin_s)
    else:
        raise ValueError(
            f"{path}, line 1: {header[:40]!r} is neither {HEADER!r} nor a whole number of ms"
        )
    if not rate_bps.any():
        raise ValueError(f"{path} is nothing but an outage")
    return Trace(path.name.rsplit(".", 1)[0], time_s, rate_bps, hashlib.sha256(content).hexdigest())


def _read_csv(path: Path, lines: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    times: list[float] = []
    rates: list[float] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            time, rate = (float(field) for field in line.split(","))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: {line[:40]!r} is not time_s,rate_bps"
            ) from error
        if not (np.isfinite(rate) and rate >= 0):
            raise ValueError(f"{path}, line {number}: rate_bps is {rate}, but must be from 0 up")
        if not np.isfinite(time) or (time <= times[-1] if times else time != 0):
            expected = f"above {times[-1]:g}" if times else "0"
            raise ValueError(f"{path}, line {number}: time_s is {time}, but must be {expected}")
        times.append(time)
        rates.append(rate)
    if len(times) < 2:
        raise ValueError(f"{path} has {len(times)} lines of rates, but needs at least 2")
    times.append(2 * times[-1] - times[-2])
    return np.array(times), np.array(rates)


def _read_packets(
    path: Path, lines: list[str], bin_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not (np.isfinite(bin_s) and bin_s > 0):
        raise ValueError(f"bin_s is {bin_s}, but must be a finite number above 0")
    times = np.empty(len(lines), dtype=np.int64)
    for row, line in enumerate(lines):
        field = line.strip()
        if not (field.isascii() and field.isdecimal() and len(field) < 16):
            raise ValueError(f"{path}, line {row + 1}: {field[:40]!r} is not a whole number of ms")
        times[row] = int(field)
        if row and times[row] < times[row - 1]:
            raise ValueError(f"{path}, line {row + 1}: {field} ms is before the line above")
    end_s = times[-1] / 1000
    if end_s == 0:
        raise ValueError(f"{path} ends at 0 ms; a recording has some length")
    bins = int(np.ceil(end_s / bin_s))
    # A packet at t was delivered during the ms that ends at t, so a bin includes its end.
    row_of = np.clip(np.ceil(times / 1000 / bin_s).astype(np.int64) - 1, 0, bins - 1)
    edges = np.minimum(np.arange(bins + 1) * bin_s, end_s)
    return edges, np.bincount(row_of, minlength=bins) * PACKET_BITS / np.diff(edges)
