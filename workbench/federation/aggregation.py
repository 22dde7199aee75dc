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
        self._total: payload.Flat = {}
        self.samples = 0
        self.clients = 0

    def add(self, flat: payload.Flat, samples: int) -> None:
        """Add one client's weights; they may be overwritten afterwards.

        Raises
        ------
        workbench.federation.payload.PayloadError
            If sizes are not those of what was sent, or a value is not finite.
        """
        payload.check_layout(flat, self._layout)
        payload.check_finite(flat)
        if samples <= 0:
            return
        if self.clients == 0:
            # A single client's weights are returned as they are, bit for bit.
            self._total = {name: array.copy() for name, array in flat.items()}
        else:
            for name, array in flat.items():
                total, sent = self._total[name], self._sent[name]
                if array.dtype.kind != "f":
                    np.maximum(total, array, out=total)
                    continue
                if self.clients == 1:
                    np.subtract(total, sent, out=total)
                    np.multiply(total, self.samples, out=total)
                _add_scaled_change(total, array, sent, samples)
        self.samples += samples
        self.clients += 1

    def result(self) -> payload.Flat:
        """Return the fused weights, those that were sent if nobody was added; ends the sum."""
        if self.clients == 0:
            return {name: array.copy() for name, array in self._sent.items()}
        total, self._total = self._total, {}
        if self.clients > 1:
            for name, array in total.items():
                if array.dtype.kind == "f":
                    np.divide(array, self.samples, out=array)
                    np.add(array, self._sent[name], out=array)
        return total


def _add_scaled_change(
    total: NDArray[Any], weights: NDArray[Any], sent: NDArray[Any], samples: int
) -> None:
    """Add ``samples * (weights - sent)`` in pieces that stay in the processor's cache."""
    piece = 1 << 15
    for begin in range(0, total.size, piece):
        part = slice(begin, begin + piece)
        change = weights[part] - sent[part]
        change *= total.dtype.type(samples)
        total[part] += change


def fused_mean(total: float, samples: int) -> float:
    """Mean over all test samples of a group; NaN if it has none."""
    return total / samples if samples else float("nan")
