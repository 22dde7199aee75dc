"""Runs side by side: one table, one figure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from workbench.search.config import differences
from workbench.search.run import Run

SIZES = (0.85, 0.70, 0.60, 0.55)
"""Shares of the initial size at which NAFNAS's accuracy table reads its runs."""

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Comparison:
    """Several runs by name; made by `compare`."""

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self.runs = dict(runs)

    def table(self, sizes: Sequence[float] = SIZES) -> pd.DataFrame:
        """One row a run: accuracy at given sizes, then what the last network and the search cost.

        The accuracy at a size is that of the first global model with at most this share of the
        initial bytes; NaN if the run did not get there. Hours are those of the testbed, virtual
        or real; traffic is that of all clients; computation is what an average client did in the
        search, without pre-training and tuning, as DecNAS counts.
        """
        return pd.DataFrame(
            {name: self._row(run, sizes) for name, run in self.runs.items()}
        ).T.rename_axis("run")

    def settings(self) -> pd.DataFrame:
        """Return the settings in which the runs differ: one row a setting, one column a run."""
        configs = {name: run.config for name, run in self.runs.items()}
        first = next(iter(configs.values()))
        places: list[str] = []
        for config in configs.values():
            for line in differences(first, config):
                place = line.split(":", 1)[0]
                if place not in places:
                    places.append(place)
        return pd.DataFrame(
            {
                name: {place: _at(config, place) for place in places}
                for name, config in configs.items()
            },
            index=places,
        )

    def _row(self, run: Run, sizes: Iterable[float]) -> dict[str, float]:
        frontier = run.frontier()
        row: dict[str, float] = {}
        share = frontier["size_bytes"] / frontier["size_bytes"].iloc[0]
        for size in sizes:
            reached = frontier[share <= size]
            row[f"accuracy at {size:.0%}"] = (
                float(reached["accuracy"].iloc[0]) if len(reached) else float("nan")
            )
        last = frontier.iloc[-1]
        costs = run.client_costs()
        return {
            **row,
            "iterations": run.iterations,
            "accuracy": float(last["accuracy"]),
            "MMACs": float(last["macs"]) / 1e6,
            "MB": float(last["size_bytes"]) / 1e6,
            "hours": float(frontier["duration_s"].sum()) / 3600,
            "mean round s": float(run.rounds()["duration_s"].mean()),
            "traffic GB": float(costs["total_bytes"]) / 1e9,
            "uplink MB a client": float(costs["uplink_bytes"]) / 1e6,
            "GMACs a client": float(costs["macs"]) / 1e9,
        }

    def _repr_html_(self) -> str:
        settings = self.settings()
        differ = settings.to_html() if len(settings) else "<p>in nothing</p>"
        return (
            self.table().to_html(float_format="{:.4g}".format)
            + "<p>The runs differ in:</p>"
            + differ
        )


def compare(
    runs: Sequence[str | Path | Run] | Mapping[str, str | Path | Run],
    *,
    allow_different_data: bool = False,
) -> Comparison:
    """Put runs side by side.

    Parameters
    ----------
    runs
        Runs or their folders; with a mapping, under the names that it gives.
    allow_different_data
        Whether the runs may have used different data sets or partitions.

    Raises
    ------
    ValueError
        If there is no run, two have the same name, a run has no result yet, or runs used
        different data and that was not asked for.
    """
    if isinstance(runs, Mapping):
        named = {name: _opened(run) for name, run in runs.items()}
    else:
        opened = [_opened(run) for run in runs]
        named = {run.path.name: run for run in opened}
        if len(named) < len(opened):
            raise ValueError(
                f"two runs have the same name: {sorted(run.path.name for run in opened)}; give "
                "names with a mapping"
            )
    if not named:
        raise ValueError("there is no run to compare")
    for name, run in named.items():
        if run.frontier().empty:
            raise ValueError(f"run {name!r} has no result yet")
    if not allow_different_data:
        data = {name: _data_of(run) for name, run in named.items()}
        first, known = next(iter(data.items()))
        for name, other in data.items():
            if other != known:
                raise ValueError(
                    f"runs {first!r} and {name!r} used different data "
                    f"({'; '.join(differences(known, other))}); pass allow_different_data=True "
                    "to compare them all the same"
                )
    return Comparison(named)


def _opened(run: str | Path | Run) -> Run:
    return run if isinstance(run, Run) else Run(run)


def _data_of(run: Run) -> dict[str, object]:
    """Return what decides which client had which samples; links may differ."""
    return {
        "dataset": run.config["dataset"],
        "label_counts": hashlib.sha256(run.fleet.label_counts.tobytes()).hexdigest()[:12],
    }


def _at(config: Mapping[str, object], place: str) -> object:
    value: object = config
    for key in place.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
