"""Compiled inner loops of NetDAG: score the exchanges of one group, and carry one out.

Everything that calls each other stays in this one file, because numba's cache notices changes of
a file only for the functions in it.

Label counts are float64 whole numbers, so their sums and products are exact (up to 2**53) and do
not depend on the order of summation. Two scores closer than `EQUAL` are equal: that is far above
rounding and far below any real difference, so ties are decided as in exact arithmetic.

The half-space that spares most of the scoring
----------------------------------------------
Whether a label vector v lies closer than tau to the distribution P of everyone is a convex
question in v for both metrics, so a linear function of v has to be negative first. With the
group's present vector n, total T of everyone and sigma = sign(n / |n| - P), norms as the metric
has them:

    l1      distance(v) < tau  =>  (|T| sigma - sigma.T) . v        <  tau |T| |v|
    chord   distance(v) < tau  =>  -T . v  <  -(1 - tau**2 / 2) |T| (n / |n|) . v

Both read ``pull . v < slope(tau) * mass . v``. As v = n - a_i + a_j, each side is a sum of one
number for each client, computed once, and a pair costs two additions instead of a pass over the
classes. What passes is scored exactly.
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
def distance(vector: NDArray[np.float64], everyone: NDArray[np.float64], chord: bool) -> float:
    """Distance of a label vector (C,) from everyone's; 1 for a vector without samples."""
    result = 0.0
    if chord:
        squares = 0.0
        target = 0.0
        for c in range(vector.size):
            squares += vector[c] * vector[c]
            target += everyone[c] * everyone[c]
        if squares == 0.0 or target == 0.0:
            return 1.0 if target > 0.0 else 0.0
        scale = 1.0 / np.sqrt(squares)
        target_scale = 1.0 / np.sqrt(target)
        for c in range(vector.size):
            difference = vector[c] * scale - everyone[c] * target_scale
            result += difference * difference
        return float(np.sqrt(result))
    samples = 0.0
    total = 0.0
    for c in range(vector.size):
        samples += vector[c]
        total += everyone[c]
    if samples == 0.0 or total == 0.0:
        return 1.0 if total > 0.0 else 0.0
    for c in range(vector.size):
        result += abs(total * vector[c] - samples * everyone[c])
    return result / (total * samples)


@compiled
def tangent(
    vector: NDArray[np.float64],
    everyone: NDArray[np.float64],
    chord: bool,
    pull: NDArray[np.float64],
    mass: NDArray[np.float64],
) -> None:
    """Fill ``pull`` and ``mass`` (C,) of the half-space at a group's vector; see the top."""
    if chord:
        squares = 0.0
        target = 0.0
        for c in range(vector.size):
            squares += vector[c] * vector[c]
            target += everyone[c] * everyone[c]
        scale = np.sqrt(target / squares) if squares > 0.0 else 0.0
        for c in range(vector.size):
            pull[c] = -everyone[c]
            mass[c] = scale * vector[c]
        return
    samples = vector.sum()
    total = everyone.sum()
    offset = 0.0
    for c in range(vector.size):
        pull[c] = np.sign(total * vector[c] - samples * everyone[c])
        offset += pull[c] * everyone[c]
    for c in range(vector.size):
        pull[c] = total * pull[c] - offset
        mass[c] = total


@compiled
def best_exchange(  # noqa: C901, PLR0917 - one loop over pairs; numba takes no keyword-only ones
    leaving: NDArray[np.int64],
    joining: NDArray[np.int64],
    counts: NDArray[np.float64],
    tier: NDArray[np.int64],
    assignment: NDArray[np.int64],
    allowed: NDArray[np.bool_],
    group_counts: NDArray[np.float64],
    emd: NDArray[np.float64],
    everyone: NDArray[np.float64],
    group: int,
    coeff: float,
    chord: bool,
) -> tuple[int, int, float]:
    """Return the proposal of a group with the smallest mean distance, the first of equals.

    ``leaving`` are clients of the group, ``joining`` clients of its neighbours, both in the order
    in which they are visited. ``allowed[k, g]`` tells whether client k may join group g; an empty
    array allows everything.

    Returns
    -------
    The client that leaves, the one that joins, and the change of the sum of all distances; the
    clients are -1 if nothing improves that sum.
    """
    classes = everyone.size
    own = group_counts[group]
    pull = np.empty(classes)
    mass = np.empty(classes)
    tangent(own, everyone, chord, pull, mass)
    same, other = emd[group], emd[group] * coeff
    slope_same = same * same / 2 - 1 if chord else same
    slope_other = other * other / 2 - 1 if chord else other
    joining_pull = counts_dot(counts, joining, pull)
    joining_mass = counts_dot(counts, joining, mass)
    own_pull = 0.0
    own_mass = 0.0
    for c in range(classes):
        own_pull += pull[c] * own[c]
        own_mass += mass[c] * own[c]
    restricted = allowed.size > 0
    without = np.empty(classes)
    vector = np.empty(classes)
    best_i, best_j, best_change = -1, -1, -EQUAL
    for i in leaving:
        rest_pull = own_pull
        rest_mass = own_mass
        rest = 0.0
        for c in range(classes):
            rest_pull -= pull[c] * counts[i, c]
            rest_mass -= mass[c] * counts[i, c]
            without[c] = own[c] - counts[i, c]
            rest += without[c]
        for position in range(joining.size):
            j = joining[position]
            alike = tier[i] == tier[j]
            slope = slope_same if alike else slope_other
            # A group that would be left without samples has distance 1 and no half-space.
            if (
                rest_pull + joining_pull[position] >= slope * (rest_mass + joining_mass[position])
                and rest > 0.0
            ):
                continue
            neighbour = assignment[j]
            if restricted and not (allowed[i, neighbour] and allowed[j, group]):
                continue
            for c in range(classes):
                vector[c] = without[c] + counts[j, c]
            here = distance(vector, everyone, chord)
            if here >= (same if alike else other) - EQUAL:
                continue
            if here - emd[group] - emd[neighbour] >= best_change:
                continue
            for c in range(classes):
                vector[c] = group_counts[neighbour, c] + (counts[i, c] - counts[j, c])
            there = distance(vector, everyone, chord)
            change = (here - emd[group]) + (there - emd[neighbour])
            if change < best_change - (EQUAL if best_i >= 0 else 0.0):
                best_i, best_j, best_change = i, j, change
    return best_i, best_j, best_change


@compiled
def counts_dot(
    counts: NDArray[np.float64], rows: NDArray[np.int64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Dot product of some rows with a weight for each class."""
    result = np.empty(rows.size)
    for position in range(rows.size):
        value = 0.0
        for c in range(weight.size):
            value += counts[rows[position], c] * weight[c]
        result[position] = value
    return result
