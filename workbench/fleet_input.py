"""Checks of what a fleet is made from; each error names the parameter, the place, the value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.tiers import assign_tiers, draw_rates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from workbench.tiers import Tier


def checked_counts(label_counts: ArrayLike) -> NDArray[np.int64]:
    """Return label counts, (N, C) int64 from 0 up."""
    counts = np.asarray(label_counts, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] == 0 or counts.shape[1] == 0:
        raise ValueError(f"label_counts must have the shape (clients, classes), got {counts.shape}")
    bad = ~np.isfinite(counts) | (counts < 0) | (counts != np.floor(counts))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"label_counts[{row}, {column}] is {counts[row, column]:g}; "
            "counts are whole numbers from 0 up"
        )
    return counts.astype(np.int64)


def checked_rates(rate_bps: ArrayLike, clients: int) -> NDArray[np.float64]:
    """Return a copy of the link rates, (N,) finite float64 from 0 up."""
    rates = np.array(rate_bps, dtype=np.float64)
    check_shape("rate_bps", rates, clients)
    bad = ~np.isfinite(rates) | (rates < 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"rate_bps[{row}] is {rates[row]}; rates are finite numbers from 0 up")
    return rates


def check_shape(name: str, array: NDArray[Any], clients: int) -> None:
    """Refuse an array that has not one entry a client."""
    if array.shape != (clients,):
        raise ValueError(f"{name} must have the shape ({clients},), got {array.shape}")


def checked_names(names: Sequence[str] | None, clients: int) -> tuple[str, ...]:
    """Return N different names, ``client-0`` onwards if none are given."""
    if names is None:
        return tuple(f"client-{row}" for row in range(clients))
    if len(names) != clients or len(set(names)) != clients:
        raise ValueError(f"names must be {clients} different names, got {list(names)}")
    return tuple(names)


def checked_tier(tier: ArrayLike, clients: int, tiers: int) -> NDArray[np.int64]:
    """Return the tier of each client, (N,) int64 from 0 to ``tiers`` - 1."""
    given = np.asarray(tier)
    check_shape("tier", given, clients)
    bad = ~np.isin(given, np.arange(tiers))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"tier[{row}] is {given[row]}; tiers are numbered 0..{tiers - 1}")
    return given.astype(np.int64)


def draw_links(
    clients: int, tiers: tuple[Tier, ...], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw a tier and a rate for each client, (N,) int64 and (N,) float64 in bit/s."""
    # Streams of their own, so that a rate does not depend on how tiers are dealt out.
    if seed < 0:
        raise ValueError(f"seed is {seed}, but must be a whole number from 0 up")
    tier = assign_tiers(clients, tiers, np.random.default_rng([seed, 0]))
    return tier, draw_rates(tier, tiers, np.random.default_rng([seed, 1]))


def span_of(names: tuple[str, ...]) -> str:
    """Return the first and the last of some names, for a message."""
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
