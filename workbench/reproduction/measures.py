"""What the papers' tables measure, read off runs; nothing here trains anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.pruning.blocks import find_blocks
from workbench.pruning.cost import cost_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from workbench.fleet import Fleet
    from workbench.pruning.cost import Resource
    from workbench.pruning.netadapt import NetAdapt
    from workbench.search.run import Run


def accuracy(run: Run, iteration: int = 0) -> float:
    """Return the accuracy of a run's network after an iteration, in percent."""
    return 100 * float(run.frontier().set_index("iteration")["accuracy"][iteration])


def at_share(run: Run, share: float, resource: Resource = "macs") -> int | None:
    """Return the first iteration whose network needs at most a share of the initial resource.

    None if the run did not get there.
    """
    frontier = run.frontier()
    left = frontier[resource] / frontier[resource].iloc[0]
    reached = frontier.loc[left <= share, "iteration"]
    return int(reached.iloc[0]) if len(reached) else None


def shares(run: Run, resource: Resource = "macs") -> pd.Series[float]:
    """Return what share of the initial resource is left after each iteration."""
    left: pd.Series[float] = run.frontier().set_index("iteration")[resource]
    return left / float(left.iloc[0])


def uplink_mb(run: Run, iteration: int) -> float:
    """Return what an average client has sent in the search up to an iteration, in MB.

    As DecNAS counts (section 5.3): without pre-training and long-term tuning.
    """
    table = run.accounting()
    search = table[(table["phase"] == "search") & table["iteration"].between(1, iteration)]
    return float(search["bytes_up"].sum()) / len(run.fleet) / 1e6


def gmacs(run: Run, iteration: int) -> float:
    """Return what an average client has computed up to an iteration, in 10^9 MACs."""
    table = run.accounting()
    search = table[(table["phase"] == "search") & table["iteration"].between(1, iteration)]
    return float(search["macs"].sum()) / len(run.fleet) / 1e9


def standard_error(percent: float, samples: int) -> float:
    """Return the standard error of an accuracy in percent that was measured on some samples."""
    share = min(max(percent / 100, 0.0), 1.0)
    return 100 * math.sqrt(share * (1 - share) / samples)


def larger(one: float, other: float, samples: int) -> bool | None:
    """Say whether one accuracy (in percent) is above another, both on as many test samples.

    None if they are closer than two standard errors of their difference, or one is missing.
    """
    if math.isnan(one) or math.isnan(other):
        return None
    error = math.hypot(standard_error(one, samples), standard_error(other, samples))
    return None if abs(one - other) <= 2 * error else bool(one > other)


def guessing(fleet: Fleet) -> float:
    """Return the accuracy of always naming the most frequent class, in percent."""
    counts = fleet.label_counts.sum(axis=0)
    return 100 * float(counts.max() / counts.sum())


def percent(value: float) -> str:
    """Return an accuracy in percent as text; one that is missing was not reached."""
    return "not reached" if math.isnan(value) else f"{value:.1f}%"


def choices(run: Run) -> list[list[str]]:
    """Return the blocks that a run would prune in each iteration, the one it selected first.

    The others follow by the accuracy of their candidates.
    """
    table = run.candidates().sort_values(["selected", "accuracy"], ascending=False)
    return [list(part["block"]) for _, part in table.groupby("iteration", sort=True)]


def replay(
    model: nn.Module,
    input_shape: Sequence[int],
    netadapt: NetAdapt,
    wanted: Sequence[Sequence[str]],
) -> pd.DataFrame:
    """Prune a network by given choices, and return its exact cost after each iteration.

    Parameters
    ----------
    model, input_shape, netadapt
        The initial network, its input and the schedule; nothing is trained.
    wanted
        For each iteration the blocks to prune, the best first: the first one is taken that can
        still be pruned enough.

    Returns
    -------
    One row an iteration: iteration, block, macs, size_bytes.
    """
    initial = cost_of(model, input_shape)
    rows = [(0, "", initial.macs, initial.size_bytes)]
    current = model
    for iteration in range(1, netadapt.iterations + 1):
        proposed = netadapt.propose(current, input_shape, iteration, initial)
        usable = {each.block: each for each in proposed if each.usable}
        if not usable:
            break
        order = [block for block in wanted[(iteration - 1) % len(wanted)] if block in usable]
        chosen = usable[order[0] if order else next(iter(usable))]
        current = chosen.build()
        rows.append((iteration, chosen.block, chosen.cost.macs, chosen.cost.size_bytes))
    return pd.DataFrame(rows, columns=["iteration", "block", "macs", "size_bytes"])


def widths(model: nn.Module, input_shape: Sequence[int]) -> dict[str, int]:
    """Return the number of filters of each block that can be pruned."""
    return {block.name: block.width for block in find_blocks(model, input_shape).prunable}


def unlike(one: Mapping[str, int], other: Mapping[str, int], initial: Mapping[str, int]) -> float:
    """Return by how many percent of its initial filters a block differs on the mean."""
    apart = [abs(one.get(name, 0) - other.get(name, 0)) / full for name, full in initial.items()]
    return 100 * float(np.mean(apart))
