"""Sees to it that a CORE session does not outlive its notebook: ``python -P core_guard.py``.

The daemon keeps a session until somebody deletes it. So this waits beside the notebook, in a
process of its own, and deletes the session when the notebook has ended without doing so, be it by
SIGKILL. Until then it has loaded nothing.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import types
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    # The public API loads what this has no use for.
    package = types.ModuleType("workbench")
    package.__path__ = [str(Path(__file__).resolve().parent.parent)]
    sys.modules["workbench"] = package

from workbench.testbed import linux


def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """Start a guard over a session that is written down in a folder; kill it once that is gone."""
    owner = [str(os.getpid()), str(linux.start_time(os.getpid()))]
    return subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, "-P", __file__, *owner, str(folder), name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(process: int, started: int, folder: Path, name: str) -> None:
    """Wait until the notebook's process has ended, and remove what is written down then."""
    linux.set_process_name(name)
    with suppress(ProcessLookupError):
        notebook = os.pidfd_open(process)
        if linux.start_time(process) == started:
            select.select([notebook], [], [])

    from workbench.testbed.core_remains import read_record  # noqa: PLC0415

    if record := read_record(folder):
        record.remove()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
