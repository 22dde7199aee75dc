"""Where pixels come from: memory, or a choice of another source's images."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ImageSource(Protocol):
    """Where the pixels of a data set come from: memory, a folder, an archive."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pixels of these images, (n, C, H, W) uint8."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of what the pixels are made from."""
        ...


class ArraySource:
    """Pixels that lie in memory: ``pixels`` is (n, C, H, W) uint8."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise ValueError(
                f"pixels must be uint8 (n, channels, height, width), got {pixels.dtype} "
                f"{pixels.shape}"
            )
        self.pixels = pixels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pixels of these images, (n, C, H, W) uint8."""
        return self.pixels[indices]

    def fingerprint(self) -> str:
        """Return the SHA-256 of all pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()


class SubsetSource:
    """Some of another source's images, in an order of their own."""

    def __init__(self, source: ImageSource, rows: NDArray[np.int64]) -> None:
        self.source = source
        self.rows = rows

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.source.shape

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pixels of these images, (n, C, H, W) uint8."""
        return self.source.read(self.rows[indices])

    def fingerprint(self) -> str:
        """Return a hash of the other source and of which images were taken."""
        return self.source.fingerprint() + hashlib.sha256(self.rows.tobytes()).hexdigest()
