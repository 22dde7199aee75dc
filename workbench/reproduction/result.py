"""What a reproduction found, beside what the paper says: collected in a notebook, kept as JSON."""

from __future__ import annotations

import json
import math
import platform
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
import torch

from workbench.reproduction.scale import Profile, Setting, differences, scale
from workbench.reproduction.task import Task, fingerprint, seconds
from workbench.search.folder import manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from workbench.reproduction.scale import Scale
    from workbench.search.run import Run

FORMAT = 1
FOLDER = "runs"
PUBLISHED_CLIENTS = (56, 112, 210)
"""NAFNAS ran with all of these."""
_DATASETS = {
    "digits": "scikit-learn's 8x8 digits",
    "cifar10": "CIFAR-10",
    "celeba": "CelebA",
    "imagenet": "ImageNet",
}
_NAMES = {
    "dataset": "data set",
    "samples": "images (0: all)",
    "image_size": "image size",
    "clients": "clients (0: each person one)",
    "width": "width of the network",
    "server_fraction": "share of the images for pre-training",
    "pretrain_epochs": "epochs of pre-training",
    "rounds": "rounds, where they are fixed",
    "local_epochs": "local epochs",
    "batch_size": "batch size",
    "learning_rate": "learning rate",
    "step": "NetAdapt's first step",
    "iterations": "iterations at most",
    "tune_rounds": "rounds of tuning",
    "groups": "groups (0: one a candidate)",
    "most_rounds": "rounds at most, where they are dynamic (0: as published)",
}


def published(paper: str) -> dict[str, Any]:
    """Return the numbers that a paper gives, each table with its source.

    Raises
    ------
    ValueError
        If there is no such paper.
    """
    file = resources.files(__package__) / "papers" / f"{paper}.json"
    if not file.is_file():
        raise ValueError(f"paper is {paper!r}, but must be nafnas or decnas")
    numbers: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return numbers


class Reproduction:
    """The result of one notebook while it is made.

    Parameters
    ----------
    name
        Of the notebook.
    profile
        ``smoke``, ``laptop`` or ``paper``.
    seed
        The first one; where there are several, they follow.
    changes
        Fields of every `Scale` that are to differ from the profile's; None leaves one as it is.
    """

    def __init__(self, name: str, profile: Profile, *, seed: int = 7, **changes: Any) -> None:  # noqa: ANN401
        self.name = name
        self.profile: Profile = profile
        self.seed = seed
        self.changes = {key: value for key, value in changes.items() if value is not None}
        self.rows: list[dict[str, Any]] = []
        self.claims: list[dict[str, Any]] = []
        self.tasks: list[Task] = []
        self.notes: list[str] = []
        self.tables: dict[str, dict[str, Any]] = {}
        self._began = time.monotonic()

    # ------------------------------------------------------------------ settings

    def scale(self, setting: Setting, **changes: Any) -> Scale:  # noqa: ANN401
        """Return the profile's scale of a setting with the changes that were asked for."""
        return scale(setting, self.profile, **{**changes, **self.changes})

    def task(self, setting: Setting, *, seed: int = 0, **changes: Any) -> Task:  # noqa: ANN401
        """Return a setting at this profile's scale; ``seed`` counts from the first one."""
        task = Task(setting, self.scale(setting, **changes), seed=self.seed + seed, folder=FOLDER)
        self.tasks.append(task)
        return task

    def settings(self) -> pd.DataFrame:
        """Return what is smaller or different than in the paper: one row a setting."""
        return pd.DataFrame(
            self._differing(), columns=["setting", "what", "paper", "here"], dtype=object
        )

    def _differing(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for task in self.tasks:
            for name, (before, here) in differences(task.setting, task.scale).items():
                if task.setting == "nafnas" and name == "clients" and here in PUBLISHED_CLIENTS:
                    continue
                row = {
                    "setting": task.setting,
                    "what": _NAMES[name],
                    "paper": _DATASETS.get(str(before), before),
                    "here": _DATASETS.get(str(here), here),
                }
                if row not in rows:
                    rows.append(row)
        return rows

    def note(self, text: str) -> None:
        """Add a sentence on how the settings differ that no number tells."""
        if text not in self.notes:
            self.notes.append(text)

    # ------------------------------------------------------------------ findings

    def row(
        self,
        what: str,
        reproduced: float | Sequence[float],
        published: float | None,
        unit: str,
        runs: Sequence[Run] = (),
    ) -> None:
        """Add a number: ours (or one for each seed), and the paper's if it gives one.

        ``runs`` are those that it was read from; a number without them comes from the kept tables.
        """
        values = [float(value) for value in np.atleast_1d(np.asarray(reproduced, dtype=float))]
        there = [value for value in values if math.isfinite(value)]
        mean = float(np.mean(there)) if there else None
        spread = float(np.std(there, ddof=1)) if len(there) > 1 else None
        if spread is not None and mean is not None and spread < 1e-9 * abs(mean):
            spread = 0.0
        self.rows.append(
            {
                "what": what,
                "unit": unit,
                "published": published,
                "reproduced": _rounded(mean),
                "difference": (
                    None if mean is None or published is None else _rounded(mean - published)
                ),
                "spread": _rounded(spread),
                "seeds": len(there),
                "runs": sorted({run.path.name for run in runs}) or sorted(self.tables),
            }
        )

    def claim(self, text: str, holds: bool | None, detail: str) -> None:
        """Add a statement of the paper, whether it holds here, and by what one sees that.

        None says that these runs can't tell.
        """
        held = None if holds is None else bool(holds)
        self.claims.append({"text": text, "holds": held, "detail": detail})

    def table(self) -> pd.DataFrame:
        """Return the numbers: one row each, ours beside the paper's."""
        columns = ["what", "unit", "published", "reproduced", "difference", "spread", "seeds"]
        numbers = dict.fromkeys(["published", "reproduced", "difference", "spread"], float)
        return pd.DataFrame(self.rows, columns=columns).astype(numbers)

    def sentence(self) -> str:
        """Return in plain words what agrees with the paper and what does not."""
        said = {True: "Agrees", False: "Does not agree", None: "Can't be told from these runs"}
        only = "This profile shows that everything runs; its numbers mean nothing."
        lines = [only] if self.profile == "smoke" else []
        lines += [
            f"{said[claim['holds']]}: {claim['text']} ({claim['detail']})."
            for held in (True, False, None)
            for claim in self.claims
            if claim["holds"] is held
        ]
        return "\n".join(lines)

    # ------------------------------------------------------------------ the file

    def write(self) -> Path:
        """Write the result as JSON into the folder of the runs, and return where."""
        target = Path(FOLDER) / "results" / f"{self.name}-{self.profile}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_suffix(".part")
        scratch.write_text(json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n", "utf-8")
        return scratch.replace(target)

    def as_dict(self) -> dict[str, Any]:
        """Return everything that was found, JSON-able; no path of this machine is in it."""
        runs = {run.path.name: run for task in self.tasks for run in task.runs.values()}
        return {
            "format": FORMAT,
            "name": self.name,
            "profile": self.profile,
            "seed": self.seed,
            "smaller_than_paper": self._differing(),
            "notes": self.notes,
            "rows": self.rows,
            "claims": self.claims,
            "took_s": round(time.monotonic() - self._began, 1),
            "computed_s": round(
                sum(seconds(run) for run in runs.values())
                + sum(table["seconds"] for table in self.tables.values()),
                1,
            ),
            "peak_memory_mb": round(_peak_memory_bytes() / 1e6),
            "runs": {
                name: {"seconds": round(seconds(run), 1), "git_commit": run.manifest["git_commit"]}
                for name, run in sorted(runs.items())
            }
            | self.tables,
            "machine": machine(),
        }

    def kept(
        self, name: str, config: Mapping[str, Any], make: Callable[[], pd.DataFrame]
    ) -> pd.DataFrame:
        """Return a table that takes no training, made once and kept in a run folder of its own.

        Parameters
        ----------
        name
            Of the table.
        config
            Everything that it depends on, JSON-able.
        make
            Makes it.
        """
        folder = Path(FOLDER) / f"{name}-{fingerprint(config)}"
        path = folder / "table.csv"
        if not path.exists():
            began = time.monotonic()
            table = make()
            folder.mkdir(parents=True, exist_ok=True)
            about = {"config": config, "seconds": time.monotonic() - began, **machine()}
            (folder / "config.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
            scratch = folder / ".table.part"
            table.to_csv(scratch, index=False, na_rep="nan")
            scratch.replace(path)
        about = json.loads((folder / "config.json").read_text("utf-8"))
        self.tables[folder.name] = {
            "seconds": round(about["seconds"], 1),
            "git_commit": about["git_commit"],
        }
        return pd.read_csv(path, keep_default_na=False, na_values=["nan"])


def machine() -> dict[str, Any]:
    """Return versions and what the machine is, without anything that tells whose it is."""
    found = manifest()
    kept = ("python", "packages", "workbench", "git_commit", "platform", "cpus")
    return {
        **{name: found[name] for name in kept},
        "processor": platform.machine(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "threads": torch.get_num_threads(),
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def results(folder: Path) -> pd.DataFrame:
    """Return all kept results as one table: one row a number."""
    rows: list[Mapping[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text("utf-8"))
        head = {"name": found["name"], "profile": found["profile"]}
        rows += [head | row for row in found["rows"]]
    names = ["name", "profile", "what", "unit", "published", "reproduced", "difference", "spread"]
    return pd.DataFrame(rows, columns=names)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _peak_memory_bytes() -> int:
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return int(psutil.Process().memory_info().rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
