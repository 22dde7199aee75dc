"""``python -m tests.benchmarks``: run all benchmarks, print a table, write reports/bench.json."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("name", "median", "unit", "peer", "ratio", "goal")
Row = dict[str, object]


def find_benchmarks(folder: Path, only: str = "") -> list[str]:
    """Return the names of the modules ``bench_*.py`` whose name contains ``only``, sorted."""
    return sorted(path.stem for path in folder.glob("bench_*.py") if only in path.stem)


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


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text, one line each."""
    cells = [COLUMNS, *(tuple(_shown(row[column]) for column in COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; the exit status is 1 when a benchmark raised or none was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="run the files with this in their name")
    parser.add_argument("--output", type=Path, default=Path("reports/bench.json"))
    options = parser.parse_args(arguments)

    names = find_benchmarks(Path(__file__).parent, options.only)
    if not names:
        print(f"no benchmark has {options.only!r} in its name", file=sys.stderr)
        return 1
    rows: list[Row] = []
    failed = []
    for name in tqdm(names, unit="file"):
        try:
            module = importlib.import_module(f"tests.benchmarks.{name}")
            rows += [check_row(row) for row in module.benchmarks()]
        except Exception:  # noqa: BLE001 - the others are worth having all the same
            traceback.print_exc()
            failed.append(name)
    print(table(rows))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\nWritten to {options.output}")
    if failed:
        print(f"These raised: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
