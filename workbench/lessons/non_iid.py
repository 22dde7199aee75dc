"""Lesson 31: nobody has seen everything, and what that does to a common model."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from workbench.grouping.divergence import distances, group_counts
from workbench.lessons.verdict import Lesson, Verdict, agrees

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


class NonIIDLesson(Lesson):
    """Exercises on how unlike clients are, and on averaging what they have learned."""

    exercises = ("Exercise 1", "Exercise 2", "Exercise 3", "Exercise 4")

    def check_distance(self, function: Callable[..., object]) -> Verdict:
        """Check a function of (counts (C,), everyone's counts (C,)) that returns their EMD."""
        generator = np.random.default_rng(6)
        cases = []
        for classes in (2, 5, 10, 10):
            counts = generator.integers(0, 50, size=classes)
            counts[0] += 1
            cases.append((counts, counts + generator.integers(0, 300, size=classes)))
        verdict = self.judge_function(
            self.exercises[0],
            function,
            _distance,
            cases,
            because="Shares, not counts: a large client is not unlike because it is large.",
        )
        if verdict.state == "wrong" and agrees(function, _of_counts, cases):
            return self.judge(
                self.exercises[0],
                "wrong",
                "These are differences of counts; turn them into shares.",
            )
        if verdict.state == "wrong" and agrees(function, lambda a, b: _distance(a, b) / 2, cases):
            return self.judge(self.exercises[0], "wrong", "Nearly: there is no half in this EMD.")
        return verdict

    def check_one_class(self, answer: object, classes: int) -> Verdict:
        """Check the EMD of a client that knows one of so many classes, all equally frequent."""
        share = 1 / classes
        return self.judge_number(
            self.exercises[1],
            answer,
            _distance(np.eye(classes)[0], np.ones(classes)),
            tolerance=0.005,
            mistakes={
                "That is what it has too much. Now add what it has too little.": 1 - share,
                "2 is for a client that shares no class at all with the others.": 2.0,
            },
            because="Too much of one class, and just as much too little of all others together.",
        )

    def check_average(self, function: Callable[..., object]) -> Verdict:
        """Check a function of (arrays, their sample counts) that returns the weighted average."""
        generator = np.random.default_rng(7)
        cases = []
        for clients, shape in ((1, (3,)), (2, (4,)), (3, (2, 5)), (5, (7,))):
            weights = [generator.normal(size=shape) for _ in range(clients)]
            cases.append((weights, [int(n) for n in generator.integers(1, 60, size=clients)]))
        name = self.exercises[2]
        verdict = self.judge_function(
            name,
            lambda weights, samples: function([one.copy() for one in weights], list(samples)),
            lambda weights, samples: np.average(weights, axis=0, weights=samples),
            cases,
            because="Who has more samples has more to say: that is FedAvg.",
        )
        if verdict.state != "wrong":
            return verdict
        if agrees(function, lambda weights, _: np.mean(weights, axis=0), cases):
            return self.judge(
                name, "wrong", "Here all count the same; weigh them by their numbers of samples."
            )
        if "array of shape" in verdict.text or "For [" in verdict.text:
            return self.judge(name, "wrong", "It does not return the weighted average.")
        return verdict

    def check_pairs(self, answer: object, label_counts: NDArray[np.int64]) -> Verdict:
        """Check an assignment of six clients to three groups of two, against all there are."""
        name = self.exercises[3]
        groups = self.judge_pairs(name, answer)
        if isinstance(groups, Verdict):
            return groups
        emd = _emd(label_counts, groups)
        best = min(
            float(_emd(label_counts, np.array(other)).mean())
            for other in set(permutations((0, 0, 1, 1, 2, 2)))
        )
        if emd.mean() > best + 1e-9:
            worst = int(np.argmax(emd))
            return self.judge(
                name,
                "wrong",
                f"The mean EMD is {emd.mean():.3f}, but {best:.3f} is possible. The most unlike "
                f"is group {worst} with {emd[worst]:.3f}.",
            )
        return self.judge(name, "right", f"Mean EMD {best:.3f}; no other pairs are more alike.")


def _distance(counts: NDArray[np.float64], everyone: NDArray[np.float64]) -> float:
    return float(distances(counts[None], everyone)[0])


def _of_counts(counts: NDArray[np.float64], everyone: NDArray[np.float64]) -> float:
    return float(np.abs(counts - everyone).sum())


def _emd(label_counts: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    return distances(group_counts(label_counts, groups, 3), label_counts.sum(axis=0))
