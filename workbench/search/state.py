"""Where a search stands after a complete round: everything that it needs to go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.federation.records import Job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Phase = Literal["search", "tune", "done"]


@dataclass
class State:
    """The search between two rounds.

    ``iteration`` 0 is pre-training. ``jobs`` are the candidates that are still in the race, with
    their present weights; it is empty before an iteration was proposed. ``assignment`` (N,) is the
    group of each client in this iteration.
    """

    phase: Phase = "search"
    iteration: int = 0
    round: int = 0
    rounds_done: int = 0
    time_s: float = 0.0
    began_s: float = 0.0
    accuracy: float = float("nan")
    jobs: list[Job] = field(default_factory=list)
    assignment: list[int] = field(default_factory=list)
    groups: int = 0
    local_accuracy: dict[int, float] = field(default_factory=dict)

    def members(self, group: int) -> NDArray[np.int64]:
        """Rows of the clients of a group."""
        return np.flatnonzero(np.asarray(self.assignment, dtype=np.int64) == group)

    def job(self, candidate: int) -> Job:
        """Return the job of a candidate."""
        return next(job for job in self.jobs if job.candidate == candidate)

    def pack(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return this state as JSON-able data and tensors, for a checkpoint."""
        data: dict[str, Any] = {
            "phase": self.phase,
            "iteration": self.iteration,
            "round": self.round,
            "rounds_done": self.rounds_done,
            "time_s": self.time_s,
            "began_s": self.began_s,
            # JSON has no NaN
            "accuracy": None if np.isnan(self.accuracy) else self.accuracy,
            "assignment": self.assignment,
            "groups": self.groups,
            "local_accuracy": [[key, value] for key, value in self.local_accuracy.items()],
            "jobs": [
                {
                    "candidate": job.candidate,
                    "architecture": job.architecture,
                    "macs_per_sample": job.macs_per_sample,
                }
                for job in self.jobs
            ],
        }
        tensors = {
            f"{job.candidate}.{name}": array
            for job in self.jobs
            for name, array in job.weights.items()
        }
        return data, tensors

    @classmethod
    def unpack(cls, data: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> State:
        """Make the state again that `pack` wrote."""
        jobs = [
            Job(
                candidate=entry["candidate"],
                architecture=entry["architecture"],
                macs_per_sample=entry["macs_per_sample"],
                weights={
                    name.split(".", 1)[1]: array
                    for name, array in tensors.items()
                    if name.split(".", 1)[0] == str(entry["candidate"])
                },
            )
            for entry in data["jobs"]
        ]
        plain = ("phase", "iteration", "round", "rounds_done", "time_s", "began_s")
        return cls(
            **{name: data[name] for name in plain},
            accuracy=float("nan") if data["accuracy"] is None else data["accuracy"],
            assignment=list(data["assignment"]),
            groups=data["groups"],
            local_accuracy={int(key): value for key, value in data["local_accuracy"]},
            jobs=jobs,
        )
