"""Checks of what a grouping is made from, for callers that bring plain arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.grouping.divergence import AWAY

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def checked_counts(label_counts: ArrayLike) -> NDArray[np.int64]:
    """Return label counts (N, C) as int64, or raise ValueError naming the first wrong value."""
    counts = np.asarray(label_counts)
    if counts.ndim != 2 or 0 in counts.shape:
        raise ValueError(f"label_counts must have the shape (clients, classes), got {counts.shape}")
    if counts.dtype.kind not in "biuf":
        raise ValueError(f"label_counts must be numbers, got {counts.dtype}")
    bad = counts < 0
    if counts.dtype.kind == "f":
        bad |= ~np.isfinite(counts) | (counts != np.floor(counts))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"label_counts[{row}, {column}] is {counts[row, column]}; counts are whole numbers "
            "from 0 up"
        )
    return counts.astype(np.int64)


def checked_tier(tier: ArrayLike, clients: int) -> NDArray[np.int64]:
    """Return tiers (N,) as int64, or raise ValueError."""
    return _whole_numbers("tier", tier, clients)


def checked_assignment(
    assignment: ArrayLike, clients: int, groups: int | None
) -> tuple[NDArray[np.int64], int]:
    """Return an assignment (N,) as int64 and the number of groups, or raise ValueError."""
    group_of = _whole_numbers("assignment", assignment, clients)
    if groups is None:
        groups = int(group_of.max()) + 1
    if groups < 1:
        raise ValueError(f"groups is {groups}, but must be at least 1")
    bad = (group_of < AWAY) | (group_of >= groups)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"assignment[{row}] is {group_of[row]}; allowed are 0..{groups - 1}, "
            f"and {AWAY} for a client that is away"
        )
    return group_of, groups


def checked_allowed(
    allowed: ArrayLike | None, clients: int, groups: int
) -> NDArray[np.bool_] | None:
    """Return which groups each client may join, (N, G), or raise ValueError."""
    if allowed is None:
        return None
    mask = np.asarray(allowed)
    if mask.shape != (clients, groups) or mask.dtype != np.bool_:
        raise ValueError(
            f"allowed must be booleans of the shape {(clients, groups)}, got {mask.dtype} of "
            f"{mask.shape}"
        )
    return np.ascontiguousarray(mask)


def _whole_numbers(name: str, values: ArrayLike, clients: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.shape != (clients,):
        raise ValueError(f"{name} must have the shape ({clients},), got {array.shape}")
    whole = array.astype(np.int64) if array.dtype.kind in "biuf" else None
    if whole is None or (array.dtype.kind == "f" and not np.array_equal(whole, array)):
        raise ValueError(f"{name} must be whole numbers, got {array.tolist()}")
    return whole
