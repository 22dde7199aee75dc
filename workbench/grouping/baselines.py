"""The two groupings that NAFNAS compares NetDAG with: random, and simply network-aware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.grouping.base import GroupingStrategy, grouping_of, split_evenly, taking_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.fleet import Fleet
    from workbench.grouping.result import Grouping


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RandomGrouping(GroupingStrategy):
    """Deal the clients to groups of equal size at random, anew in each iteration.

    Parameters
    ----------
    seed
        Decides, together with the iteration, who goes where.
    """

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
        """Assign at random; see `GroupingStrategy.group`."""
        rows = taking_part(fleet, groups, sizes_bytes, available)
        shuffled = np.random.default_rng([self.seed, iteration]).permutation(rows)
        return grouping_of(self, fleet, split_evenly(shuffled, len(fleet), groups), groups)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NetworkAwareGrouping(GroupingStrategy):
    """Give the fastest links the largest candidate and the slowest links the smallest one.

    The clients are sorted by their present link rate and cut into groups of equal size; where the
    number does not divide, the groups of the faster clients are larger by one.
    """

    def group(
        self,
        fleet: Fleet,
        groups: int,
        *,
        sizes_bytes: Sequence[float] | None = None,
        available: NDArray[np.bool_] | None = None,
        iteration: int = 0,  # noqa: ARG002 - part of the interface, nothing is drawn here
    ) -> Grouping:
        """Assign by link rate; see `GroupingStrategy.group`."""
        rows = taking_part(fleet, groups, sizes_bytes, available)
        fastest_first = by_rate(fleet, rows)[::-1]
        return grouping_of(self, fleet, split_evenly(fastest_first, len(fleet), groups), groups)


def by_rate(fleet: Fleet, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``rows`` ordered by present link rate, slowest first; equal rates keep their order."""
    return rows[np.argsort(fleet.rate_bps[rows], kind="stable")]
