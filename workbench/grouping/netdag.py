"""NetDAG: network- and distribution-aware client grouping (NAFNAS, 2025).

Slow links get small models; then clients are exchanged between groups until each group's labels
are close to everyone's. An exchange across tiers has to pay for the network that it costs: it
counts only if it brings the group's distance below COEFF times what it was.

1. Start (`NetworkAwareGrouping`): clients sorted by link rate, the fastest in group 0.
2. Each of MAX_ITER iterations visits every group once, in an order that is rotated by one before
   each iteration (`visiting_order`).
3. At a group, every exchange of one of its clients for one of the four nearest groups is scored
   (`neighbours`). It is a proposal if the group's distance falls below its present
   one, times COEFF if the two clients' tiers differ (`best_exchange`).
4. The proposal with the smallest mean distance over all groups, the first of equals, is carried
   out if that mean is below the present one.
5. An iteration that exchanges nothing is the last.

The scoring is compiled (`workbench.grouping._kernels`); nothing here or there approximates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.grouping import _kernels, _large
from workbench.grouping.base import GroupingStrategy, grouping_of, taking_part
from workbench.grouping.baselines import NetworkAwareGrouping, by_rate
from workbench.grouping.checks import (
    checked_allowed,
    checked_assignment,
    checked_counts,
    checked_tier,
)
from workbench.grouping.divergence import Metric
from workbench.grouping.result import Grouping, Swap, checked_sizes, exchange_s
from workbench.grouping.state import Groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from workbench.fleet import Fleet

LARGE = 100_000
"""From so many pairs on, bounds are cheaper than scoring every exchange of a group."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NetDAG(GroupingStrategy):
    """Start network-aware, then exchange clients until the groups' labels are representative.

    Parameters
    ----------
    coeff
        COEFF in (0, 1]: an exchange of clients of different tiers is proposed if it brings the
        group's distance below ``coeff`` times its present one. Small keeps the network-aware
        groups, 1 ignores the tiers.
    max_iter
        MAX_ITER, how often every group is visited at most.
    metric
        ``l1`` (the paper's text) or ``chord`` (the published experiments); see `divergence`.
    max_slowdown
        If given, an exchange is allowed only if afterwards both clients still finish their round
        within ``max_slowdown`` times the duration of the network-aware start, at the present link
        rates and for the given model sizes. Not part of the published algorithm, which can lose
        what the network-aware start has gained.
    """

    coeff: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_iter: Annotated[int, Field(ge=0)] = 10
    metric: Metric = "l1"
    max_slowdown: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None

    def group(
        self,
        fleet: Fleet,
        groups: int,
        *,
        sizes_bytes: Sequence[float] | None = None,
        available: NDArray[np.bool_] | None = None,
        iteration: int = 0,
    ) -> Grouping:
        """Assign by link rate and labels; see `GroupingStrategy.group`.

        Raises
        ------
        ValueError
            Also if ``max_slowdown`` is set and ``sizes_bytes`` is missing.
        """
        rows = by_rate(fleet, taking_part(fleet, groups, sizes_bytes, available))
        start = NetworkAwareGrouping().group(
            fleet, groups, sizes_bytes=sizes_bytes, available=available, iteration=iteration
        )
        refined = self.refine(
            fleet.label_counts[rows],
            fleet.tier[rows],
            start.assignment[rows],
            groups=groups,
            allowed=self._allowed(fleet, rows, start, sizes_bytes),
        )
        assignment = start.assignment.copy()
        assignment[rows] = refined.assignment
        swaps = tuple(
            swap._replace(client=int(rows[swap.client]), partner=int(rows[swap.partner]))
            for swap in refined.swaps
        )
        return grouping_of(
            self, fleet, assignment, groups, swaps=swaps, emd_trace=refined.emd_trace
        )

    def refine(
        self,
        label_counts: ArrayLike,
        tier: ArrayLike,
        assignment: ArrayLike,
        *,
        groups: int | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Grouping:
        """Exchange clients of a given grouping; steps 2 to 5 of the algorithm.

        Parameters
        ----------
        label_counts
            (N, C) samples of each class on each client, in the order in which clients are to be
            visited (by link rate, ascending).
        tier
            (N,) tier of each client.
        assignment
            (N,) initial group of each client, 0 to G - 1, or -1 for a client that is away.
        groups
            G; by default the largest group of ``assignment`` is the last one.
        allowed
            (N, G), whether a client may join a group; by default every client any group.

        Raises
        ------
        ValueError
            If counts are negative, not finite or not whole, a shape does not match, or a group is
            out of range.
        """
        counts = checked_counts(label_counts)
        tiers = checked_tier(tier, len(counts))
        group_of, groups = checked_assignment(assignment, len(counts), groups)
        may_join = checked_allowed(allowed, len(counts), groups)
        state = Groups(counts, tiers, group_of, groups, metric=self.metric, allowed=may_join)
        trace = [state.emd.copy()]
        swaps: list[Swap] = []
        for iteration in range(self.max_iter):
            before = len(swaps)
            for group in visiting_order(groups, iteration):
                leaves, joins = best_exchange(state, group, self.coeff)
                if leaves >= 0:
                    swaps.append(state.exchange(iteration, group, leaves, joins))
            trace.append(state.emd.copy())
            if len(swaps) == before:
                break
        return Grouping(
            strategy=type(self).__name__,
            assignment=state.assignment,
            groups=groups,
            label_counts=counts,
            tier=tiers,
            swaps=tuple(swaps),
            emd_trace=np.array(trace),
            settings=self.settings(),
        )

    def _allowed(
        self,
        fleet: Fleet,
        rows: NDArray[np.int64],
        start: Grouping,
        sizes_bytes: Sequence[float] | None,
    ) -> NDArray[np.bool_] | None:
        """Return which groups each client may join without slowing the round down too much."""
        if self.max_slowdown is None:
            return None
        if sizes_bytes is None:
            raise ValueError(
                f"max_slowdown is {self.max_slowdown:g}, which needs sizes_bytes, the size of "
                "each group's model"
            )
        limit = self.max_slowdown * start.round_duration_s(sizes_bytes).max()
        sizes = checked_sizes(sizes_bytes, start.groups)
        return np.asarray(exchange_s(sizes[None, :], fleet.rate_bps[rows, None]) <= limit)


def visiting_order(groups: int, iteration: int) -> list[int]:
    """Return the groups in the order of an iteration: the first starts 1, 2, ..., G-1, 0."""
    return [(iteration + 1 + position) % groups for position in range(groups)]


def neighbours(group: int, groups: int) -> list[int]:
    """Return the groups that exchange clients with a group, in order: g-1, g+1, g-2, g+2."""
    return [group + step for step in (-1, 1, -2, 2) if 0 <= group + step < groups]


def best_exchange(state: Groups, group: int, coeff: float) -> tuple[int, int]:
    """Return the client that leaves and the one that joins in the best proposal of a group.

    Both are -1 if no proposal brings the mean distance down. How they are found depends on the
    number of pairs, what is found does not.
    """
    others = neighbours(group, len(state.members))
    joining = sum(len(state.members[other]) for other in others)
    if len(state.members[group]) * joining > LARGE:
        found = _large.best_exchange(state, group, others, coeff)
        return found.leaves, found.joins
    return _kernels.best_exchange(
        state.members[group],
        np.concatenate([state.members[group][:0], *(state.members[other] for other in others)]),
        state.counts,
        state.tier,
        state.assignment,
        state.allowed,
        state.group_counts,
        state.emd,
        state.target,
        group,
        coeff,
        state.chord,
    )
