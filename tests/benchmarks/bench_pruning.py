"""The seven candidates of one iteration on the full AlexNet, beside the obvious implementation.

The obvious one, as the published systems do it, copies the whole network for each candidate and
slices the copy. Both are measured in turns, in one run, with the same kept filters.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from tests.pruning.oracles import deep_copy_and_slice
from workbench import models
from workbench.pruning.buffers import POOL
from workbench.pruning.netadapt import NetAdapt

REPEATS = 9
SHAPE = (3, 32, 32)
NETADAPT = NetAdapt(step=0.05, conv_multiple=8, linear_multiple=8, budget=0.25)
WIDTHS = {
    "features.0": (40, "features.3", 1),
    "features.3": (160, "features.6", 1),
    "features.6": (336, "features.8", 1),
    "features.8": (224, "features.10", 1),
    "features.10": (216, "classifier.1", 36),
    "classifier.1": (3248, "classifier.4", 1),
    "classifier.4": (1352, "classifier.6", 1),
}
"""What the first step keeps of each block, and the layer that uses it; see the settings' table."""


def rank(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Rank filters by their norm and return those that stay, in the obvious way."""
    kept = {}
    for name, (width, _, _) in WIDTHS.items():
        norms = model.get_submodule(name).weight.detach().flatten(1).norm(dim=1)
        kept[name] = norms.argsort(descending=True)[:width].sort().values
    return kept


def copy_and_slice(model: torch.nn.Module, kept: dict[str, torch.Tensor]) -> list[torch.nn.Module]:
    """Build all candidates in the obvious way."""
    return [
        deep_copy_and_slice(model, name, kept[name], user, repeat)
        for name, (_, user, repeat) in WIDTHS.items()
    ]


def seconds(function) -> float:
    """Time one call; what it returns is gone afterwards."""
    gc.collect()
    start = time.perf_counter()
    result = function()
    duration = time.perf_counter() - start
    del result
    return duration


def benchmarks() -> list[dict]:
    """Measure proposing, building and memory."""
    model = models.alexnet()
    NETADAPT.propose(models.alexnet(width=0.125), SHAPE)  # loads what torch traces with
    first_proposal = seconds(lambda: NETADAPT.propose(model, SHAPE))
    candidates = NETADAPT.propose(model, SHAPE)
    kept = rank(model)
    times: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        POOL.clear()
        for name, function in (
            ("plain proposing", lambda: copy_and_slice(model, rank(model))),
            ("proposing", lambda: NETADAPT.propose(model, SHAPE)),
            ("plain building", lambda: copy_and_slice(model, kept)),
            ("first building", lambda: [candidate.build() for candidate in candidates]),
            ("building", lambda: [candidate.build() for candidate in candidates]),
        ):
            times.setdefault(name, []).append(seconds(function))
    median = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    ours, plain = memory("ours"), memory("plain")
    return [
        row(
            "AlexNet: propose 7 candidates with costs",
            median["proposing"],
            f"rank, deep copy, slice: {median['plain proposing']:.0f} ms",
            median["plain proposing"],
            "<= 10 ms, >= 10x faster",
        ),
        row(
            "AlexNet: the same, architecture seen for the first time",
            1e3 * first_proposal,
            f"rank, deep copy, slice: {median['plain proposing']:.0f} ms",
            median["plain proposing"],
            "reported",
        ),
        row(
            "AlexNet: build 7 candidates",
            median["building"],
            f"deep copy, slice: {median['plain building']:.0f} ms",
            median["plain building"],
            "<= 50 ms, >= 10x faster",
        ),
        row(
            "AlexNet: the same, no buffers of an earlier iteration",
            median["first building"],
            f"deep copy, slice: {median['plain building']:.0f} ms",
            median["plain building"],
            "reported",
        ),
        {
            "name": "AlexNet: peak extra memory of 7 built candidates",
            "median": ours,
            "unit": "models",
            "peer": f"deep copy, slice: {plain:.2f} models",
            "ratio": plain / ours,
            "goal": "< 2 models",
        },
    ]


def row(name: str, median: float, peer: str, peer_median: float, goal: str) -> dict:
    """Return a row; the ratio is how many times faster than the peer."""
    return {
        "name": name,
        "median": median,
        "unit": "ms",
        "peer": peer,
        "ratio": peer_median / median,
        "goal": goal,
    }


def memory(who: str) -> float:
    """Build all candidates in a process of its own; return the peak of its memory, in models."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_pruning", who]
    root = Path(__file__).resolve().parents[2]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return float(output.stdout.split()[-1])


def _peak(who: str) -> float:
    """Build all candidates, and watch how much memory the process has meanwhile."""
    import threading

    import psutil

    model = models.alexnet()
    candidates, kept = NETADAPT.propose(model, SHAPE), rank(model)
    gc.collect()
    process, done, peak = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if who == "ours":
        built = [candidate.build() for candidate in candidates]
    else:
        built = copy_and_slice(model, kept)
    peak[0] = max(peak[0], process.memory_info().rss)
    done.set()
    watcher.join()
    size = sum(value.nbytes for value in model.state_dict().values())
    assert len(built) == len(WIDTHS)
    return (peak[0] - before) / size


if __name__ == "__main__":
    print(_peak(sys.argv[1]))  # noqa: T201
