"""Blocks: layers that are pruned together, found for any network by following its channels.

A block is made of units. A unit is the smallest thing that can be removed: one filter of a plain
convolution, one filter of each of the layers that a residual addition ties, a whole group of a
group norm. What can't be pruned is kept with its reason, and shown by `Blocks.table`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from workbench.pruning.layers import Layer, Trace, check_input_shape, trace
from workbench.pruning.ties import TiedLayers, tied_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from workbench.pruning.ties import Tie


@dataclass(frozen=True, eq=False)
class Block:
    """Layers that are pruned together.

    Attributes
    ----------
    name
        Name of its first layer.
    layers
        Names of all layers whose output channels belong to it.
    units
        Number of units, the smallest things that can be removed.
    width
        Output channels of its first layer.
    ties
        Which channels of which layers belong to which unit.
    reason
        Why it can't be pruned; empty if it can.
    """

    name: str
    layers: tuple[str, ...]
    units: int
    width: int
    ties: tuple[Tie, ...]
    reason: str = ""

    @property
    def prunable(self) -> bool:
        """Whether units can be removed."""
        return not self.reason


@dataclass(frozen=True, eq=False)
class Blocks:
    """All blocks of a network, in the order of their first layers."""

    trace: Trace
    all: tuple[Block, ...]

    @property
    def prunable(self) -> tuple[Block, ...]:
        """The blocks that can be pruned."""
        return tuple(block for block in self.all if block.prunable)

    def block(self, name: str) -> Block:
        """Return the block of that name.

        Raises
        ------
        KeyError
            If there is no such block; the message lists those there are.
        """
        for block in self.all:
            if block.name == name:
                return block
        raise KeyError(f"no block {name!r}; there are {[block.name for block in self.all]}")

    def table(self) -> pd.DataFrame:
        """One row a block: name, layers, width, units, whether it is pruned, and if not, why."""
        return pd.DataFrame(
            {
                "block": [block.name for block in self.all],
                "layers": [", ".join(block.layers) for block in self.all],
                "width": [block.width for block in self.all],
                "units": [block.units for block in self.all],
                "prunable": [block.prunable for block in self.all],
                "reason": [block.reason for block in self.all],
            }
        )

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False))


def find_blocks(model: nn.Module, input_shape: Sequence[int]) -> Blocks:
    """Find the blocks of a network, or recall them if it was asked for before.

    Parameters
    ----------
    model
        Any network that runs on ``input_shape``; it is left as it is.
    input_shape
        Shape of one sample without the batch, such as (3, 32, 32).

    Raises
    ------
    ValueError
        If the network does not run on an input of that shape.
    """
    shape = check_input_shape(input_shape)
    signature = (shape, tuple(tuple(value.shape) for value in model.parameters()))
    known = _BY_MODEL.get(model)
    if known is not None and known[0] == signature:
        return known[1]
    traced = trace(model, shape)
    found = Blocks(
        traced, tuple(_block(tied, traced.layers) for tied in tied_layers(model, traced))
    )
    remember(model, found)
    return found


def remember(model: nn.Module, blocks: Blocks) -> None:
    """Keep the blocks of a network for the next time that they are asked for."""
    signature = (
        blocks.trace.input_shape,
        tuple(tuple(value.shape) for value in model.parameters()),
    )
    _BY_MODEL[model] = (signature, blocks)


_BY_MODEL: WeakKeyDictionary[nn.Module, tuple[object, Blocks]] = WeakKeyDictionary()


def _block(tied: TiedLayers, layers: dict[str, Layer]) -> Block:
    first = tied.producers[0]
    return Block(
        name=first,
        layers=tied.producers,
        units=tied.units,
        width=layers[first].out_channels,
        ties=tied.ties,
        reason=tied.reason,
    )
