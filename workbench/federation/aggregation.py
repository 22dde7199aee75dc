"""Fusing what the clients of a group return (DecNAS, section 4.3).

Weights are fused by training samples, accuracies by test samples. Sums are streamed: each reply
is added and forgotten, so that a group of any size needs the memory of one model. Floating-point
buffers (the running mean and variance of batch norm) are averaged like weights; integer buffers
(its count of batches) take the largest value of the group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.federation import payload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class WeightedMean:
    """Streaming mean of flat weights around the weights that were sent out.

    What is summed is each client's change, scaled by its samples: changes are small, so single
    precision loses nothing that training would notice, and memory stays at one model.
    """

    def __init__(self, sent: Mapping[str, NDArray[Any]]) -> None:
        self._sent = sent
        self._layout = {name: int(array.size) for name, array in sent.items()}
        self._only: payload.Flat | None = None
        self._only_samples = 0
        self._sum: payload.Flat | None = None
        self.samples = 0
        self.clients = 0

    def add(self, flat: payload.Flat, samples: int) -> None:
        """Add one client's weights.

        Raises
        ------
        workbench.federation.payload.PayloadError
            If sizes are not those of what was sent, or a value is not finite.
        """
        payload.check_layout(flat, self._layout)
        payload.check_finite(flat)
        if samples <= 0:
            return
        self.samples += samples
        self.clients += 1
        if self.clients == 1:
            # A single client's weights are returned as they are, bit for bit.
            self._only, self._only_samples = flat, samples
            return
        if self._sum is None:
            self._sum = {
                name: np.zeros_like(array) if array.dtype.kind == "f" else array.copy()
                for name, array in self._sent.items()
            }
        if self._only is not None:
            self._accumulate(self._only, self._only_samples)
            self._only = None
        self._accumulate(flat, samples)

    def result(self) -> payload.Flat:
        """Return the fused weights; those that were sent if nobody was added."""
        if self.clients == 0:
            return {name: array.copy() for name, array in self._sent.items()}
        if self._only is not None:
            return {name: array.copy() for name, array in self._only.items()}
        total = self._sum
        if total is None:
            raise RuntimeError("the result of a WeightedMean can be taken once")
        self._sum = None
        for name, array in total.items():
            if array.dtype.kind == "f":
                np.divide(array, self.samples, out=array)
                np.add(array, self._sent[name], out=array)
        return total

    def _accumulate(self, flat: payload.Flat, samples: int) -> None:
        total = self._sum
        if total is None:
            raise RuntimeError("the result of a WeightedMean can be taken once")
        for name, array in flat.items():
            if array.dtype.kind == "f":
                _add_scaled_change(total[name], array, self._sent[name], samples)
            else:
                np.maximum(total[name], array, out=total[name])


def _add_scaled_change(
    total: NDArray[Any], weights: NDArray[Any], sent: NDArray[Any], samples: int
) -> None:
    """Add ``samples * (weights - sent)`` in pieces that stay in the processor's cache."""
    piece = 1 << 16
    for begin in range(0, total.size, piece):
        part = slice(begin, begin + piece)
        change = weights[part] - sent[part]
        change *= total.dtype.type(samples)
        total[part] += change


def fused_mean(total: float, samples: int) -> float:
    """Mean over all test samples of a group; NaN if it has none."""
    return total / samples if samples else float("nan")
