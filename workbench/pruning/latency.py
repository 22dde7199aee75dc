"""Latency from a lookup table: every segment is timed once, and looked up from then on.

NetAdapt (section 3.3) estimates the latency of a network as the sum of its layers' latencies,
each from a table measured on the target. Here the table is measured on this machine at a few
widths, kept on disk, and interpolated between them; that is a formula, so the latency of
thousands of widths is known at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from workbench.data.storage import cache_folder
from workbench.pruning.segments import Segment, fastest_seconds, segments_of
from workbench.pruning.tracing import trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from torch import nn

    from workbench.pruning.layers import Axis, Trace, Width
    from workbench.pruning.structure import IntArray


@dataclass(frozen=True, eq=False)
class Grid:
    """Seconds of one segment, (inputs, outputs) float64, at some input and output widths."""

    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]
    seconds: NDArray[np.float64]

    def at(self, inputs: Width, outputs: Width) -> NDArray[np.float64]:
        """Interpolate between the four nearest points; beyond the last one, extrapolate."""
        row, above = _place(self.inputs, np.asarray(inputs))
        column, right = _place(self.outputs, np.asarray(outputs))
        next_row = np.minimum(row + 1, len(self.inputs) - 1)
        next_column = np.minimum(column + 1, len(self.outputs) - 1)
        low = self.seconds[row, column] * (1 - right) + self.seconds[row, next_column] * right
        high = self.seconds[next_row, column] * (1 - right)
        high = high + self.seconds[next_row, next_column] * right
        # Beyond the grid a line may fall below what anything takes.
        seconds = np.asarray(low * (1 - above) + high * above, dtype=np.float64)
        least = float(self.seconds.min()) / 2
        return np.asarray(np.maximum(seconds, least), dtype=np.float64)


def _place(
    points: NDArray[np.int64], widths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the point below each width, and which part of the way to the next one it has gone."""
    if len(points) == 1:
        return np.zeros(widths.shape, dtype=np.int64), np.zeros(widths.shape)
    index = np.clip(np.searchsorted(points, widths, side="right") - 1, 0, len(points) - 2)
    return index, (widths - points[index]) / (points[index + 1] - points[index])


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Measured segments of this machine.

    Attributes
    ----------
    batch_size
        Samples in the batch that was timed.
    path
        Where the table is kept; None keeps it in memory only.
    repeats
        How often each segment is timed; the fastest counts.
    """

    batch_size: int = 1
    path: Path | None = None
    repeats: int = 9
    grids: dict[str, Grid] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, batch_size: int = 1, folder: str | Path | None = None) -> LatencyTable:
        """Return the table of this machine, from the user's cache folder if not told otherwise.

        A file that can't be read is treated as if it were not there: it is measured again.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
        base = cache_folder() / "latency" if folder is None else Path(folder)
        table = cls(batch_size, base / f"{machine_key(batch_size)}.json")
        table.grids.update(_read(table.path))
        return table

    def measure(
        self, model: nn.Module, input_shape: Sequence[int], *, progress: bool = True
    ) -> int:
        """Time all segments of a network that are not in the table yet, and keep them.

        Returns
        -------
        int
            Number of segments that were timed.
        """
        return self.measure_segments(
            segments_of(model, trace(model, input_shape)), progress=progress
        )

    def measure_segments(self, segments: Sequence[Segment], *, progress: bool = True) -> int:
        """Time those of some segments that are not in the table yet; return how many."""
        widest: dict[str, tuple[int, int]] = {}
        missing: dict[str, Segment] = {}
        for segment in segments:
            known = widest.get(segment.key) or self._widest(segment.key)
            widest[segment.key] = (
                max(known[0], segment.widths[0]),
                max(known[1], segment.widths[1]),
            )
            measured = self._widest(segment.key)
            if measured[0] < widest[segment.key][0] or measured[1] < widest[segment.key][1]:
                missing[segment.key] = segment
        label = "measuring latency"
        for key, segment in tqdm(missing.items(), label, disable=not progress or not missing):
            inputs, outputs = segment.grid(widest[key])
            seconds = [
                [
                    segment.seconds(int(one), int(other), self.batch_size, self.repeats)
                    for other in outputs
                ]
                for one in inputs
            ]
            self.grids[key] = Grid(inputs, outputs, _smoothed(np.array(seconds)))
        if missing and self.path is not None:
            _write(self.path, {**_read(self.path), **self.grids})
        return len(missing)

    def predict(self, model: nn.Module, input_shape: Sequence[int]) -> float:
        """Return the latency of a network in seconds, from the table.

        Raises
        ------
        KeyError
            If a segment was not measured.
        """
        return self.total(segments_of(model, trace(model, input_shape)))

    def total(self, segments: Sequence[Segment]) -> float:
        """Return the sum of the segments' latencies in seconds."""
        return float(sum(self.of(segment, *segment.widths) for segment in segments))

    def of(self, segment: Segment, inputs: Width, outputs: Width) -> NDArray[np.float64]:
        """Return the latency of a segment with these widths in seconds."""
        return self.grids[segment.key].at(inputs, outputs)

    def check(self, model: nn.Module, input_shape: Sequence[int]) -> pd.DataFrame:
        """Compare the table with the whole network, measured now: one row, times in seconds."""
        import pandas as pd  # noqa: PLC0415  # clients can do without

        predicted = self.predict(model, input_shape)
        measured = measured_latency(model, input_shape, self.batch_size)
        return pd.DataFrame(
            {
                "predicted_s": [predicted],
                "measured_s": [measured],
                "ratio": [predicted / measured],
            }
        )

    def _widest(self, key: str) -> tuple[int, int]:
        """Return the largest widths at which a segment was timed; zeros if it was not."""
        grid = self.grids.get(key)
        return (0, 0) if grid is None else (int(grid.inputs[-1]), int(grid.outputs[-1]))


@dataclass(frozen=True, eq=False)
class SegmentTimes:
    """The segments of one network, and the table that has their times."""

    table: LatencyTable
    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, model: nn.Module, traced: Trace, table: LatencyTable) -> SegmentTimes:
        """Cut a network whose layers are known, and measure what is not in the table yet."""
        segments = segments_of(model, traced)
        table.measure_segments(segments)
        return cls(table, segments)

    def total(self) -> float:
        """Return the latency of the network in seconds."""
        return self.table.total(self.segments)

    def with_widths(self, widths: dict[tuple[str, Axis], IntArray]) -> NDArray[np.float64]:
        """Return the latency for each of several widths of some axes, in seconds."""
        count = len(next(iter(widths.values())))
        seconds = np.full(count, self.total())
        for segment in self.segments:
            if segment.head is None:
                continue
            inputs, outputs = segment.widths
            name, alone = segment.head.name, segment.one_axis
            new_inputs: Width = inputs if alone else widths.get((name, "in"), inputs)
            new_outputs: Width = widths.get((name, "out"), outputs)
            if (name, "in") in widths or (name, "out") in widths:
                seconds += self.table.of(segment, new_inputs, new_outputs)
                seconds -= self.table.of(segment, inputs, outputs)
        return seconds


_SHARED: dict[tuple[int, Path], LatencyTable] = {}


def shared_table(batch_size: int) -> LatencyTable:
    """Return this machine's table; it is read from disk once."""
    key = (batch_size, cache_folder())
    if key not in _SHARED:
        _SHARED[key] = LatencyTable.load(batch_size)
    return _SHARED[key]


def _smoothed(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take back what disturbed a measurement: a narrower layer is not slower than a wider one."""
    for axis in (0, 1):
        flipped = np.flip(seconds, axis)
        seconds = np.flip(np.minimum.accumulate(flipped, axis=axis), axis)
    return seconds


def measured_latency(
    model: nn.Module, input_shape: Sequence[int], batch_size: int = 1, repeats: int = 15
) -> float:
    """Return the time of the whole network's forward pass in seconds, the fastest of some."""
    training = {module: module.training for module in model.modules()}
    try:
        return fastest_seconds(model.eval(), torch.full((batch_size, *input_shape), 0.5), repeats)
    finally:
        for module, mode in training.items():
            module.training = mode


def machine_key(batch_size: int) -> str:
    """Return text that differs between machines, versions of torch, and numbers of threads."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [
            line for line in lines if line.startswith(("model name", "cpu MHz cache", "flags"))
        ]
        processor += "".join(sorted(set(names)))
    parts = [processor, torch.__version__, str(torch.get_num_threads()), str(batch_size), "1"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _read(path: Path | None) -> dict[str, Grid]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path else {}
        grids = {
            key: Grid(
                np.array(entry["inputs"], dtype=np.int64),
                np.array(entry["outputs"], dtype=np.int64),
                np.array(entry["seconds"], dtype=np.float64),
            )
            for key, entry in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {
        key: grid
        for key, grid in grids.items()
        if grid.seconds.shape == (len(grid.inputs), len(grid.outputs)) and grid.seconds.size
    }


def _write(path: Path, grids: dict[str, Grid]) -> None:
    """Write the table so that whoever reads meanwhile sees the old one or the new one."""
    content = {
        key: {
            "inputs": grid.inputs.tolist(),
            "outputs": grid.outputs.tolist(),
            "seconds": grid.seconds.tolist(),
        }
        for key, grid in grids.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(content, file)
    Path(name).replace(path)
