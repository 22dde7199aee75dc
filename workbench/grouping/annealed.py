"""Annealing: groups that are more alike than NetDAG's, in a round that is not longer.

NetDAG takes the best single exchange at each step and stops where none helps; and published as it
is, it may give a slow client a large model. Here the limit on the round's duration is a hard
constraint, and the search goes on from NetDAG's result by simulated annealing (S. Kirkpatrick,
C. D. Gelatt, M. P. Vecchi: Optimization by simulated annealing. Science 220, 1983):

1. Start: NetDAG within the same limit (`workbench.grouping.netdag`).
2. Draw two clients; if they are in different groups and both may join the other's, score their
   exchange by the change of the mean distance.
3. Carry it out if it brings the mean down, and with probability exp(-change / temperature) if
   not; the temperature falls from proposal to proposal.
4. The best groups of all that were visited are the result, so it is never worse than the start.

Not part of the NAFNAS paper. Groups keep their sizes. Tiers play no part after the start: the
limit alone says what an exchange may cost, so groups that were faster than they had to be become
slower, up to the limit.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.grouping._annealing import exchange_at_random
from workbench.grouping.base import GroupingStrategy, grouping_of, taking_part
from workbench.grouping.baselines import NetworkAwareGrouping, by_rate
from workbench.grouping.divergence import Metric, distances
from workbench.grouping.netdag import NetDAG
from workbench.grouping.result import Swap, checked_sizes, exchange_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from workbench.fleet import Fleet
    from workbench.grouping.result import Grouping

HOT, COLD = 0.1, 0.004
"""First and last temperature, in units of what a random exchange changes at the start.

Tried on fleets of 28 to 1,000 clients: half and twice as much make little difference.
"""

PROBES = 500
"""Random exchanges that tell that unit."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AnnealedGrouping(GroupingStrategy):
    """Exchange clients at random, ever more choosily, within a limit on the round's duration.

    Parameters
    ----------
    max_slowdown
        A client may join a group only if its round then takes at most this many times the
        duration of the network-aware start; None for no limit. At 1 the predicted round is as
        short as that of network-aware groups.
    lasting
        Whether the limit also has to hold if every link has the slowest rate of its tier, for
        network-aware groups as well: present rates are soon drawn again.
    coeff, max_iter
        Of the NetDAG that it starts from.
    metric
        ``l1`` or ``chord``; see `divergence`.
    proposals
        How many exchanges are drawn; so many take some 30 ms.
    seed
        Decides which are drawn. The same fleet and seed give the same groups.
    """

    max_slowdown: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = 1.0
    coeff: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_iter: Annotated[int, Field(ge=0)] = 10
    lasting: bool = True
    metric: Metric = "l1"
    proposals: Annotated[int, Field(ge=0)] = 200_000
    seed: Annotated[int, Field(ge=0)] = 0

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
        aware = NetworkAwareGrouping().group(
            fleet, groups, sizes_bytes=sizes_bytes, available=available, iteration=iteration
        )
        allowed = self._allowed(fleet, rows, aware, sizes_bytes)
        start = NetDAG(coeff=self.coeff, max_iter=self.max_iter, metric=self.metric).refine(
            fleet.label_counts[rows],
            fleet.tier[rows],
            aware.assignment[rows],
            groups=groups,
            allowed=allowed,
        )
        annealed = self._anneal(start, allowed)
        assignment = aware.assignment.copy()
        assignment[rows] = annealed
        swaps, emd = _exchanges_told(start, annealed, self.metric)
        trace = np.empty((0, groups)) if start.emd_trace is None else start.emd_trace
        return grouping_of(
            self,
            fleet,
            assignment,
            groups,
            swaps=tuple(
                swap._replace(client=int(rows[swap.client]), partner=int(rows[swap.partner]))
                for swap in (*start.swaps, *swaps)
            ),
            emd_trace=np.vstack([trace, emd]),
        )

    def _allowed(
        self,
        fleet: Fleet,
        rows: NDArray[np.int64],
        aware: Grouping,
        sizes_bytes: Sequence[float] | None,
    ) -> NDArray[np.bool_]:
        """Return which groups each of ``rows`` may join, (rows, G)."""
        allowed = np.ones((len(rows), aware.groups), dtype=np.bool_)
        if self.max_slowdown is None:
            return allowed
        if sizes_bytes is None:
            raise ValueError(
                f"max_slowdown is {self.max_slowdown:g}, which needs sizes_bytes, the size of "
                "each group's model"
            )
        slowest = np.array([tier.low_bps for tier in fleet.tiers])[fleet.tier]
        # A rate need not be one of its tier: a session file or a trace may say what it likes.
        drawn_low = [np.minimum(fleet.rate_bps, slowest)] if self.lasting else []
        for rate_bps in (fleet.rate_bps, *drawn_low):
            limit = replace(aware, rate_bps=rate_bps).round_duration_s(sizes_bytes).max()
            duration = exchange_s(checked_sizes(sizes_bytes, aware.groups), rate_bps[rows, None])
            allowed &= duration <= self.max_slowdown * limit
        return allowed

    def _anneal(self, start: Grouping, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the best assignment (N,) that is found from the given one."""
        generator = np.random.default_rng(self.seed)
        counts, group_counts = start.label_counts.astype(float), start.counts().astype(float)
        assignment = start.assignment.copy()
        unit = _typical_change(counts, assignment, group_counts, self.metric, generator)
        if unit == 0:
            return assignment
        temperature = unit * HOT * (COLD / HOT) ** np.linspace(0, 1, self.proposals)
        everyone = group_counts.sum(axis=0)
        chord = self.metric == "chord"
        exchange_at_random(
            generator.integers(len(counts), size=(self.proposals, 2)),
            # A change is below such a number with probability exp(-change / temperature).
            temperature * generator.exponential(size=self.proposals),
            counts,
            assignment,
            allowed,
            group_counts,
            everyone / (np.linalg.norm(everyone) if chord else everyone.sum()),
            chord,
        )
        return assignment


def _typical_change(
    counts: NDArray[np.float64],
    assignment: NDArray[np.int64],
    group_counts: NDArray[np.float64],
    metric: Metric,
    generator: np.random.Generator,
) -> float:
    """Return by how much a random exchange changes the sum of all distances."""
    left, right = generator.integers(len(counts), size=(2, PROBES))
    apart = assignment[left] != assignment[right]
    left, right = left[apart], right[apart]
    if not left.size:
        return 0.0
    everyone = group_counts.sum(axis=0)
    emd = distances(group_counts, everyone, metric)
    difference = counts[right] - counts[left]
    change = np.zeros(len(left))
    for rows, sign in ((left, 1), (right, -1)):
        group = assignment[rows]
        change += distances(group_counts[group] + sign * difference, everyone, metric) - emd[group]
    return float(np.abs(change).mean())


def _exchanges_told(
    start: Grouping, assignment: NDArray[np.int64], metric: Metric
) -> tuple[list[Swap], NDArray[np.float64]]:
    """Return the exchanges that lead from a grouping to an assignment, and the distances there.

    They are the difference, not the path: what annealing did and undid is left out.
    """
    iteration = 0 if start.emd_trace is None else len(start.emd_trace) - 1
    counts = start.counts()
    everyone = counts.sum(axis=0)
    steps, changed = list(exchanges(start.assignment, assignment)), []
    for group, neighbour, client, partner in steps:
        difference = start.label_counts[partner] - start.label_counts[client]
        counts[group] += difference
        counts[neighbour] -= difference
        changed += [counts[group].copy(), counts[neighbour].copy()]
    after = distances(np.reshape(changed, (-1, len(everyone))), everyone, metric).reshape(-1, 2)
    emd, swaps = start.emd(metric), []
    for step, pair in zip(steps, after, strict=True):
        emd[list(step[:2])] = pair
        swaps.append(Swap(iteration, *step, float(emd.mean())))
    return swaps, emd


def exchanges(
    before: NDArray[np.int64], after: NDArray[np.int64]
) -> Iterator[tuple[int, int, int, int]]:
    """Yield exchanges that lead from one assignment to another with groups of the same sizes.

    Each is group, neighbour, the client that leaves the group for the neighbour, and the one that
    comes from there; with each at least one client arrives where it belongs.
    """
    waiting: dict[tuple[int, int], list[int]] = defaultdict(list)
    for client in np.flatnonzero(before != after)[::-1].tolist():
        waiting[int(before[client]), int(after[client])].append(client)
    groups = sorted({group for pair in waiting for group in pair})

    def wanted_in(group: int, preferred: int) -> list[int]:
        return [wanted for wanted in (preferred, *groups) if waiting.get((group, wanted))]

    for group in groups:
        while neighbours := wanted_in(group, group):
            neighbour = neighbours[0]
            # Groups do not grow, so somebody leaves the neighbour; best of all for this group.
            wanted = wanted_in(neighbour, group)[0]
            client = waiting[group, neighbour].pop()
            partner = waiting[neighbour, wanted].pop()
            if wanted != group:
                waiting[group, wanted].append(partner)
            yield group, neighbour, client, partner
