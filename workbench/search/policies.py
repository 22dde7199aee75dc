"""What a search may do differently: rounds per iteration, early dropping, who is there.

DecNAS trains candidates for more rounds as iterations go on ("dynamic round number", section 3.3)
and drops the worst after each round (section 4.3); NAFNAS does neither. Each is switched on by
itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class DynamicRounds:
    """Rounds per candidate that depend on the iteration (DecNAS, section 5.3).

    ``steps`` are pairs (last iteration, rounds), ascending; later iterations take the rounds of
    the last pair. Two tables ship: `IMAGENET_ROUNDS` and `CELEBA_ROUNDS`.
    """

    steps: tuple[tuple[int, int], ...]

    @model_validator(mode="after")
    def _check(self) -> DynamicRounds:
        last = [step[0] for step in self.steps]
        if not last or last != sorted(set(last)) or min(min(step) for step in self.steps) < 1:
            raise ValueError(
                f"steps is {self.steps}; allowed are pairs (last iteration, rounds), both from 1 "
                "up, with ascending iterations"
            )
        return self

    def rounds(self, iteration: int) -> int:
        """Return the rounds of an iteration, counted from 1."""
        for last, rounds in self.steps:
            if iteration <= last:
                return rounds
        return self.steps[-1][1]


IMAGENET_ROUNDS = DynamicRounds(((5, 5), (10, 10), (15, 15), (16, 20)))
"""DecNAS's rounds on ImageNet: 5, 10, 15, then 20. Its text leaves iteration 6 open; 10 here."""

CELEBA_ROUNDS = DynamicRounds(((5, 2), (10, 5), (15, 8), (16, 10)))
"""DecNAS's rounds on CelebA: 2, 5, 8, then 10."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EarlyDropping:
    """Drop the worst candidates after each round (DecNAS, Algorithm 4.1, lines 25 and 26).

    ``ratio`` of those that are left go, rounded up, but one always stays. 0 drops none, 1 leaves
    only the best.
    """

    ratio: float = Field(default=0.33, ge=0, le=1)

    def keep(self, candidates: int) -> int:
        """Return how many of the candidates go on."""
        return max(1, candidates - math.ceil(self.ratio * candidates)) if candidates else 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Availability:
    """Which clients are there: each with probability ``rate``, drawn anew for every round.

    A ``trace`` instead names, round by round over the whole search, the clients that are away;
    it starts again when it ends.
    """

    rate: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    trace: tuple[tuple[int, ...], ...] = ()

    def mask(
        self, clients: int, iteration: int, round_number: int, rounds_so_far: int
    ) -> NDArray[np.bool_]:
        """Return who is there in a round, (N,) bool; round 0 is the grouping of the iteration."""
        present = np.ones(clients, dtype=np.bool_)
        if self.trace:
            away = self.trace[rounds_so_far % len(self.trace)]
            wrong = [client for client in away if not 0 <= client < clients]
            if wrong:
                raise ValueError(f"trace names clients {wrong}; the fleet has 0..{clients - 1}")
            present[list(away)] = False
        elif self.rate < 1:
            generator = np.random.default_rng([self.seed, iteration, round_number])
            present = generator.random(clients) < self.rate
        return present


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SearchPolicy:
    """How a search goes about its iterations.

    Parameters
    ----------
    pretrain_rounds
        Rounds over the whole fleet that train the initial model first; None takes as many as a
        candidate gets, 0 takes the model as it comes.
    rounds
        Rounds per iteration; None takes the number of the training.
    dropping
        Early dropping; None trains all candidates to the end.
    accuracy
        What candidates are judged by: ``fused`` tests the fused model on its group after the last
        round (NAFNAS), ``local`` takes what clients measure on their own trained weights in each
        round (DecNAS). Dropping needs ``local``.
    regroup
        ``each iteration`` groups anew by the link rates and the clients of that moment; ``never``
        keeps the groups of the first iteration.
    scheduling
        Which group trains which candidate: ``by size`` gives the largest candidate to group 0
        (NAFNAS), ``random`` draws (DecNAS).
    tune_rounds, tune_iterations
        Rounds of federated tuning at the end, and of which global models (their iterations;
        -1 is the last); several are tuned side by side on groups of their own.
    """

    pretrain_rounds: int | None = Field(default=None, ge=0)
    rounds: DynamicRounds | None = None
    dropping: EarlyDropping | None = None
    accuracy: Literal["fused", "local"] = "fused"
    regroup: Literal["each iteration", "never"] = "each iteration"
    scheduling: Literal["by size", "random"] = "by size"
    tune_rounds: int = Field(default=0, ge=0)
    tune_iterations: tuple[int, ...] = (-1,)

    @model_validator(mode="after")
    def _check(self) -> SearchPolicy:
        if self.dropping is not None and self.accuracy != "local":
            raise ValueError(
                f"accuracy is {self.accuracy!r}, but early dropping judges by what clients "
                "measure before they upload; allowed with it: 'local'"
            )
        return self


def degradation(accuracy_lost: float, saved: Sequence[float]) -> float:
    """Return the accuracy lost per resource saved (DecNAS, section 4.3); smaller is better.

    ``saved`` is the share of each resource that a candidate saves over the model before.
    """
    total = sum(saved)
    return accuracy_lost / total if total > 0 else math.inf


def survivors(degradations: Sequence[float], keep: int) -> list[int]:
    """Return the places of the ``keep`` smallest accuracy degradations, in their old order.

    NaN (nothing was tested) counts as the worst; of equals the first stays.
    """
    worst_last = [math.inf if math.isnan(value) else value for value in degradations]
    ranked = sorted(range(len(worst_last)), key=lambda place: (worst_last[place], place))
    return sorted(ranked[:keep])
