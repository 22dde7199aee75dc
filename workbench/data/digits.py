"""Handwritten digits: scikit-learn's own 1,797 images, at hand without a download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
Learning Repository, 1998; the test part, as scikit-learn ships it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from workbench.data.dataset import Dataset
from workbench.data.sources import ArraySource

if TYPE_CHECKING:
    from pathlib import Path

MEAN, STD = 0.3052, 0.3236
"""Of all pixels of the 32 x 32 images, scaled to [0, 1]."""


def load(root: str | Path | None = None, *, size: int = 32, channels: int = 1) -> Dataset:
    """Return the 1,797 images of 8 x 8 pixels, scaled bilinearly to ``size`` x ``size``.

    Parameters
    ----------
    root
        Must be None: the images come with scikit-learn.
    size
        Height and width in pixels, from 8 up.
    channels
        1 for grey, or 3 for the same grey in three channels.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    if root is not None:
        raise ValueError(f"root is {root}, but digits comes with scikit-learn and takes none")
    if size < 8:
        raise ValueError(f"size is {size}, but must be at least 8")
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}, but must be 1 or 3")
    from sklearn.datasets import load_digits  # noqa: PLC0415  # needs a second to be imported

    bunch = load_digits()
    # 0 to 16 in the original.
    grey = torch.from_numpy(bunch.images).float().unsqueeze(1) * (255 / 16)
    scaled = torch.nn.functional.interpolate(
        grey, size=(size, size), mode="bilinear", align_corners=False
    )
    pixels = scaled.round().to(torch.uint8).expand(-1, channels, -1, -1).contiguous().numpy()
    return Dataset(
        "digits",
        bunch.target.astype(np.int64),
        [str(digit) for digit in range(10)],
        ArraySource(pixels),
        mean=[MEAN] * channels,
        std=[STD] * channels,
    )
