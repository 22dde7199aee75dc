"""NetDAG beside the brute-force version of the tests, and beside scoring every pair.

Fleets of 56 and 210 clients: the same swaps as brute force, in the same run. Large fleets: the
same swaps as scoring every pair with compiled code. Where nothing comparable ends in reasonable
time, the goal is the peer, and the ratio is goal / ours. The real fleet needs WORKBENCH_DATA.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from tests.grouping.brute import FloatBrute
from tests.grouping.fleets import cifar_like
from workbench.fleet import Fleet
from workbench.grouping import netdag
from workbench.grouping.baselines import NetworkAwareGrouping, by_rate
from workbench.grouping.netdag import NetDAG

GROUPS = 7
EVERY_PAIR = 10**18
Row = dict[str, object]
Inputs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def benchmarks() -> list[Row]:
    """Measure small fleets, large ones, the memory of the largest, and the very first call."""
    rows = [beside_brute_force(56, goal_ms=1), beside_brute_force(210, goal_ms=5)]
    large = {
        "10,000 clients": inputs(labelled(10_000)),
        "10,000 clients, chord": inputs(labelled(10_000)),
    }
    real = celeba()
    if real is not None:
        large[f"{len(real):,} CelebA identities"] = inputs(real)
    for name, given in large.items():
        metric = "chord" if name.endswith("chord") else "l1"
        rows.append(beside_every_pair(name, given, NetDAG(metric=metric)))
    largest = inputs(labelled(100_000))
    ours = seconds(lambda: NetDAG().refine(*largest), repeats=5)
    rows.append(beside_goal("NetDAG, 100,000 clients", 1e3 * ours, "ms", 1000))
    if sys.platform == "linux":
        memory = in_new_process(MEMORY, largest)
        rows.append(beside_goal("NetDAG, 100,000 clients, extra memory", memory, "MiB", 200))
    first = in_new_process(FIRST)
    rows.append(beside_goal("NetDAG, the first call, compiling", 1e3 * first, "ms", 2000))
    return rows


def beside_brute_force(clients: int, goal_ms: float) -> Row:
    """Measure COEFF 0.9 and 10 iterations on a fleet like the published ones."""
    given = inputs(cifar_like(clients, seed=0))
    brute = FloatBrute(*given, GROUPS, "l1")
    started = time.perf_counter()
    brute.run(0.9, 10)
    peer = time.perf_counter() - started
    result = NetDAG().refine(*given)
    assert [(swap.client, swap.partner) for swap in result.swaps] == brute.swaps
    ours = seconds(lambda: NetDAG().refine(*given), repeats=31)
    return {
        "name": f"NetDAG, {clients} clients",
        "median": 1e3 * ours,
        "unit": "ms",
        "peer": f"brute force, {peer:.3g} s",
        "ratio": peer / ours,
        "goal": f"<= {goal_ms:g} ms",
    }


def beside_every_pair(name: str, given: Inputs, strategy: NetDAG) -> Row:
    """Measure bounds and scoring every pair in turns."""
    ours, peers = [], []
    for _ in range(3):
        started = time.perf_counter()
        result = strategy.refine(*given)
        ours.append(time.perf_counter() - started)
        with mock.patch.object(netdag, "LARGE", EVERY_PAIR):
            started = time.perf_counter()
            every_pair = strategy.refine(*given)
            peers.append(time.perf_counter() - started)
        assert result.swaps == every_pair.swaps
    return {
        "name": f"NetDAG, {name}",
        "median": 1e3 * min(ours),
        "unit": "ms",
        "peer": f"every pair scored, {min(peers):.3g} s",
        "ratio": min(peers) / min(ours),
        "goal": "<= 1000 ms",
    }


def beside_goal(name: str, ours: float, unit: str, goal: float) -> Row:
    """Return a row whose peer is its goal."""
    return {
        "name": name,
        "median": ours,
        "unit": unit,
        "peer": f"the goal, {goal:g} {unit}",
        "ratio": goal / ours,
        "goal": f"<= {goal:g} {unit}, ratio >= 1",
    }


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call after one that is not counted."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken)


def labelled(clients: int, classes: int = 10) -> Fleet:
    """Return a large fleet with some 200 samples a client, Dirichlet(0.3) over the classes."""
    generator = np.random.default_rng(0)
    shares = generator.dirichlet([0.3] * classes, clients)
    sizes = generator.lognormal(np.log(200), 0.6, (clients, 1))
    return Fleet.from_label_counts(np.round(shares * sizes), seed=0)


def celeba() -> Fleet | None:
    """Return the identities of CelebA with at least 5 images as a fleet, if the data is here."""
    path = Path(os.environ.get("WORKBENCH_DATA", "")) / "celeba_labels.npz"
    if not path.is_file():
        return None
    with np.load(path) as data:
        kind = data["smiling"] + 2 * data["male"] + 4 * data["mouth_slightly_open"]
        _, owner, images = np.unique(data["identity"], return_inverse=True, return_counts=True)
    counts = np.zeros((len(images), 8), dtype=np.int64)
    np.add.at(counts, (owner, kind), 1)
    return Fleet.from_label_counts(counts[images >= 5], seed=0)


def inputs(fleet: Fleet) -> Inputs:
    """Return what `NetDAG.refine` takes, in the order in which it visits the clients."""
    rows = by_rate(fleet, np.arange(len(fleet)))
    start = NetworkAwareGrouping().group(fleet, GROUPS)
    return fleet.label_counts[rows], fleet.tier[rows], start.assignment[rows]


MEMORY = """
import ctypes, sys
from pathlib import Path
import numpy as np
from tests.benchmarks.bench_netdag import NetDAG, inputs, labelled
NetDAG().refine(*inputs(labelled(2_000)))
with np.load(sys.argv[1]) as saved:
    large = saved["arr_0"], saved["arr_1"], saved["arr_2"]
def kibibytes(name):
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if name in one]
    return int(line.split()[1])
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before = kibibytes("VmRSS")
NetDAG().refine(*large)
print((kibibytes("VmHWM") - before) / 1024)
"""
"""The growth of the process at its highest, in MiB. Compiling comes before: what it left free is
given back, and its own highest is forgotten. The fleet is read from a file for the same reason."""

FIRST = """
import time
from tests.benchmarks.bench_netdag import NetDAG, cifar_like, inputs
given = inputs(cifar_like(210, seed=0))
started = time.perf_counter()
NetDAG().refine(*given)
print(time.perf_counter() - started)
"""


def in_new_process(program: str, given: Inputs | None = None) -> float:
    """Run a program in a new process that has nothing compiled, and return what it prints.

    What is given lies in a file that the program's first argument names.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "given.npz"
        if given is not None:
            np.savez(saved, *given)
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        done = subprocess.run(
            [sys.executable, "-c", program, str(saved)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
    return float(done.stdout)
