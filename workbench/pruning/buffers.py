"""Memory that is used again: the candidates of one iteration take the place of the last one's.

Most of the time that a large candidate takes to build goes into memory that the system has to
clear first. A buffer that a candidate has let go is handed to the next one instead.
"""

from __future__ import annotations

import weakref
from collections import deque
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SMALLEST = 2**20
"""Below this many bytes the system's own allocator is as fast."""
LARGEST_SLACK = 1.25
"""A buffer is not used for a tensor that is more than this factor smaller."""


class BufferPool:
    """Buffers that come back by themselves when the tensors in them are gone.

    Parameters
    ----------
    limit_bytes
        Most bytes that are kept while nobody uses them.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        # A buffer may come back at any moment, in any thread: append and pop are atomic.
        self._free: deque[NDArray[np.uint8]] = deque()

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor with undefined content; the pool has its memory back once it is gone."""
        size_bytes = prod(shape) * dtype.itemsize
        if size_bytes < SMALLEST:
            return torch.empty(tuple(shape), dtype=dtype)
        buffer = self._find(size_bytes)
        view = buffer[:size_bytes]
        # The tensor holds the view, and the view is what tells when the tensor is gone.
        weakref.finalize(view, self._give_back, buffer).atexit = False
        return torch.from_numpy(view).view(dtype).view(tuple(shape))

    def clear(self) -> None:
        """Give all idle buffers back to the system."""
        self._free.clear()

    @property
    def idle_bytes(self) -> int:
        """Bytes that are kept though nobody uses them."""
        return sum(buffer.nbytes for buffer in list(self._free))

    def _find(self, size_bytes: int) -> NDArray[np.uint8]:
        """Take the smallest idle buffer that fits well, or make one."""
        fitting: NDArray[np.uint8] | None = None
        rest = []
        while self._free:
            try:
                buffer = self._free.popleft()
            except IndexError:
                break
            fits = size_bytes <= buffer.nbytes <= size_bytes * LARGEST_SLACK
            if fits and (fitting is None or buffer.nbytes < fitting.nbytes):
                buffer, fitting = fitting, buffer  # type: ignore[assignment]
            if buffer is not None:
                rest.append(buffer)
        self._free.extend(rest)
        return np.empty(size_bytes, dtype=np.uint8) if fitting is None else fitting

    def _give_back(self, buffer: NDArray[np.uint8]) -> None:
        self._free.append(buffer)
        while self.idle_bytes > self.limit_bytes:
            self._free.popleft()  # the one that has been idle longest


POOL = BufferPool(limit_bytes=512 * 2**20)
"""The buffers of all candidates."""
