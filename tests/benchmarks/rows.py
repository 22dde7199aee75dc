"""The rows of benchmarks: what one must have, where they come from, and how they are shown."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("name", "median", "unit", "peer", "ratio", "goal")
Row = dict[str, object]


def check_row(row: Row) -> Row:
    """Return the row with its columns in order; ValueError when it can't be compared later."""
    if set(row) != set(COLUMNS):
        raise ValueError(f"a benchmark row has {sorted(row)}, but must have {list(COLUMNS)}")
    for column in ("median", "ratio"):
        value = row[column]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise ValueError(f"{row['name']}: {column} is {value!r}, but must be a finite number")
    for column in ("name", "unit", "peer", "goal"):
        if not isinstance(row[column], str) or not row[column]:
            raise ValueError(f"{row['name']}: {column} is {row[column]!r}, but must be a text")
    return {column: row[column] for column in COLUMNS}


def rows_of(name: str) -> list[Row]:
    """Return the rows of one module."""
    module = importlib.import_module(f"tests.benchmarks.{name}")
    return [check_row(row) for row in module.benchmarks()]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text, one line each."""
    cells = [COLUMNS, *(tuple(_shown(row[column]) for column in COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
