"""What if: NetDAG over many settings on one fleet, as one table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.grouping.netdag import NetDAG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.fleet import Fleet
    from workbench.grouping.divergence import Metric

COEFFS = tuple(tenth / 10 for tenth in range(1, 11))
"""The values of COEFF in the NAFNAS experiments, 0.1 to 1."""


def sweep(
    fleet: Fleet,
    sizes: Sequence[float] | float,
    *,
    coeff: Sequence[float] = COEFFS,
    max_slowdown: Sequence[float | None] = (None,),
    groups: int | None = None,
    max_iter: int = 10,
    metric: Metric = "l1",
) -> pd.DataFrame:
    """Group a fleet with every combination of COEFF and max_slowdown; nothing is trained.

    Parameters
    ----------
    fleet
        N clients, taken with their present link rates.
    sizes
        Bytes on the wire of each group's model, descending; or one number for models of equal
        size, and then ``groups`` says how many.
    coeff
        Values of COEFF in (0, 1].
    max_slowdown
        Values of NetDAG's ``max_slowdown``, at least 1; None for the published algorithm.
    groups
        G; by default the number of ``sizes``.
    max_iter, metric
        As for `NetDAG`; EMD is given in this metric too.

    Returns
    -------
    One row a combination, those of one ``max_slowdown`` together: ``coeff``; ``max_slowdown``,
    infinite for None; ``emd``, the mean over the groups; ``duration_s``, the predicted duration of
    a round, that of the slowest group; ``swaps``, how many were carried out; ``seconds`` that
    the grouping took.

    Raises
    ------
    ValueError
        If a value is out of range, there is none, or ``groups`` is not the number of ``sizes``.
    """
    given = np.asarray(sizes, dtype=np.float64)
    if given.ndim == 0 and groups is None:
        raise ValueError(f"sizes is one number, {given:g}; groups must say how many groups")
    if given.ndim and groups not in {None, given.size}:
        raise ValueError(f"groups is {groups}, but there are {given.size} sizes")
    each = np.full(groups or 0, given) if given.ndim == 0 else given
    for name, values in (("coeff", coeff), ("max_slowdown", max_slowdown)):
        if np.ndim(np.asarray(values, dtype=object)) != 1 or len(values) == 0:
            raise ValueError(f"{name} is {values!r}, but must be a list of at least one value")
    strategies = [
        NetDAG(coeff=value, max_iter=max_iter, metric=metric, max_slowdown=limit)
        for limit in max_slowdown
        for value in coeff
    ]
    return pd.DataFrame([_row(strategy, fleet, each.tolist()) for strategy in strategies])


def _row(strategy: NetDAG, fleet: Fleet, sizes: list[float]) -> dict[str, float]:
    started = time.perf_counter()
    grouping = strategy.group(fleet, len(sizes), sizes_bytes=sizes)
    seconds = time.perf_counter() - started
    return {
        "coeff": strategy.coeff,
        "max_slowdown": np.inf if strategy.max_slowdown is None else strategy.max_slowdown,
        "emd": float(grouping.emd(strategy.metric).mean()),
        "duration_s": float(grouping.round_duration_s(sizes).max()),
        "swaps": len(grouping.swaps),
        "seconds": seconds,
    }
