"""Images that stay encoded (JPEG, PNG) where they lie, and are decoded when asked for."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.data.archives import Store

FORMATS = ("JPEG", "PNG")
SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PIXELS = 1 << 26
"""A header that claims more pixels is refused before anything is decoded."""


class EncodedSource:
    """Images of a store, each cut to its central square and scaled to ``size`` x ``size``, RGB.

    Memory: about 200 bytes an image for names and places, and up to ``memory_bytes`` of decoded
    pixels. Images are kept as they come until that is full; the others are decoded every time.

    Parameters
    ----------
    store
        Folder or archive.
    names
        The images, in the order of the data set.
    size
        Height and width in pixels.
    memory_bytes
        Bound of the decoded pixels that are kept; 0 keeps none.
    """

    def __init__(self, store: Store, names: Sequence[str], *, size: int, memory_bytes: int) -> None:
        if size < 1:
            raise ValueError(f"size is {size}, but must be at least 1")
        if memory_bytes < 0:
            raise ValueError(f"memory_bytes is {memory_bytes}, but must be at least 0")
        self.store = store
        self.names = list(names)
        self.size = size
        self.memory_bytes = memory_bytes
        self._kept: dict[int, NDArray[np.uint8]] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, size, size)."""
        return 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pixels of these images, (n, 3, size, size) uint8.

        Raises
        ------
        ValueError
            If an image can't be decoded; the message names store and image.
        """
        pixels = np.empty((len(indices), *self.shape), dtype=np.uint8)
        for row, index in enumerate(indices.tolist()):
            kept = self._kept.get(index)
            if kept is None:
                kept = self._decode(self.names[index])
                if (len(self._kept) + 1) * kept.nbytes <= self.memory_bytes:
                    self._kept[index] = kept
            pixels[row] = kept
        return pixels

    def _decode(self, name: str) -> NDArray[np.uint8]:
        try:
            with Image.open(io.BytesIO(self.store.read(name)), formats=FORMATS) as image:
                _check_size(image)
                # A JPEG can be decoded at a half, a quarter or an eighth of its size.
                image.draft("RGB", (self.size, self.size))
                square = ImageOps.fit(
                    image.convert("RGB"), (self.size, self.size), Image.Resampling.BILINEAR
                )
                return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            # Pillow raises each of these for damaged images.
            raise ValueError(
                f"{self.store.path}: image {name} can't be decoded ({error})"
            ) from error

    def fingerprint(self) -> str:
        """Return a SHA-256 of names, encoded sizes and the size that images are scaled to."""
        digest = hashlib.sha256(f"{self.size}".encode())
        for name in self.names:
            digest.update(f"\n{name} {self.store.size(name)}".encode())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the decoded pixels behind when the source goes to another process."""
        return {**self.__dict__, "_kept": {}}


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it claims {image.width} x {image.height} pixels")
