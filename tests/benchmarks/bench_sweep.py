"""What-if: a sweep over COEFF at 210 clients, and annealed groups of as many clients.

The goals are wall times, so they are the peers: ratio is goal / ours, and 1 or more is met.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import workbench as wb
from tests.grouping.fleets import CANDIDATE_BYTES, cifar_like

CLIENTS = 210
REPEATS = 9
COEFFS = [0.01, *(n / 20 for n in range(1, 21))]
SWEEP_GOAL_S = 1.0
ANNEALED_GOAL_S = 0.1


def benchmarks() -> list[dict[str, object]]:
    """Measure both, one after the other in each repetition."""
    fleet = cifar_like(CLIENTS, seed=0)
    annealed = wb.AnnealedGrouping()
    measured: dict[str, tuple[Callable[[], object], float]] = {
        f"sweep of {len(COEFFS)} COEFFs, {CLIENTS} clients": (
            lambda: wb.sweep(fleet, CANDIDATE_BYTES, coeff=COEFFS),
            SWEEP_GOAL_S,
        ),
        f"annealed groups, {CLIENTS} clients": (
            lambda: annealed.group(fleet, len(CANDIDATE_BYTES), sizes_bytes=CANDIDATE_BYTES),
            ANNEALED_GOAL_S,
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(REPEATS + 1):
        for name, (work, _goal) in measured.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    rows: list[dict[str, object]] = []
    for name, (_, goal) in measured.items():
        ours = median(seconds[name][1:])  # the first one compiles
        rows.append(
            {
                "name": name,
                "median": 1e3 * ours,
                "unit": "ms",
                "peer": f"the goal, {1e3 * goal:g} ms",
                "ratio": goal / ours,
                "goal": f"<= {1e3 * goal:g} ms, ratio >= 1",
            }
        )
    return rows
