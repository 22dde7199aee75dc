"""Compiled inner loop of `annealed`: exchanges drawn at random, carried out or not.

What calls each other stays in one file, because numba's cache notices changes of a file only for
the functions in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.grouping._kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

BETTER = 1e-9
"""A sum of distances is lower by at least this, which is far above what rounding adds up to."""


@compiled
def exchange_at_random(  # noqa: PLR0917 - numba takes no keyword-only arguments
    pairs: NDArray[np.int64],
    limit: NDArray[np.float64],
    counts: NDArray[np.float64],
    assignment: NDArray[np.int64],
    allowed: NDArray[np.bool_],
    group_counts: NDArray[np.float64],
    target: NDArray[np.float64],
    chord: bool,
) -> None:
    """Carry out those exchanges that change the sum of distances by less than their limit.

    Parameters
    ----------
    pairs
        (P, 2) clients to exchange.
    limit
        (P,) by how much each exchange may change the sum of the distances.
    counts
        (N, C) samples of each class on each client.
    assignment
        (N,) group of each client; ends as the best that was visited.
    allowed
        (N, G), whether a client may join a group.
    group_counts
        (G, C) samples of each class in each group; changed on the way.
    target
        (C,) everyone's samples, to a sum of 1 for ``l1``, to unit length for ``chord``.
    chord
        The metric: ``chord`` or ``l1``.
    """
    emd = np.array([_distance(labels, target, chord) for labels in group_counts])
    mine, theirs = np.empty(target.size), np.empty(target.size)
    taken = np.empty(limit.size, dtype=np.int64)
    count, best_count, total, best_total = 0, 0, 0.0, 0.0
    for p in range(limit.size):
        i, j = pairs[p]
        group, other = assignment[i], assignment[j]
        if group == other or not (allowed[i, other] and allowed[j, group]):
            continue
        for c in range(target.size):
            mine[c] = group_counts[group, c] + (counts[j, c] - counts[i, c])
        mine_emd = _distance(mine, target, chord)
        change = mine_emd - emd[group] - emd[other]
        if change >= limit[p]:
            continue
        for c in range(target.size):
            theirs[c] = group_counts[other, c] - (counts[j, c] - counts[i, c])
        theirs_emd = _distance(theirs, target, chord)
        change += theirs_emd
        if change >= limit[p]:
            continue
        group_counts[group], group_counts[other] = mine, theirs
        emd[group], emd[other] = mine_emd, theirs_emd
        assignment[i], assignment[j] = other, group
        taken[count] = p
        count += 1
        total += change
        if total < best_total - BETTER:
            best_total, best_count = total, count
    for step in range(count - 1, best_count - 1, -1):
        i, j = pairs[taken[step]]
        assignment[i], assignment[j] = assignment[j], assignment[i]


@compiled
def _distance(labels: NDArray[np.float64], target: NDArray[np.float64], chord: bool) -> float:
    """Distance of a label vector from the target."""
    size = 0.0
    for value in labels:
        size += value * value if chord else value
    scale = 1.0 / max(np.sqrt(size) if chord else size, 1.0)
    result = 0.0
    for c in range(target.size):
        difference = labels[c] * scale - target[c]
        result += difference * difference if chord else abs(difference)
    return float(np.sqrt(result)) if chord else result
