"""DecNAS's balanced client partition (DecNAS, section 4.2): equal data, representative labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.grouping.base import GroupingStrategy, grouping_of, taking_part
from workbench.grouping.divergence import AWAY, distances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.fleet import Fleet
    from workbench.grouping.result import Grouping


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BalancedGrouping(GroupingStrategy):
    """Deal out the clients greedily, those with most data first; links play no part.

    Minimise the mean Manhattan distance between the label ratios of each group and of everyone,
    subject to ``max(d) <= max_ratio * min(d)`` for the groups' sample counts d. The greedy of the
    paper: the largest client that is left goes to the group where the balance holds and the mean
    distance becomes smallest. While no choice keeps the balance (the first clients always break
    it), the client goes to the group with the fewest samples, which is the way back to it.

    Parameters
    ----------
    max_ratio
        r of the paper, how much larger than the smallest group the largest may be.
    """

    max_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.1

    def group(
        self,
        fleet: Fleet,
        groups: int,
        *,
        sizes_bytes: Sequence[float] | None = None,
        available: NDArray[np.bool_] | None = None,
        iteration: int = 0,  # noqa: ARG002 - part of the interface, nothing is drawn here
    ) -> Grouping:
        """Assign by data size and labels; see `GroupingStrategy.group`."""
        rows = taking_part(fleet, groups, sizes_bytes, available)
        everyone = fleet.label_counts[rows].sum(axis=0)
        counts = np.zeros((groups, fleet.label_counts.shape[1]), dtype=np.int64)
        members = np.zeros(groups, dtype=np.int64)
        assignment = np.full(len(fleet), AWAY, dtype=np.int64)
        distance = distances(counts, everyone)
        for row in rows[np.argsort(-fleet.samples[rows], kind="stable")]:
            with_it = distances(counts + fleet.label_counts[row], everyone)
            group = self._choose(
                counts.sum(axis=1), members, with_it - distance, int(fleet.samples[row])
            )
            assignment[row] = group
            counts[group] += fleet.label_counts[row]
            members[group] += 1
            distance[group] = with_it[group]
        return grouping_of(self, fleet, assignment, groups)

    def _choose(
        self,
        samples: NDArray[np.int64],
        members: NDArray[np.int64],
        change: NDArray[np.float64],
        added: int,
    ) -> int:
        """Return the group for a client with ``added`` samples; ``change`` is of the distances."""
        after = samples + np.diag(np.full(len(samples), added))
        balanced = after.max(axis=1) <= self.max_ratio * after.min(axis=1)
        if added and balanced.any():
            return int(np.argmin(np.where(balanced, change, np.inf)))
        # A client without samples changes no distance: it goes where the fewest clients are.
        fewest = np.lexsort((change, members, samples) if added else (members,))
        return int(fewest[0])
