"""The small search; run as a program, it dies by SIGKILL before its n-th write to the disk."""

from __future__ import annotations

import os
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from workbench.data.dataset import Dataset
from workbench.data.datasets import load_dataset
from workbench.federation.strategies import FedAvg
from workbench.fleet import Fleet
from workbench.grouping.netdag import NetDAG
from workbench.pruning.netadapt import NetAdapt
from workbench.search.folder import RunFolder
from workbench.search.policies import SearchPolicy
from workbench.search.search import Search


@cache
def dataset() -> Dataset:
    return load_dataset("digits")


@cache
def fleet(clients: int = 6) -> Fleet:
    """Return clients with 24 samples each."""
    whole = Fleet.dirichlet(dataset(), clients=clients, alpha=0.5, seed=3)
    train = tuple(rows[:18] for rows in whole.train_indices)
    test = tuple(rows[:6] for rows in whole.test_indices)
    counts = np.stack(
        [
            np.bincount(dataset().labels[np.concatenate(rows)], minlength=10)
            for rows in zip(train, test, strict=True)
        ]
    )
    return Fleet(
        label_counts=counts,
        tier=whole.tier,
        rate_bps=whole.rate_bps,
        tiers=whole.tiers,
        names=whole.names,
        train_indices=train,
        test_indices=test,
        settings={**whole.settings, "cut": "18 + 6 samples a client"},
    )


def model(seed: int = 0) -> nn.Module:
    """Return a network of three blocks with dropout, so that chance has a say."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=4),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(16 * 25, 24),
            nn.ReLU(),
            nn.Linear(24, 10),
        )


def small_search(**settings: Any) -> Search:
    defaults: dict[str, Any] = {
        "model": model(),
        "dataset": dataset(),
        "fleet": fleet(),
        "netadapt": NetAdapt(
            step=0.1, budget=0.4, iterations=2, conv_multiple=1, linear_multiple=1
        ),
        "grouping": NetDAG(coeff=0.9, max_iter=3),
        "training": FedAvg(rounds=2, learning_rate=0.05, batch_size=8),
        "policy": SearchPolicy(pretrain_rounds=1),
        "seed": 4,
        "device": "cpu",
    }
    return Search(**(defaults | settings))


def count_writes(act: Any) -> None:
    """Call ``act(n)`` before the n-th write to a run folder, and in the middle of it."""
    number = 0
    write, append = RunFolder._write, RunFolder.append

    def counted_write(self: RunFolder, name: str, data: bytes) -> None:
        nonlocal number
        number += 1
        act(number)
        scratch = (self.path / name).with_name(f".{Path(name).name}.part")
        scratch.write_bytes(data[: len(data) // 2])
        number += 1
        act(number)
        write(self, name, data)

    def counted_append(self: RunFolder, event: Any) -> None:
        nonlocal number
        number += 1
        act(number)
        append(self, event)
        events = self.path / "events.jsonl"
        whole = events.read_bytes()
        number += 1
        events.write_bytes(whole[:-7])
        act(number)
        events.write_bytes(whole)

    RunFolder._write, RunFolder.append = counted_write, counted_append  # type: ignore[method-assign]


def main(path: str, die_at: int) -> None:
    def act(number: int) -> None:
        if number == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    count_writes(act)
    small_search().run(path, progress=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
