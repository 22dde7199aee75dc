"""Compiled inner loops of NetDAG: score every exchange of a group, and find the best one.

All of them are in this file, because numba's cache notices a changed function only if its caller
is in the same file.

``target`` is the label vector of all clients, scaled as the metric has it: to proportions for
``l1``, to unit length for ``chord``. Two scores closer than `EQUAL` are equal: that is far above
rounding and far below any real difference, so ties are decided as in exact arithmetic, whatever
the order of summation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Function = TypeVar("Function", bound=Callable[..., object])

EQUAL = 1e-12
"""Distances, and sums of them, that differ by less are equal."""


def compiled(function: Function) -> Function:
    """Compile a function at its first call and keep the machine code on disk for later runs."""
    decorate = njit(cache=True, nogil=True, error_model="numpy")
    return cast("Function", decorate(function))


@compiled
def distance(vector: NDArray[np.float64], target: NDArray[np.float64], chord: bool) -> float:
    """Distance of a label vector (C,) from the target; a vector without samples stays zero."""
    size = 0.0
    for c in range(vector.size):
        size += vector[c] * vector[c] if chord else vector[c]
    scale = 1.0 / max(np.sqrt(size) if chord else size, 1.0)
    result = 0.0
    for c in range(vector.size):
        difference = vector[c] * scale - target[c]
        result += difference * difference if chord else abs(difference)
    return float(np.sqrt(result)) if chord else result


@compiled
def score_changed(  # noqa: PLR0917 - numba takes no keyword-only arguments
    labels: NDArray[np.float64],
    sign: float,
    changing: NDArray[np.float64],
    clients: int,
    target: NDArray[np.float64],
    chord: bool,
    score: NDArray[np.float64],
) -> None:
    """Distance of a group from the target, for each client that may join or leave it.

    `distance` for many vectors at once: the loops over the clients are innermost, where the
    compiler turns them into vector instructions.

    Parameters
    ----------
    labels
        (C,) labels of the group without the change.
    sign
        1 if the clients join, -1 if they leave.
    changing
        (C, J) labels of each of the clients; the first ``clients`` are scored.
    target
        (C,) labels of all clients, scaled.
    chord
        The metric: ``chord`` or ``l1``.
    score
        (J,) receives the distances.
    """
    scale = np.zeros(clients)
    for c in range(target.size):
        row, rest = changing[c], labels[c]
        for j in range(clients):
            samples = rest + sign * row[j]
            scale[j] += samples * samples if chord else samples
    for j in range(clients):
        scale[j] = 1.0 / max(np.sqrt(scale[j]) if chord else scale[j], 1.0)
        score[j] = 0.0
    for c in range(target.size):
        row, rest, goal = changing[c], labels[c], target[c]
        for j in range(clients):
            difference = (rest + sign * row[j]) * scale[j] - goal
            score[j] += difference * difference if chord else abs(difference)
    if chord:
        for j in range(clients):
            score[j] = np.sqrt(score[j])


@compiled
def columns(counts: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the labels of some clients, a column each, (C, rows)."""
    result = np.empty((counts.shape[1], rows.size))
    for position in range(rows.size):
        for c in range(counts.shape[1]):
            result[c, position] = counts[rows[position], c]
    return result


@compiled
def best_exchange(  # noqa: PLR0917 - numba takes no keyword-only arguments
    leaving: NDArray[np.int64],
    joining: NDArray[np.int64],
    counts: NDArray[np.float64],
    tier: NDArray[np.int64],
    assignment: NDArray[np.int64],
    allowed: NDArray[np.bool_],
    group_counts: NDArray[np.float64],
    emd: NDArray[np.float64],
    target: NDArray[np.float64],
    group: int,
    coeff: float,
    chord: bool,
) -> tuple[int, int]:
    """Return the proposal of a group with the smallest mean distance, the first of equals.

    ``leaving`` are clients of the group, ``joining`` clients of its neighbours, both in the order
    in which they are visited. ``allowed[k, g]`` tells whether client k may join group g; an empty
    array allows everything.

    Returns
    -------
    The client that leaves and the one that joins, -1 if nothing brings the mean down.
    """
    joined = columns(counts, joining)
    joining_tier = np.empty_like(joining)
    for position in range(joining.size):
        joining_tier[position] = tier[joining[position]]
    here = np.empty(joining.size)
    without, there = np.empty(target.size), np.empty(target.size)
    same, other = emd[group] - EQUAL, emd[group] * coeff - EQUAL
    best_i, best_j, best_change = -1, -1, 0.0
    for i in leaving:
        for c in range(target.size):
            without[c] = group_counts[group, c] - counts[i, c]
        score_changed(without, 1.0, joined, joining.size, target, chord, here)
        for position in range(joining.size):
            if here[position] >= (same if tier[i] == joining_tier[position] else other):
                continue
            j = joining[position]
            neighbour = assignment[j]
            if allowed.size > 0 and not (allowed[i, neighbour] and allowed[j, group]):
                continue
            change = here[position] - emd[group] - emd[neighbour]
            if change >= best_change - EQUAL:
                continue
            for c in range(target.size):
                there[c] = group_counts[neighbour, c] + (counts[i, c] - counts[j, c])
            change += distance(there, target, chord)
            if change < best_change - EQUAL:
                best_i, best_j, best_change = i, j, change
    return best_i, best_j


@compiled
def project(
    counts: NDArray[np.float64], rows: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the product of each weight (W, C) with the labels of each row, (W, rows)."""
    result = np.empty((weights.shape[0], rows.size))
    for position in range(rows.size):
        for w in range(weights.shape[0]):
            value = 0.0
            for c in range(weights.shape[1]):
                value += weights[w, c] * counts[rows[position], c]
            result[w, position] = value
    return result


@compiled
def search_sorted(  # noqa: C901, PLR0917 - one loop over pairs; numba takes no keyword-only ones
    leaving: NDArray[np.int64],
    leaving_key: NDArray[np.float64],
    joining: NDArray[np.int64],
    joining_key: NDArray[np.float64],
    limit: float,
    by_gain: bool,
    bound: float,
    tau: float,
    group: int,
    neighbour: int,
    counts: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    group_counts: NDArray[np.float64],
    emd: NDArray[np.float64],
    target: NDArray[np.float64],
    chord: bool,
) -> tuple[int, int, float]:
    """Score the pairs whose keys differ by at most ``limit``; return the best, first of equals.

    The clients are sorted by their key, descending those that leave and ascending those that join,
    so that each of the former has fewer partners than the one before. Only changes up to ``bound``
    count; if the key is the gain, ``limit`` falls with it.
    """
    joined = columns(counts, joining)
    here, there = np.empty(joining.size), np.empty(joining.size)
    labels = np.empty(target.size)
    best_i, best_j, best_change = -1, -1, bound
    partners = joining.size
    for a in range(leaving.size):
        reach = leaving_key[a] + limit + (best_change + 2 * EQUAL if by_gain else 0.0)
        while partners > 0 and joining_key[partners - 1] > reach:
            partners -= 1
        if partners == 0:
            break
        i = leaving[a]
        for c in range(target.size):
            labels[c] = group_counts[group, c] - counts[i, c]
        score_changed(labels, 1.0, joined, partners, target, chord, here)
        most = min(tau - 2 * EQUAL, best_change + emd[group] + emd[neighbour])
        proposals = 0
        for b in range(partners):
            proposals += here[b] <= most + EQUAL
        if proposals == 0:
            continue
        for c in range(target.size):
            labels[c] = group_counts[neighbour, c] + counts[i, c]
        score_changed(labels, -1.0, joined, partners, target, chord, there)
        for b in range(partners):
            if here[b] > most + EQUAL:
                continue
            change = (here[b] - emd[group]) + (there[b] - emd[neighbour])
            if change > best_change + EQUAL:
                continue
            j = joining[b]
            if allowed.size > 0 and not (allowed[i, neighbour] and allowed[j, group]):
                continue
            earlier = best_i < 0 or i < best_i or (i == best_i and j < best_j)
            if change < best_change + (EQUAL if earlier else -EQUAL):
                best_i, best_j, best_change = i, j, change
    return best_i, best_j, best_change
