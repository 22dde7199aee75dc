"""What all model factories share: checked arguments, scaled widths, seeded weights."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_arguments(num_classes: int, width: float, in_channels: int) -> None:
    """Raise ValueError, naming the argument, if a model of that description can't exist."""
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, but must be at least 1")
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width is {width}, but must be a finite number above 0")
    if in_channels < 1:
        raise ValueError(f"in_channels is {in_channels}, but must be at least 1")


def scaled(channels: int, width: float) -> int:
    """Return ``channels`` times ``width``, rounded, and at least 1."""
    return max(1, round(channels * width))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's generator with a seed, and put the caller's state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
