"""How far a group's labels are from those of all clients: the two distances of NetDAG.

``l1`` is the text of the NAFNAS paper, ``EMD = sum_c |p_c - P_c|`` over class proportions (0 to
2). ``chord`` is what the published experiments computed: the Euclidean distance between the two
label-count vectors, each scaled to unit length (0 to the square root of 2). DecNAS's Manhattan
distance of label ratios (its section 4.2) is the same as ``l1``.

A group without samples has no proportions; its vector stays zero, so its distance is 1 in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Metric = Literal["l1", "chord"]
"""``l1``: class proportions, absolute differences. ``chord``: unit vectors, Euclidean."""

AWAY = -1
"""The group of a client that takes no part."""


def group_counts(
    label_counts: NDArray[np.int64], assignment: NDArray[np.int64], groups: int
) -> NDArray[np.int64]:
    """Return the samples of each class in each group, (G, C); clients that are away are left out.

    Parameters
    ----------
    label_counts
        (N, C) samples of each class on each client.
    assignment
        (N,) group of each client, `AWAY` for none.
    groups
        G, the number of groups.
    """
    counts = np.zeros((groups, label_counts.shape[1]), dtype=np.int64)
    here = assignment != AWAY
    np.add.at(counts, assignment[here], label_counts[here])
    return counts


def distances(counts: ArrayLike, everyone: ArrayLike, metric: Metric = "l1") -> NDArray[np.float64]:
    """Return the distance of each row of counts from the distribution of everyone.

    Parameters
    ----------
    counts
        (G, C) samples of each class in each group.
    everyone
        (C,) samples of each class over all clients that take part.
    metric
        ``l1`` or ``chord``.

    Returns
    -------
    (G,) distances.

    Raises
    ------
    ValueError
        If the metric is unknown.
    """
    check_metric(metric)
    groups = np.asarray(counts, dtype=np.float64)
    target = np.asarray(everyone, dtype=np.float64)
    if metric == "l1":
        proportions = _divide(groups, groups.sum(axis=1, keepdims=True))
        target = _divide(target, np.asarray(target.sum()))
        return np.asarray(np.abs(proportions - target).sum(axis=1))
    directions = _divide(groups, np.linalg.norm(groups, axis=1, keepdims=True))
    target = _divide(target, np.asarray(np.linalg.norm(target)))
    return np.asarray(np.linalg.norm(directions - target, axis=1))


def check_metric(metric: str) -> None:
    """Raise ValueError unless ``metric`` is one of `Metric`."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric is {metric!r}; allowed are {', '.join(get_args(Metric))}")


def _divide(values: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, and leave zero what would be divided by zero."""
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)
