"""Large fleets: the best exchange of a group without scoring every pair, and the same decisions.

Scoring every pair is quadratic in the number of clients. Here a pair is scored only if the bounds
of `workbench.grouping._bounds`, differences of one number a client each, allow it to be a proposal
and to beat the best one so far. Sorted by such a number, whole ranges of pairs are never looked
at. Every bound errs to one side: what is left out cannot be chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from workbench.grouping._bounds import Pairs, Side, half_space, pairs_below
from workbench.grouping._kernels import EQUAL, project, search_sorted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from workbench.grouping.state import Groups

    Numbers = NDArray[np.float64]


FEW = 32
"""So many clients on each side make pairs that are cheaper to score than to think about."""


class Exchange(NamedTuple):
    """An exchange, and how it changes the sum of all distances; ``rank`` orders the neighbours."""

    change: float = 0.0
    leaves: int = -1
    rank: int = -1
    joins: int = -1


def best_exchange(groups: Groups, group: int, neighbours: Sequence[int], coeff: float) -> Exchange:
    """Return the proposal of a group with the smallest mean distance, the first of equals."""
    best = Exchange()
    if groups.emd[group] <= EQUAL:
        return best
    problems = list(_problems(groups, group, neighbours, coeff))
    for problem in problems:
        best = _search(problem.most_promising(FEW), groups, group, best)
    many = [problem for problem in problems if problem.pairs > FEW**2]
    for problem in sorted(many, key=lambda problem: problem.lowest):
        best = _search(problem.within(best.change), groups, group, best)
    return best


def _problems(
    groups: Groups, group: int, neighbours: Sequence[int], coeff: float
) -> Iterator[Pairs]:
    """Yield sets of pairs that together hold every proposal, each with one tau.

    Below ``coeff`` times the present distance an exchange is a proposal whatever the tiers; the
    pairs of one tier also have a proposal between that and the present distance.
    """
    own = half_space(groups, group)
    others = [half_space(groups, neighbour) for neighbour in neighbours]
    leaving = groups.members[group]
    left_tier = groups.tier[leaving]
    in_left = np.bincount(left_tier, minlength=groups.tiers) > 0
    numbers = project(
        groups.counts, leaving, np.array([w for space in (own, *others) for w in space.weights])
    )
    for rank, (neighbour, other) in enumerate(zip(neighbours, others, strict=True)):
        joining = groups.members[neighbour]
        left = Side(leaving, *numbers[[0, 1, 2 + 2 * rank, 3 + 2 * rank]])
        right = Side(
            joining, *project(groups.counts, joining, np.array([*own.weights, *other.weights]))
        )
        if len(leaving) and len(joining):
            yield pairs_below(
                coeff * own.emd, (left, right), own, other, rank=rank, neighbour=neighbour
            )
        if coeff == 1:
            continue
        right_tier = groups.tier[joining]
        in_right = np.bincount(right_tier, minlength=groups.tiers) > 0
        for tier in np.flatnonzero(in_left & in_right):
            same = left.take(left_tier == tier), right.take(right_tier == tier)
            yield pairs_below(own.emd, same, own, other, rank=rank, neighbour=neighbour)


def _search(problem: Pairs, groups: Groups, group: int, best: Exchange) -> Exchange:
    """Return the best exchange of these pairs, or ``best`` if it is better."""
    if not problem.pairs:
        return best
    bound = best.change if best.leaves >= 0 else -2 * EQUAL
    by_gain, limit = True, problem.slack
    if problem.pairs > FEW**2:
        gaining = _pairs_within(
            problem.leaving.gain, problem.joining.gain, bound + 2 * EQUAL + limit
        )
        proposals = _pairs_within(
            problem.leaving.proposal, problem.joining.proposal, problem.proposal_limit
        )
        # The range of the gain shrinks on the way, that of the proposals does not.
        if 4 * proposals < gaining:
            by_gain, limit = False, problem.proposal_limit
    left = problem.leaving.gain if by_gain else problem.leaving.proposal
    right = problem.joining.gain if by_gain else problem.joining.proposal
    descending, ascending = np.argsort(-left), np.argsort(right)
    leaves, joins, change = search_sorted(
        problem.leaving.rows[descending],
        left[descending],
        problem.joining.rows[ascending],
        right[ascending],
        limit,
        by_gain,
        bound,
        problem.tau,
        group,
        problem.neighbour,
        groups.counts,
        groups.allowed,
        groups.group_counts,
        groups.emd,
        groups.target,
        groups.chord,
    )
    if leaves < 0:
        return best
    found = Exchange(change, leaves, problem.rank, joins)
    equal = best.leaves >= 0 and found.change >= best.change - EQUAL
    return best if equal and best[1:] < found[1:] else found


def _pairs_within(leaving: Numbers, joining: Numbers, limit: float) -> int:
    """Count the pairs with ``joining - leaving <= limit``."""
    return int(np.searchsorted(np.sort(joining), leaving + limit, side="right").sum())
