"""Find and remove what testbeds of this machine left behind, and nothing else.

A testbed's keeper goes as soon as the notebook's process is gone, so there is something to clean
up only where the keeper was killed as well, or hangs. What is ours is told by a folder that
carries our mark; in it stands whose it is. Numbers of processes are used again, so a process
counts as the one that was written down only if it also started at the same time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.testbed import linux

PREFIX = "workbench-testbed-"
_OWNER = "owner.json"


@dataclass(frozen=True)
class Leftover:
    """A testbed's folder, and what became of it."""

    folder: str
    outcome: str


def new_folder(number: str) -> Path:
    """Make a folder for a testbed, for this user's eyes only."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{number}-"))


def remove_folder(folder: Path) -> None:
    """Remove a testbed's folder."""
    shutil.rmtree(folder, ignore_errors=True)


def write_owner(folder: Path, mark: str) -> None:
    """Write down whose testbed this is: this process's."""
    owner = {"mark": mark, "process": os.getpid(), "started": linux.start_time(os.getpid())}
    (folder / _OWNER).write_text(json.dumps(owner))


def cleanup() -> list[Leftover]:
    """Take down the testbeds whose notebook is gone; those in use are left alone.

    Only folders and processes of this user that carry a testbed's mark are touched.
    """
    return [_clean(folder) for folder in folders()]


def folders() -> list[Path]:
    """Return the folders of this user's testbeds, in use or not."""
    found = sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))
    return [
        folder
        for folder in found
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()
    ]


def _clean(folder: Path) -> Leftover:
    try:
        owner = json.loads((folder / _OWNER).read_text())
        mark, process, started = owner["mark"], int(owner["process"]), int(owner["started"])
    except (OSError, ValueError, KeyError):
        # Not written yet, or never: a testbed that is just coming up is a few seconds old.
        if time.time() - folder.stat().st_mtime < 60:
            return Leftover(str(folder), "left alone: it is just being put up")
        mark, process, started = "", 0, 0
    if process and linux.start_time(process) == started:
        return Leftover(str(folder), f"left alone: process {process} uses it")
    killed = 0
    for number in linux.processes():
        if mark and linux.process_name(number).startswith(f"{mark}-"):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
                killed += 1
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        return Leftover(str(folder), "could not be removed")
    return Leftover(str(folder), f"removed, {killed} processes killed")
