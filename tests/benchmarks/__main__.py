"""``python -m tests.benchmarks``: run all benchmarks, print a table, write reports/bench.json."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from tests.benchmarks.rows import Row, rows_of, table

if TYPE_CHECKING:
    from collections.abc import Sequence


def find_benchmarks(folder: Path, only: str = "") -> list[str]:
    """Return the names of the modules ``bench_*.py`` whose name contains ``only``, sorted."""
    return sorted(path.stem for path in folder.glob("bench_*.py") if only in path.stem)


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
            # A process each: what one has loaded and left behind is no memory of the next.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                rows += process.submit(rows_of, name).result()
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
