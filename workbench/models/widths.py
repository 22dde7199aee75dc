"""What all model factories share: checking their arguments and scaling their widths."""

from __future__ import annotations

import math


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
