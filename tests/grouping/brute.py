"""NetDAG straight from its text, pair by pair, in exact arithmetic: the oracle of the tests.

``l1`` distances are fractions. ``chord`` distances are decimals of 50 digits, where differences
below 1e-40 are nothing but rounding. Written for clarity only. `FloatBrute` is the same with
floating-point numbers, for fleets where exact ones take too long.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np

DIGITS = 50
ROUNDING = Decimal("1e-40")


def l1(vector, everyone):
    """Sum of the absolute differences between the class proportions."""
    samples, total = sum(vector), sum(everyone)
    own = [Fraction(count, samples) if samples else Fraction(0) for count in vector]
    overall = [Fraction(count, total) if total else Fraction(0) for count in everyone]
    return sum((abs(p - q) for p, q in zip(own, overall, strict=True)), Fraction(0))


def chord(vector, everyone):
    """Euclidean distance between the two vectors, each scaled to unit length."""
    own, overall = unit(vector), unit(everyone)
    return sum(((p - q) ** 2 for p, q in zip(own, overall, strict=True)), Decimal(0)).sqrt()


def unit(vector):
    length = Decimal(sum(count * count for count in vector)).sqrt()
    return [Decimal(count) / length if length else Decimal(0) for count in vector]


class Brute:
    """The groups after ``run``: ``assignment``, ``swaps`` as pairs of rows, ``trace``."""

    def __init__(self, label_counts, tier, assignment, groups, metric, allowed=None):
        self.counts = [[int(count) for count in row] for row in label_counts]
        self.tier = [int(value) for value in tier]
        self.assignment = [int(value) for value in assignment]
        self.groups = groups
        self.allowed = allowed
        self.rounding = Fraction(0) if metric == "l1" else ROUNDING
        self.exact = Fraction if metric == "l1" else Decimal
        everyone = tuple(self.labels(range(groups)))
        distance = {"l1": l1, "chord": chord}[metric]
        self.distance = lru_cache(None)(lambda vector: distance(vector, everyone))
        self.swaps = []

    def labels(self, groups, assignment=None):
        assignment = assignment or self.assignment
        rows = [row for row, group in zip(self.counts, assignment, strict=True) if group in groups]
        return [sum(column) for column in zip(*rows, strict=True)] or [0] * len(self.counts[0])

    def emd(self, group, assignment=None):
        return self.distance(tuple(self.labels([group], assignment)))

    def emds(self):
        return [self.emd(group) for group in range(self.groups)]

    def run(self, coeff, max_iter):
        with localcontext() as context:
            context.prec = DIGITS
            self.trace = [self.emds()]
            order = list(range(self.groups))
            for _ in range(max_iter):
                order = order[1:] + order[:1]
                before = len(self.swaps)
                for group in order:
                    self.visit(group, self.exact(repr(coeff)))
                self.trace.append(self.emds())
                if len(self.swaps) == before:
                    break
        return self

    def visit(self, group, coeff):
        """Carry out the best proposal of a group if it brings the mean distance down."""
        present = self.emds()
        best = None
        for i, j in self.pairs(group):
            proposed = list(self.assignment)
            neighbour = proposed[j]
            proposed[i], proposed[j] = neighbour, group
            if self.allowed is not None and not (
                self.allowed[i][neighbour] and self.allowed[j][group]
            ):
                continue
            factor = 1 if self.tier[i] == self.tier[j] else coeff
            if not self.emd(group, proposed) < present[group] * factor - self.rounding:
                continue
            # Only two terms of the mean differ; its number of groups is the same for all.
            total = sum(present) - present[group] - present[neighbour]
            total += self.emd(group, proposed) + self.emd(neighbour, proposed)
            if best is None or total < best[0] - self.rounding:
                best = total, i, j, proposed
        if best is not None and best[0] < sum(present) - self.rounding:
            _, i, j, self.assignment = best
            self.swaps.append((i, j))

    def pairs(self, group):
        rows = range(len(self.assignment))
        for i in (row for row in rows if self.assignment[row] == group):
            for neighbour in (group - 1, group + 1, group - 2, group + 2):
                if 0 <= neighbour < self.groups:
                    yield from ((i, j) for j in rows if self.assignment[j] == neighbour)


class FloatBrute(Brute):
    """The same steps, with NumPy for the distances."""

    def __init__(self, label_counts, tier, assignment, groups, metric, allowed=None):
        super().__init__(label_counts, tier, assignment, groups, metric, allowed)
        self.matrix = np.asarray(label_counts, dtype=np.float64)
        self.norm = 1 if metric == "l1" else 2
        self.exact, self.rounding = float, 1e-12
        everyone = self.matrix[np.asarray(self.assignment) >= 0].sum(axis=0)
        self.target = everyone / np.linalg.norm(everyone, self.norm)

    def emd(self, group, assignment=None):
        vector = self.matrix[np.asarray(assignment or self.assignment) == group].sum(axis=0)
        size = np.linalg.norm(vector, self.norm)
        return np.linalg.norm(vector / max(size, 1) - self.target, self.norm)
