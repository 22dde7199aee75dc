"""The interface of every grouping strategy, and the checks that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.grouping.divergence import AWAY
from workbench.grouping.result import Grouping, Swap, checked_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.fleet import Fleet


class GroupingStrategy(ABC):
    """Decides which client trains which candidate; the parameters are the fields of a subclass."""

    @abstractmethod
    def group(
        self,
        fleet: Fleet,
        groups: int,
        *,
        sizes_bytes: Sequence[float] | None = None,
        available: NDArray[np.bool_] | None = None,
        iteration: int = 0,
    ) -> Grouping:
        """Assign the clients of a fleet to groups.

        Parameters
        ----------
        fleet
            N clients with label counts, tiers and present link rates.
        groups
            G, the number of groups; group 0 trains the largest candidate.
        sizes_bytes
            Bytes on the wire of each group's model, descending.
        available
            (N,) booleans; a client that is not available is in no group (-1).
        iteration
            The iteration of the search; a strategy that draws at random draws anew in each.

        Raises
        ------
        ValueError
            If ``groups`` is below 1 or above the number of available clients, or the length of
            ``sizes_bytes`` or ``available`` does not match.
        """

    def settings(self) -> dict[str, Any]:
        """Return the parameters as JSON."""
        return asdict(self) if is_dataclass(self) else {}


def taking_part(
    fleet: Fleet,
    groups: int,
    sizes_bytes: Sequence[float] | None,
    available: NDArray[np.bool_] | None,
) -> NDArray[np.int64]:
    """Check what every strategy is given and return the rows of the clients that take part."""
    if available is None:
        rows = np.arange(len(fleet), dtype=np.int64)
    else:
        mask = np.asarray(available)
        if mask.shape != (len(fleet),) or mask.dtype != np.bool_:
            raise ValueError(
                f"available must be {len(fleet)} booleans, got {mask.dtype} of {mask.shape}"
            )
        rows = np.flatnonzero(mask)
    if groups < 1:
        raise ValueError(f"groups is {groups}, but must be at least 1")
    if groups > len(rows):
        raise ValueError(f"groups is {groups}, but only {len(rows)} clients are available")
    if sizes_bytes is not None:
        sizes = checked_sizes(sizes_bytes, groups)
        if (np.diff(sizes) > 0).any():
            raise ValueError(
                "sizes_bytes must be descending, group 0 trains the largest model, "
                f"got {sizes.tolist()}"
            )
    return rows


def split_evenly(rows: NDArray[np.int64], clients: int, groups: int) -> NDArray[np.int64]:
    """Cut ``rows`` into G consecutive parts that differ by one client at most.

    Returns the assignment of all ``clients``, (N,), where those not in ``rows`` are away.
    """
    assignment = np.full(clients, AWAY, dtype=np.int64)
    for group, part in enumerate(np.array_split(rows, groups)):
        assignment[part] = group
    return assignment


def grouping_of(
    strategy: GroupingStrategy,
    fleet: Fleet,
    assignment: NDArray[np.int64],
    groups: int,
    *,
    swaps: tuple[Swap, ...] = (),
    emd_trace: NDArray[np.float64] | None = None,
) -> Grouping:
    """Return the grouping of a fleet with everything that the fleet knows about its clients."""
    return Grouping(
        strategy=type(strategy).__name__,
        assignment=assignment,
        groups=groups,
        label_counts=fleet.label_counts,
        tier=fleet.tier,
        rate_bps=fleet.rate_bps,
        tiers=fleet.tiers,
        swaps=swaps,
        emd_trace=emd_trace,
        settings=strategy.settings(),
    )
