"""Blocks as data: which channels of which layers form a unit, and what is left after pruning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.pruning.layers import Axis, Layer, axis_length

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
Kept = dict[tuple[str, Axis], IntArray]
"""Kept channels, ascending, of each axis of each layer that loses some."""


@dataclass(frozen=True, eq=False)
class Tie:
    """The part of one axis of one layer that belongs to a block.

    ``unit_of`` (channels,) int64 is the block's unit of each channel of that axis, and -1 for
    channels that belong to another block or to none.
    """

    layer: str
    axis: Axis
    unit_of: IntArray


@dataclass(frozen=True, eq=False)
class Block:
    """Layers that are pruned together.

    Attributes
    ----------
    layers
        Names of the layers that make its channels.
    units
        Number of units, the smallest things that can be removed.
    width
        Output channels of its first layer.
    ties
        Which channels of which layers belong to which unit.
    reason
        Why it can't be pruned; empty if it can.
    """

    layers: tuple[str, ...]
    units: int
    width: int
    ties: tuple[Tie, ...]
    reason: str = ""

    @property
    def name(self) -> str:
        """Name of its first layer."""
        return self.layers[0]

    @property
    def prunable(self) -> bool:
        """Whether units can be removed."""
        return not self.reason

    @cached_property
    def per_unit(self) -> dict[tuple[str, Axis], tuple[int, IntArray]]:
        """For each axis the channels of other blocks, and those of each unit, (units,) int64."""
        counts = {}
        for tie in self.ties:
            own = tie.unit_of[tie.unit_of >= 0]
            each = np.bincount(own, minlength=self.units).astype(np.int64)
            counts[tie.layer, tie.axis] = (len(tie.unit_of) - len(own), each)
        return counts

    def widths(self, order: IntArray) -> dict[tuple[str, Axis], IntArray]:
        """Return how many channels each axis keeps with the first 1, 2, ..., n units of an order.

        Parameters
        ----------
        order
            (units,) int64, the units, the one to be kept longest first.

        Returns
        -------
        dict
            Layer and axis -> (units,) int64.
        """
        return {
            key: foreign + np.cumsum(each[order]) for key, (foreign, each) in self.per_unit.items()
        }

    @property
    def producing(self) -> tuple[Tie, ...]:
        """The ties of the layers that make its channels."""
        return tuple(tie for tie in self.ties if tie.axis == "out" and tie.layer in self.layers)


def kept_channels(layers: Mapping[str, Layer], chosen: Iterable[tuple[Block, BoolArray]]) -> Kept:
    """Turn kept units into kept channels.

    Parameters
    ----------
    layers
        The layers of the network by name.
    chosen
        The pruned blocks, and for each which of its units are kept, (units,) bool.
    """
    masks: dict[tuple[str, Axis], BoolArray] = {}
    for block, units in chosen:
        for tie in block.ties:
            length = axis_length(layers[tie.layer], tie.axis)
            mask = masks.setdefault((tie.layer, tie.axis), np.ones(length, dtype=np.bool_))
            mask &= (tie.unit_of < 0) | units[tie.unit_of]
    return {key: np.flatnonzero(mask) for key, mask in masks.items()}


def narrowed_layers(layers: Mapping[str, Layer], kept: Kept) -> dict[str, Layer]:
    """Return the layers of the pruned network."""
    narrow = dict(layers)
    for name in dict.fromkeys(name for name, _ in kept):
        layer = layers[name]
        outputs = len(kept.get((name, "out"), range(layer.out_channels)))
        inputs = outputs
        if not layer.single_axis:
            inputs = len(kept.get((name, "in"), range(layer.in_channels)))
        groups = layer.groups
        if layer.kind == "groupnorm":
            groups = layer.groups * outputs // layer.out_channels
        narrow[name] = replace(layer, in_channels=inputs, out_channels=outputs, groups=groups)
    return narrow


def narrowed_blocks(
    blocks: Iterable[Block], kept: Kept, chosen: Iterable[tuple[Block, BoolArray]]
) -> tuple[Block, ...]:
    """Return the blocks of the pruned network, in the same order."""
    units_of = {block.name: units for block, units in chosen}
    narrow = []
    for block in blocks:
        units = units_of.get(block.name, np.ones(block.units, dtype=np.bool_))
        number = np.append(np.cumsum(units) - 1, -1)  # the last entry serves unit -1
        ties = tuple(
            Tie(tie.layer, tie.axis, number[_taken(tie.unit_of, kept.get((tie.layer, tie.axis)))])
            for tie in block.ties
        )
        count = int(units.sum())
        reason = block.reason or ("" if count > 1 else "only one unit is left")
        width = len(
            next(tie for tie in ties if tie.layer == block.name and tie.axis == "out").unit_of
        )
        narrow.append(Block(block.layers, count, width, ties, reason))
    return tuple(narrow)


def _taken(values: IntArray, index: IntArray | None) -> IntArray:
    return values if index is None else values[index]
