"""What two sums, of one number a client each, tell about an exchange of two clients.

Write n for the labels of a group, T for everyone's, v = n - a_i + a_j for the group after an
exchange. "v is closer to T than tau" describes a convex cone for both metrics, so a linear
function of v must be negative first. With sigma = sign(n / |n| - T / |T|):

    l1      (|T| sigma - sigma.T) . v  <  tau |T| |v|
    chord   -T . v                     <  -(1 - tau**2 / 2) |T| (n / |n|) . v

Both read ``pull . v < slope(tau) mass . v``, and v is a sum.

*Proposal*: with b = (pull - slope(tau) mass) . a for each client, exchanging i and j can bring the
group below tau only if ``b_j - b_i < -(pull - slope(tau) mass) . n``.

*Gain*: at tau = E, the present distance, the right side is zero, and with z = b_j - b_i

    l1      E(v)    >= E    +     z / (mass . v)
    chord   E(v)**2 >= E**2 + 2 * z / (mass . v)

which is linear in the two clients again if mass . v is replaced by the present R = mass . n; what
that neglects is of second order and bounded in `_linear_gain`. For the two groups of an exchange
together, the sum of the distances changes by at least ``u_j - u_i - slack``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from workbench.grouping._kernels import EQUAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workbench.grouping.state import Groups

    Rows = NDArray[np.int64]
    Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class HalfSpace:
    """At the labels n of a group with distance E: ``pull . n = slope(E) * size``.

    Attributes
    ----------
    weights
        ``pull`` and ``mass``, (C,) each.
    emd
        E.
    size
        R, ``mass . n``.
    chord
        Whether the metric is ``chord``.
    """

    weights: tuple[Numbers, Numbers]
    emd: float
    size: float
    chord: bool

    def slope(self, tau: float) -> float:
        """Return by how much ``mass`` weighs against ``pull`` if the distance is to be tau."""
        return tau * tau / 2 - 1 if self.chord else tau


def half_space(groups: Groups, group: int) -> HalfSpace:
    """Return the half-space at the present labels of a group."""
    labels, everyone = groups.group_counts[group], groups.everyone
    if groups.chord:
        length = np.linalg.norm(labels)
        scale = np.linalg.norm(everyone) / length if length > 0 else 0.0
        pull, mass = -everyone, labels * scale
    else:
        total = everyone.sum()
        sigma = np.sign(total * labels - labels.sum() * everyone)
        pull, mass = total * sigma - sigma @ everyone, np.full(len(labels), total)
    return HalfSpace((pull, mass), float(groups.emd[group]), float(mass @ labels), groups.chord)


class Side(NamedTuple):
    """Some clients, and what the half-spaces of the group and of its neighbour say about them."""

    rows: Rows
    pull: Numbers
    mass: Numbers
    other_pull: Numbers
    other_mass: Numbers

    def take(self, chosen: NDArray[np.bool_]) -> Side:
        return Side._make(values[chosen] for values in self)


class Candidates(NamedTuple):
    """Some clients with their two numbers, b and u."""

    rows: Rows
    proposal: Numbers
    gain: Numbers

    def take(self, chosen: NDArray[np.bool_] | Rows) -> Candidates:
        return Candidates._make(values[chosen] for values in self)


@dataclass(frozen=True)
class Pairs:
    """All exchanges of some clients of a group for some of a neighbour, to bring it below tau.

    An exchange can do so only if the ``proposal`` of the client that joins is at most that of the
    one that leaves plus ``proposal_limit``. It changes the sum of all distances by at least the
    difference of their ``gain`` minus ``slack``. ``rank`` orders the neighbours.
    """

    rank: int
    neighbour: int
    tau: float
    leaving: Candidates
    joining: Candidates
    proposal_limit: float
    slack: float

    @property
    def pairs(self) -> int:
        """How many exchanges these are."""
        return len(self.leaving.rows) * len(self.joining.rows)

    @property
    def lowest(self) -> float:
        """The least that an exchange of these can change the sum of all distances to."""
        return float(self.joining.gain.min() - self.leaving.gain.max()) - self.slack

    def most_promising(self, few: int) -> Pairs:
        """Return the pairs of the few clients on each side that stand to gain most.

        If these are not many anyway, all of them.
        """
        if self.pairs <= few**2:
            return self
        leaving, joining = -self.leaving.gain, self.joining.gain
        first, second = (
            np.argpartition(gain, few)[:few] if len(gain) > few else np.arange(len(gain))
            for gain in (leaving, joining)
        )
        return self._of(self.leaving.take(first), self.joining.take(second))

    def within(self, change: float) -> Pairs:
        """Leave out every client that is in no proposal with at most this change."""
        reach = change + 2 * EQUAL + self.slack
        leaving, joining = self.leaving, self.joining
        leaving = leaving.take(
            (leaving.proposal >= joining.proposal.min() - self.proposal_limit)
            & (leaving.gain >= joining.gain.min() - reach)
        )
        if not len(leaving.rows):
            return self._of(leaving, joining)
        joining = joining.take(
            (joining.proposal <= leaving.proposal.max() + self.proposal_limit)
            & (joining.gain <= leaving.gain.max() + reach)
        )
        return self._of(leaving, joining)

    def _of(self, leaving: Candidates, joining: Candidates) -> Pairs:
        return replace(self, leaving=leaving, joining=joining)


def pairs_below(
    tau: float,
    sides: tuple[Side, Side],
    own: HalfSpace,
    other: HalfSpace,
    *,
    rank: int,
    neighbour: int,
) -> Pairs:
    """Give the clients that leave and those that join their two numbers, b and u.

    ``own`` is the half-space of the group, to be brought below ``tau``, ``other`` that of its
    neighbour.
    """
    slope = own.slope(tau)
    # A group that is left without samples has distance 1 and no half-space: its b are equal, and
    # the margin lets it pass, as well as what rounding moves.
    limit = own.size * (slope - own.slope(own.emd)) + 1e-9 * max(own.size, 1.0)
    z = [side.pull - own.slope(own.emd) * side.mass for side in sides]
    other_z = [side.other_pull - other.slope(other.emd) * side.other_mass for side in sides]
    factor, slack = _linear_gain(own, z[0], z[1], sides[0].mass, sides[1].mass)
    other_factor, other_slack = _linear_gain(
        other, other_z[1], other_z[0], sides[1].other_mass, sides[0].other_mass
    )
    leaving, joining = (
        Candidates(side.rows, side.pull - slope * side.mass, factor * a - other_factor * b)
        for side, a, b in zip(sides, z, other_z, strict=True)
    )
    return Pairs(rank, neighbour, tau, leaving, joining, limit, slack + other_slack)


def _linear_gain(
    space: HalfSpace, z_out: Numbers, z_in: Numbers, mass_out: Numbers, mass_in: Numbers
) -> tuple[float, float]:
    """Return (factor, slack): the distance changes by at least ``factor * (in - out) - slack``.

    ``out`` are the clients that may leave the group of the half-space, ``in`` those that may join.
    Where the slack would exceed what there is to gain, the distance itself is the better bound.
    """
    shift = max(mass_out.max() - mass_in.min(), mass_in.max() - mass_out.min(), 0.0)
    fall = max(z_out.max() - z_in.min(), 0.0)
    rise = max(z_in.max() - z_out.min(), 0.0)
    size, emd = space.size, space.emd
    if size <= shift * (1 + 1e-9) or emd <= EQUAL:
        return 0.0, emd
    factor, slack = 1 / size, max(fall, rise) * shift / (size * (size - shift))
    if space.chord:
        # The square root is concave: below its tangent by most at the ends of the range.
        down = min(2 * fall / (size - shift) / emd**2, 1.0)
        up = 2 * rise / (size - shift) / emd**2
        bend = max(1 - down / 2 - math.sqrt(1 - down), 1 + up / 2 - math.sqrt(1 + up))
        factor, slack = factor / emd, slack / emd + emd * bend
    return (factor, slack) if slack < emd else (0.0, emd)
