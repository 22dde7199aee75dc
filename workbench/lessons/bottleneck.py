"""Lesson 30: one slow link, and what everybody can do about it."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from workbench.grouping.base import GroupingStrategy
from workbench.grouping.baselines import NetworkAwareGrouping
from workbench.grouping.result import exchange_s
from workbench.lessons.verdict import Lesson, Verdict, agrees, is_open

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from workbench.fleet import Fleet

CLIENTS, GROUPS = 6, 3


class BottleneckLesson(Lesson):
    """Exercises on how long a round takes.

    Parameters
    ----------
    fleet
        The clients of the last exercise.
    sizes_bytes
        Bytes of the model of each group, the largest first.
    """

    exercises = ("Exercise 1", "Exercise 2", "Exercise 3", "Exercise 4")
    longer = 1.2
    closer = 0.6

    def __init__(self, fleet: Fleet, sizes_bytes: Sequence[float]) -> None:
        super().__init__()
        self.fleet = fleet
        self.sizes_bytes = [float(size) for size in sizes_bytes]

    def check_exchange(self, answer: object, size_bytes: float, rate_bps: float) -> Verdict:
        """Check the seconds to send a model of ``size_bytes`` over a link and back."""
        bits = 8 * size_bytes
        return self.judge_number(
            self.exercises[0],
            answer,
            2 * bits / rate_bps,
            mistakes={
                "That is one way only: the model goes to the client and comes back.": (
                    bits / rate_bps
                ),
                "A byte has eight bits, and rates count bits.": 2 * size_bytes / rate_bps,
                "A byte has eight bits, and the model also comes back.": size_bytes / rate_bps,
                "That is upside down: bits divided by bits per second are seconds.": (
                    rate_bps / (2 * bits)
                ),
            },
            because="Bits there and back, divided by bits per second.",
        )

    def check_round(self, function: Callable[..., object]) -> Verdict:
        """Check a function of (bytes, rates (n,) in bit/s) that returns the seconds of a round."""
        generator = np.random.default_rng(5)
        cases = [
            (float(generator.integers(1, 9)) * 1e6, generator.integers(1, 400, size=n) * 1e6)
            for n in (1, 2, 3, 7, 7)
        ]
        verdict = self.judge_function(
            self.exercises[1],
            function,
            lambda size, rates: 16 * size / rates.min(),
            cases,
            because="A round is over when the last one is back.",
        )
        if verdict.state == "wrong":
            for text, other in (
                ("All links carry at the same time: seconds do not add up.", np.sum),
                ("That is the mean; but the others have to wait for the last one.", np.mean),
                ("That is the fastest client, and nobody waits for that one.", np.min),
            ):
                if agrees(function, lambda size, rates, of=other: of(16 * size / rates), cases[1:]):
                    return self.judge(self.exercises[1], "wrong", text)
        return verdict

    def check_groups(
        self, answer: object, rates_bps: NDArray[np.float64], sizes_bytes: NDArray[np.float64]
    ) -> Verdict:
        """Check an assignment of six clients to three groups of two, against all there are."""
        name = self.exercises[2]
        groups = self.judge_pairs(name, answer)
        if isinstance(groups, Verdict):
            return groups
        seconds = exchange_s(sizes_bytes[groups], rates_bps)
        best = min(
            float(exchange_s(sizes_bytes[list(other)], rates_bps).max())
            for other in set(permutations((0, 0, 1, 1, 2, 2)))
        )
        slowest = int(np.argmax(seconds))
        if seconds.max() > best * (1 + 1e-9):
            return self.judge(
                name,
                "wrong",
                f"The round takes {seconds.max():.1f} s, but {best:.1f} s are possible: everybody "
                f"waits for client {slowest}, who has the model of group {groups[slowest]}.",
            )
        return self.judge(
            name, "right", f"{best:.1f} s, and no other assignment is shorter. "
            f"The bottleneck is now client {slowest}.",
        )  # fmt: skip

    def check_strategy(self, answer: object) -> Verdict:
        """Check a strategy: groups that are alike, and a round hardly longer than need be."""
        name = self.exercises[3]
        if is_open(answer):
            return self.judge(name, "open")
        if not isinstance(answer, GroupingStrategy):
            return self.judge(name, "wrong", f"{answer!r} is no strategy such as wb.NetDAG().")
        (start_emd, start_s), (emd, seconds) = (
            self._merit(strategy) for strategy in (NetworkAwareGrouping(), answer)
        )
        found = (
            f"Mean EMD {emd:.3f} (at most {self.closer * start_emd:.3f}), round {seconds:.1f} s "
            f"(at most {self.longer * start_s:.1f} s)."
        )
        fits = emd <= self.closer * start_emd and seconds <= self.longer * start_s
        return self.judge(name, "right" if fits else "wrong", found)

    def _merit(self, strategy: GroupingStrategy) -> tuple[float, float]:
        """Return mean EMD and predicted round in seconds."""
        grouping = strategy.group(self.fleet, len(self.sizes_bytes), sizes_bytes=self.sizes_bytes)
        seconds = grouping.round_duration_s(self.sizes_bytes)
        return float(grouping.emd().mean()), float(seconds.max())
