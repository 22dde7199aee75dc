"""The groups while clients are exchanged: members, label counts and distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.grouping._kernels import distance
from workbench.grouping.divergence import Metric, group_counts
from workbench.grouping.result import Swap

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Groups:
    """G groups of N clients over C classes that a strategy changes step by step.

    Attributes
    ----------
    counts
        (N, C) float64, samples of each class on each client; whole numbers.
    tier
        (N,) int64, numbered from 0 to ``tiers`` - 1.
    assignment
        (N,) int64.
    allowed
        (N, G), whether a client may join a group; empty if every client may join any.
    chord
        Whether the metric is ``chord`` (``l1`` otherwise).
    group_counts
        (G, C) float64, samples of each class in each group.
    everyone
        (C,) float64, samples of each class over all clients that take part.
    target
        (C,) float64, the same scaled: to a sum of 1 for ``l1``, to unit length for ``chord``.
    members
        For each group its clients' rows, ascending.
    emd
        (G,) float64, distance of each group.
    """

    def __init__(
        self,
        counts: NDArray[np.int64],
        tier: NDArray[np.int64],
        assignment: NDArray[np.int64],
        groups: int,
        *,
        metric: Metric,
        allowed: NDArray[np.bool_] | None,
    ) -> None:
        self.counts = counts.astype(np.float64)
        # Only whether two tiers are the same counts; numbered from 0 they can be tallied.
        self.tier = np.unique(tier, return_inverse=True)[1]
        self.tiers = int(self.tier.max()) + 1
        self.assignment = assignment.copy()
        self.allowed = np.empty((0, 0), dtype=np.bool_) if allowed is None else allowed
        self.chord = metric == "chord"
        self.group_counts = group_counts(counts, assignment, groups).astype(np.float64)
        self.everyone = self.group_counts.sum(axis=0)
        size = np.linalg.norm(self.everyone) if self.chord else self.everyone.sum()
        self.target = self.everyone / max(size, 1.0)
        self.members = [np.flatnonzero(assignment == group) for group in range(groups)]
        self.emd = np.array(
            [distance(vector, self.target, self.chord) for vector in self.group_counts]
        )

    def exchange(self, iteration: int, group: int, leaves: int, joins: int) -> Swap:
        """Exchange two clients, ``leaves`` of ``group``, and tell what happened."""
        neighbour = int(self.assignment[joins])
        self.assignment[leaves], self.assignment[joins] = neighbour, group
        difference = self.counts[joins] - self.counts[leaves]
        self.group_counts[group] += difference
        self.group_counts[neighbour] -= difference
        for changed in (group, neighbour):
            self.members[changed] = np.flatnonzero(self.assignment == changed)
            self.emd[changed] = distance(self.group_counts[changed], self.target, self.chord)
        return Swap(iteration, group, neighbour, leaves, joins, float(self.emd.mean()))
