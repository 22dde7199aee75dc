"""A grouping: which client trains with which group, how that came about, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from workbench.grouping.divergence import AWAY, Metric, distances, group_counts
from workbench.grouping.picture import svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from workbench.fleet import Fleet
    from workbench.tiers import Tier


class Swap(NamedTuple):
    """One change of a grouping: ``client`` leaves ``group`` for ``neighbour``, ``partner`` returns.

    ``partner`` is -1 if the client moved alone. ``mean_emd`` is the mean distance over all groups
    after the change, in the metric of the strategy.
    """

    iteration: int
    group: int
    neighbour: int
    client: int
    partner: int
    mean_emd: float


@dataclass(frozen=True, eq=False)
class Grouping:
    """The assignment of N clients to G groups; group 0 trains the largest candidate.

    Attributes
    ----------
    strategy
        Name of the strategy that made it.
    assignment
        (N,) int64, group of each client, -1 for a client that is away.
    groups
        G; a group may be empty.
    label_counts
        (N, C) int64, samples of each class on each client.
    tier
        (N,) int64, tier of each client.
    rate_bps
        (N,) float64, link rates in bit/s at the time of the grouping; None if unknown.
    tiers
        The tier table, if known.
    swaps
        What the strategy changed after its first assignment, in order.
    emd_trace
        (iterations + 1, G) distances before the first and after each iteration of the strategy, in
        its own metric; None for a strategy without iterations.
    settings
        The strategy's parameters, as JSON.
    """

    strategy: str
    assignment: NDArray[np.int64]
    groups: int
    label_counts: NDArray[np.int64]
    tier: NDArray[np.int64]
    rate_bps: NDArray[np.float64] | None = None
    tiers: tuple[Tier, ...] | None = None
    swaps: tuple[Swap, ...] = ()
    emd_trace: NDArray[np.float64] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.assignment)

    def members(self, group: int) -> NDArray[np.int64]:
        """Return the rows of a group's clients, ascending.

        Raises
        ------
        ValueError
            If there is no such group.
        """
        if not 0 <= group < self.groups:
            raise ValueError(f"group is {group}; there are 0..{self.groups - 1}")
        return np.flatnonzero(self.assignment == group)

    def counts(self) -> NDArray[np.int64]:
        """Return the samples of each class in each group, (G, C) int64."""
        return group_counts(self.label_counts, self.assignment, self.groups)

    def emd(self, metric: Metric = "l1") -> NDArray[np.float64]:
        """Return the distance of each group from all clients that take part, (G,) float64.

        Raises
        ------
        ValueError
            If the metric is unknown.
        """
        counts = self.counts()
        return distances(counts, counts.sum(axis=0), metric)

    def sizes(self) -> NDArray[np.int64]:
        """Return the number of clients in each group, (G,) int64."""
        return np.bincount(self.assignment[self.assignment != AWAY], minlength=self.groups)

    def round_duration_s(
        self, sizes_bytes: Sequence[float], compute_s: ArrayLike = 0.0
    ) -> NDArray[np.float64]:
        """Predict how long one round of each group takes at the present link rates, in seconds.

        A client receives the model of its group, trains it, and sends it back; a group waits for
        its slowest client.

        Parameters
        ----------
        sizes_bytes
            G sizes, the bytes on the wire of each group's model.
        compute_s
            Seconds of local training, one value or (G,).

        Returns
        -------
        (G,) float64; 0 for an empty group, infinite if a link carries nothing.

        Raises
        ------
        ValueError
            If the link rates are unknown, or a length does not match.
        """
        if self.rate_bps is None:
            raise ValueError("the link rates are unknown: make the grouping from a fleet")
        sizes = checked_sizes(sizes_bytes, self.groups)
        here = self.assignment != AWAY
        group = self.assignment[here]
        compute = np.broadcast_to(np.asarray(compute_s, dtype=np.float64), (self.groups,))
        duration = np.zeros(self.groups)
        np.maximum.at(
            duration, group, exchange_s(sizes[group], self.rate_bps[here]) + compute[group]
        )
        return duration

    def table(self) -> pd.DataFrame:
        """One row a group: clients, samples, distances, slowest rate, tiers, clients swapped in."""
        metrics = {metric: self.emd(metric) for metric in ("l1", "chord")}
        counts = self.counts()
        arrived = self._arrivals()
        rows = []
        for group in range(self.groups):
            rows_of_group = self.members(group)
            row: dict[str, Any] = {
                "group": group,
                "clients": len(rows_of_group),
                "samples": int(counts[group].sum()),
                "emd_l1": metrics["l1"][group],
                "emd_chord": metrics["chord"][group],
                "tiers": ", ".join(self._tier_names(np.unique(self.tier[rows_of_group]))),
                "swapped_in": arrived[group],
            }
            if self.rate_bps is not None:
                rates = self.rate_bps[rows_of_group]
                row["slowest_mbit_s"] = rates.min() / 1e6 if rates.size else np.nan
            rows.append(row)
        return pd.DataFrame(rows)

    def _arrivals(self) -> list[int]:
        """Clients of each group that started in another one, which the trace tells."""
        start = self.assignment.copy()
        for swap in reversed(self.swaps):
            start[swap.client] = swap.group
            if swap.partner >= 0:
                start[swap.partner] = swap.neighbour
        moved = (start != self.assignment) & (self.assignment != AWAY)
        return [int((moved & (self.assignment == group)).sum()) for group in range(self.groups)]

    def _tier_names(self, tiers: NDArray[np.int64]) -> list[str]:
        if self.tiers is None:
            return [str(tier) for tier in tiers]
        return [self.tiers[tier].name for tier in tiers]

    def to_dict(self) -> dict[str, Any]:
        """Return what a run folder keeps of it, as JSON; `from_dict` is the way back."""
        return {
            "strategy": self.strategy,
            "settings": dict(self.settings),
            "groups": self.groups,
            "assignment": self.assignment.tolist(),
            "swaps": [list(swap) for swap in self.swaps],
            "emd": self.emd("l1").tolist(),
            "emd_chord": self.emd("chord").tolist(),
            "emd_trace": None if self.emd_trace is None else self.emd_trace.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], fleet: Fleet) -> Grouping:
        """Build a grouping of a fleet again from what `to_dict` returned.

        Raises
        ------
        ValueError
            If the fleet has another number of clients.
        """
        assignment = np.asarray(data["assignment"], dtype=np.int64)
        if len(assignment) != len(fleet):
            raise ValueError(
                f"the grouping is of {len(assignment)} clients, the fleet has {len(fleet)}"
            )
        trace = data["emd_trace"]
        return cls(
            strategy=data["strategy"],
            assignment=assignment,
            groups=data["groups"],
            label_counts=fleet.label_counts,
            tier=fleet.tier,
            rate_bps=fleet.rate_bps,
            tiers=fleet.tiers,
            swaps=tuple(Swap(*swap) for swap in data["swaps"]),
            emd_trace=None if trace is None else np.asarray(trace, dtype=np.float64),
            settings=data["settings"],
        )

    def _repr_html_(self) -> str:
        emd = self.emd("l1")
        return (
            f"<p><b>Grouping</b> by {self.strategy}: {len(self)} clients in {self.groups} groups, "
            f"mean EMD {emd.mean():.4f} (l1), {len(self.swaps)} swaps</p>"
            + self.table().to_html(index=False, float_format="{:.3f}".format)
            + "<p>Clients of each tier (rows) in each group (columns):</p>"
            + svg(self)
        )


def exchange_s(
    size_bytes: NDArray[np.float64], rate_bps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the seconds to receive a model and to send it back; infinite where a link is dead."""
    size, rate = np.broadcast_arrays(size_bytes, rate_bps)
    bits = 2 * 8 * size
    dead = np.where(bits > 0, np.inf, 0.0)
    return np.asarray(np.divide(bits, rate, out=dead, where=rate > 0))


def checked_sizes(sizes_bytes: Sequence[float], groups: int) -> NDArray[np.float64]:
    """Return G model sizes in bytes as an array, or raise ValueError naming what is wrong."""
    sizes = np.asarray(sizes_bytes, dtype=np.float64)
    if sizes.shape != (groups,):
        raise ValueError(f"sizes_bytes must be {groups} sizes, one a group, got {sizes.shape}")
    bad = ~np.isfinite(sizes) | (sizes < 0)
    if bad.any():
        raise ValueError(
            f"sizes_bytes[{int(np.argmax(bad))}] is {sizes[bad][0]}; sizes are finite, from 0 up"
        )
    return sizes
