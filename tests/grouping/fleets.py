"""Fleets, and the sizes of models, on which groupings are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workbench.data import partition
from workbench.fleet import Fleet
from workbench.tiers import PAPER_TIERS

CANDIDATE_BYTES = (
    227_138_216, 226_790_568, 226_569_384, 226_532_456, 203_345_032, 182_096_936, 179_593_000,
)  # fmt: skip
"""The candidates of AlexNet for CIFAR-10 after NetAdapt's first step of 5%."""

GOLDENS = Path(__file__).parent / "goldens"


def cifar_like(clients: int, seed: int, *, alpha: float = 0.3) -> Fleet:
    """Return a fleet with label counts as if CIFAR-10 had been split by Dirichlet(alpha)."""
    labels = np.repeat(np.arange(10), 6000)
    parts = partition.dirichlet(labels, clients, alpha, seed=seed)
    counts = np.stack([np.bincount(labels[part], minlength=10) for part in parts])
    return Fleet.from_label_counts(counts, seed=seed)


def golden(name: str) -> Fleet:
    """Return the fleet of a published case: its labels, its tiers, its link rates."""
    case = np.load(GOLDENS / f"netdag_{name}.npz")
    number = {f"TIER_{tier.name}": index for index, tier in enumerate(PAPER_TIERS)}
    return Fleet.from_label_counts(
        case["label_counts"],
        tier=[number[tier] for tier in case["tier"]],
        rate_bps=case["bandwidth"],
    )
