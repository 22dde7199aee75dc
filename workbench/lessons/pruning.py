"""Lesson 32: what a network costs, and which filters it can do without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from workbench.lessons.verdict import Lesson, Verdict, agrees, is_open
from workbench.pruning.cost import cost_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.pruning.candidates import Candidate
    from workbench.pruning.cost import Cost
    from workbench.pruning.netadapt import NetAdapt


class PruningLesson(Lesson):
    """Exercises on MACs, on ranking filters, and on what NetAdapt selects."""

    exercises = ("Exercise 1", "Exercise 2", "Exercise 3", "Exercise 4", "Exercise 5")

    def check_macs(self, function: Callable[..., object]) -> Verdict:
        """Check a function of (channels, filters, kernel, height, width) that returns MACs."""
        generator = np.random.default_rng(8)
        cases = [
            (channels, filters, 2 * half + 1, height, width)  # an odd kernel has a middle
            for channels, filters, half, height, width in generator.integers(1, 9, (6, 5)).tolist()
        ]
        name = self.exercises[0]
        verdict = self.judge_function(
            name, function, _conv_macs, cases,
            because="A multiplication for each weight of each filter, at each place.",
        )  # fmt: skip
        if verdict.state == "wrong":
            for text, forgotten in (
                ("The filter is laid over every place of the image: where are these?", (3, 4)),
                ("A filter looks at all channels that come in: where are these?", (0,)),
                ("There are several filters: where is their number?", (1,)),
                ("A filter is a square: the kernel counts twice.", (2,)),
            ):
                if _agrees_without(function, forgotten, cases):
                    return self.judge(name, "wrong", text)
        return verdict

    def check_saving(
        self, answer: object, before: Sequence[int], after: Sequence[int], channels: int, side: int
    ) -> Verdict:
        """Check the share of MACs that two convolutions save when the first one loses filters.

        ``before`` and ``after`` are the filters of both, which have 3×3 kernels and keep the size
        of the image, ``channels`` of ``side`` × ``side``.
        """
        full, left = (
            [_conv_macs(channels, first, 3, side, side), _conv_macs(first, second, 3, side, side)]
            for first, second in (before, after)
        )
        return self.judge_number(
            self.exercises[1],
            answer,
            1 - sum(left) / sum(full),
            tolerance=0.005,
            mistakes={
                "That is what the first layer saves. The second one now has fewer channels to look "
                "at, too.": (full[0] - left[0]) / sum(full),
                "That is what is left, not what is saved.": sum(left) / sum(full),
                "A percentage is a share times 100; the answer is a share.": (
                    100 * (1 - sum(left) / sum(full))
                ),
            },
            because="A filter that goes takes an input channel of the next layer with it.",
        )

    def check_ranking(self, function: Callable[..., object]) -> Verdict:
        """Check a function of (weights (filters, ...), keep) that returns the filters that stay."""
        generator = np.random.default_rng(9)
        cases = []
        for filters, keep in ((4, 2), (8, 3), (12, 12), (16, 1), (16, 9)):
            weights = generator.normal(size=(filters, 3, 5, 5)) * generator.uniform(
                0.5, 2, size=(filters, 1, 1, 1)
            )
            cases.append((weights, keep))
        name = self.exercises[2]

        def ranked(weights: object, keep: int) -> object:
            chosen = function(weights, keep)
            return chosen if is_open(chosen) else np.sort(np.asarray(chosen))

        verdict = self.judge_function(
            name, ranked, _largest, cases, because="Small weights change little in what follows."
        )
        if verdict.state == "wrong" and agrees(ranked, _smallest, cases):
            return self.judge(name, "wrong", "These are the ones that should go.")
        if verdict.state == "wrong" and agrees(ranked, _largest_sum, cases):
            return self.judge(
                name,
                "wrong",
                "Positive and negative weights cancel out in a sum; square them first.",
            )
        return verdict

    def check_target(self, answer: object, netadapt: NetAdapt, initial: Cost) -> Verdict:
        """Check the MACs that are left after the third iteration, if each target is met exactly."""
        steps = [netadapt.step * netadapt.decay**n for n in range(3)]
        return self.judge_number(
            self.exercises[3],
            answer,
            initial.macs * (1 - sum(steps)),
            tolerance=0.002,
            mistakes={
                "The step gets smaller from one iteration to the next: see decay.": (
                    initial.macs * (1 - 3 * netadapt.step)
                ),
                "The step is a share of the network at the start, not of what is left.": (
                    initial.macs * float(np.prod([1 - step for step in steps]))
                ),
                "That is what is saved, not what is left.": initial.macs * sum(steps),
            },
            because="Each iteration saves a share of the start, and a little less than the last.",
        )

    def check_winner(
        self,
        answer: object,
        netadapt: NetAdapt,
        candidates: Sequence[Candidate],
        accuracies: Sequence[float],
        before: tuple[float, Cost],
    ) -> Verdict:
        """Check which block NetAdapt prunes; ``before`` is accuracy and cost of the network now."""
        name = self.exercises[4]
        if is_open(answer):
            return self.judge(name, "open")
        blocks = [candidate.block for candidate in candidates]
        if answer not in blocks:
            return self.judge(name, "wrong", f"{answer!r} is no block; there are {blocks}.")
        winner = blocks[netadapt.select(candidates, accuracies, *before)]
        if answer == winner:
            return self.judge(name, "right", "It loses the least accuracy for what it saves.")
        return self.judge(
            name, "wrong", "Divide what each loses in accuracy by the share of MACs that it saves."
        )


def _conv_macs(channels: int, filters: int, kernel: int, height: int, width: int) -> int:
    """Count, as the workbench does, a convolution that keeps the size of the image."""
    layer = nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False)
    return cost_of(nn.Sequential(layer), (channels, height, width)).macs


def _agrees_without(
    function: Callable[..., object], forgotten: Sequence[int], cases: Sequence[tuple[int, ...]]
) -> bool:
    """Whether a function counts MACs as if these of its arguments were 1."""

    def product(*numbers: int) -> float:
        channels, filters, kernel, height, width = (
            1 if place in forgotten and place != 2 else number
            for place, number in enumerate(numbers)
        )
        power = 1 if 2 in forgotten else 2
        return float(channels * filters * kernel**power * height * width)

    return agrees(function, product, cases)


def _largest(weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]], keep: int) -> object:
    norms = np.sqrt((weights**2).reshape(len(weights), -1).sum(axis=1))
    return np.sort(np.argsort(-norms)[:keep])


def _smallest(weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]], keep: int) -> object:
    norms = np.sqrt((weights**2).reshape(len(weights), -1).sum(axis=1))
    return np.sort(np.argsort(norms)[:keep])


def _largest_sum(weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]], keep: int) -> object:
    return np.sort(np.argsort(-weights.reshape(len(weights), -1).sum(axis=1))[:keep])
