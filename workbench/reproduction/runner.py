"""The papers' tables and figures by one command each: ``python -m workbench reproduce NAME``.

A reproduction is a notebook in ``notebooks/paper``. Its parameters cell names the profile; its
metadata says, under ``workbench.reproduction``, what it reproduces, how long it takes and how much
memory it needs in each profile, and how many whole searches of each setting the full one amounts
to.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from workbench import notebooks
from workbench.reproduction import scale as scales
from workbench.reproduction.scale import GPU_MACS_PER_S, Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parents[2] / "notebooks" / "paper"
PROFILES: tuple[Profile, ...] = get_args(Profile)


@dataclass(frozen=True)
class Entry:
    """One notebook that reproduces something.

    Attributes
    ----------
    name, path
        Its name on the command line, and where it is.
    reproduces
        What of which paper.
    minutes, memory_gb
        By profile, measured on 2 cores; the memory of the profile paper is estimated.
    searches
        How many whole searches of each setting it takes in full.
    """

    name: str
    path: Path
    reproduces: str
    minutes: Mapping[str, float]
    memory_gb: Mapping[str, float]
    searches: dict[str, float]

    @property
    def paper_hours(self) -> float:
        """Estimated hours of the full reproduction on one GPU."""
        return scales.paper_hours(self.searches)


@dataclass(frozen=True)
class Reproduced:
    """What a reproduction left behind: three files and the text of its summary."""

    notebook: Path
    report: Path
    result: Path
    summary: str
    duration_s: float


def entries(folder: Path = FOLDER) -> dict[str, Entry]:
    """Return all reproductions by name.

    Raises
    ------
    FileNotFoundError
        If there is no such folder: the notebooks come with a clone, not with the package.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; reproductions are notebooks of a clone of the project"
        )
    found = {}
    for path in notebooks.notebook_paths(folder):
        said = notebooks.read_notebook(path).metadata.get("workbench", {}).get("reproduction")
        if said is None:
            continue
        found[path.stem] = Entry(
            name=path.stem,
            path=path,
            reproduces=said["reproduces"],
            minutes=dict(said["minutes"]),
            memory_gb=dict(said["memory_gb"]),
            searches=dict(said["searches"]),
        )
    return found


def listing(folder: Path = FOLDER) -> str:
    """Return the names with what they reproduce, their time and their memory, as text."""
    lines = []
    for entry in entries(folder).values():
        lines.append(f"{entry.name}: {entry.reproduces}")
        told = []
        for profile in PROFILES:
            if profile == "paper":
                told.append(
                    f"paper about {_hours(entry.paper_hours)} on a GPU, "
                    f"{entry.memory_gb[profile]:g} GB (both estimated)"
                )
            elif profile in entry.minutes:
                told.append(
                    f"{profile} {entry.minutes[profile]:g} min, {entry.memory_gb[profile]:g} GB"
                )
        lines.append("    " + "; ".join(told))
    return "\n".join(lines)


def estimate(entry: Entry) -> str:
    """Return what is to be known before a full reproduction starts."""
    return (
        f"{entry.name} at the profile paper: about {_hours(entry.paper_hours)} on one GPU that "
        f"does {GPU_MACS_PER_S:.0e} multiply-accumulates a second, estimated from the number of "
        "samples that are trained on and never measured. It can be stopped with Ctrl-C and goes "
        "on where it was when the same command is given again."
    )


def reproduce(
    name: str,
    profile: Profile = "smoke",
    *,
    parameters: Mapping[str, str] | None = None,
    output: str | Path = "reports/paper",
    work: str | Path = "",
    folder: Path = FOLDER,
    progress: bool = True,
    say: Callable[[str], object] = lambda _: None,
) -> Reproduced:
    """Run one reproduction, or go on with it.

    Parameters
    ----------
    name
        One of `entries`.
    profile
        ``smoke``: seconds, on scikit-learn's digits; ``laptop``: real images, up to an hour on 2
        cores; ``paper``: the published setting in full.
    parameters
        Other parameters of the notebook, as text.
    output
        Where the executed notebook, its report and ``result.json`` go, in a folder of their own.
    work
        Folder in which ``runs`` is, with the run folders that it goes on from.
    folder
        Where the notebooks are.
    progress
        Whether to show a progress bar.
    say
        Is told the estimated time of a full reproduction before it starts.

    Raises
    ------
    ValueError
        If a name, the profile, a parameter or its value is unknown or wrong; the message names
        what there is.
    workbench.notebooks.NotebookFailedError
        If a cell raised.
    """
    known = entries(folder)
    if name not in known:
        raise ValueError(f"there is no reproduction {name!r}; there are {', '.join(known)}")
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}, but must be one of {', '.join(PROFILES)}")
    entry = known[name]
    notebook = notebooks.read_notebook(entry.path)
    given = notebooks.parse_parameters(notebook, {**(parameters or {}), "profile": profile})
    if profile == "paper":
        say(estimate(entry))
    target = Path(output) / f"{name}-{profile}"
    result = Path(work) / "runs" / "results" / f"{name}-{profile}.json"
    result.unlink(missing_ok=True)
    began = time.monotonic()
    ran = notebooks.run_notebook(
        entry.path, parameters=given, reports=target, working_folder=work or ".", progress=progress
    )
    if not result.is_file():
        raise RuntimeError(f"{entry.path.name} wrote no result; its last cell must call write()")
    kept = Path(shutil.copyfile(result, target.resolve() / "result.json"))
    return Reproduced(
        notebook=ran.notebook,
        report=ran.report,
        result=kept,
        summary=ran.summary,
        duration_s=time.monotonic() - began,
    )


def kept_results(folder: Path = FOLDER / "results") -> dict[str, dict[str, Any]]:
    """Return the results that are kept with the project, by name."""
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
    }


def parameters_of(entry: Entry) -> dict[str, notebooks.Scalar]:
    """Return the parameters that a reproduction takes, with their defaults."""
    notebook: NotebookNode = notebooks.read_notebook(entry.path)
    return notebooks.default_parameters(notebook)


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} minutes"
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"
