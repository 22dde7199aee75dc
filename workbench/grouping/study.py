"""Groupings side by side: label balance against round duration, over many fleets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pandas as pd

from workbench.grouping.baselines import NetworkAwareGrouping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.fleet import Fleet
    from workbench.grouping.base import GroupingStrategy
    from workbench.grouping.divergence import Metric


def study(
    fleets: Sequence[Fleet],
    sizes: Sequence[float],
    strategies: Mapping[str, GroupingStrategy],
    *,
    metric: Metric = "l1",
) -> pd.DataFrame:
    """Group every fleet with every strategy at the fleet's present link rates.

    Parameters
    ----------
    fleets
        What to group.
    sizes
        Bytes on the wire of each group's model, descending.
    strategies
        A name for each strategy.
    metric
        ``l1`` or ``chord``, for the column ``emd``.

    Returns
    -------
    One row a strategy and fleet: ``strategy``; ``fleet``, its position; ``emd``, the mean over the
    groups; ``duration_s``, the predicted duration of a round, that of the slowest group;
    ``slowdown``, that duration over the one of network-aware groups; ``swaps``; ``seconds`` that
    the grouping took.
    """
    start = [
        NetworkAwareGrouping().group(fleet, len(sizes)).round_duration_s(sizes).max()
        for fleet in fleets
    ]
    rows = []
    for name, strategy in strategies.items():
        for number, fleet in enumerate(fleets):
            began = time.perf_counter()
            grouping = strategy.group(fleet, len(sizes), sizes_bytes=sizes, iteration=number)
            seconds = time.perf_counter() - began
            duration = float(grouping.round_duration_s(sizes).max())
            rows.append(
                {
                    "strategy": name,
                    "fleet": number,
                    "emd": float(grouping.emd(metric).mean()),
                    "duration_s": duration,
                    "slowdown": duration / start[number],
                    "swaps": len(grouping.swaps),
                    "seconds": seconds,
                }
            )
    return pd.DataFrame(rows)


def beaten(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return for each strategy of a `study` which others beat it in both measures on the mean.

    To beat is to have a lower mean EMD and a lower mean duration.
    """
    means = table.groupby("strategy", sort=False)[["emd", "duration_s"]].mean()
    return {
        str(name): [str(other) for other in means.index[(means < means.loc[name]).all(axis=1)]]
        for name in means.index
    }
