"""Blocks: layers that are pruned together, found for any network by following its channels.

A block is made of units. A unit is the smallest thing that can be removed: one filter of a plain
convolution, one filter of each of the layers that a residual addition ties, a whole group of a
group norm. What can't be pruned is kept with its reason, and shown by `Blocks.table`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from workbench.pruning.description import architecture, describe
from workbench.pruning.structure import (
    Block,
    BoolArray,
    Kept,
    kept_channels,
    narrowed_blocks,
    narrowed_layers,
)
from workbench.pruning.tracing import check_input_shape, trace
from workbench.pruning.verification import verified

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from torch import nn

    from workbench.pruning.layers import Trace

REMEMBERED = 64
"""Architectures whose blocks are remembered after their networks are gone."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """All blocks of a network, in the order of their first layers."""

    trace: Trace
    all: tuple[Block, ...]

    @cached_property
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

    def kept(self, chosen: Sequence[tuple[Block, BoolArray]]) -> Kept:
        """Turn kept units of some blocks into the kept channels of all layers that lose some."""
        return kept_channels(self.trace.layers, chosen)

    def narrowed(self, chosen: Sequence[tuple[Block, BoolArray]]) -> Blocks:
        """Return the blocks of the network that has only the kept units."""
        kept = self.kept(chosen)
        layers = narrowed_layers(self.trace.layers, kept)
        return Blocks(replace(self.trace, layers=layers), narrowed_blocks(self.all, kept, chosen))

    @property
    def regular(self) -> bool:
        """Whether a fresh look at a network that was narrowed to these blocks finds the same.

        It may find more where layers have become so narrow that they are of another kind: a
        grouped convolution with one channel in each group is a depthwise one.
        """
        several = all(block.units > 1 for block in self.all)
        return several and all(layer.regular for layer in self.trace.layers.values())

    def table(self) -> pd.DataFrame:
        """One row a block: name, layers, width, units, whether it is pruned, and if not, why.

        Layers with weights that no block has (a norm on the input) have a row of their own.
        """
        import pandas as pd  # noqa: PLC0415  # clients can do without

        rows = [
            {
                "block": block.name,
                "layers": ", ".join(block.layers),
                "width": block.width,
                "units": block.units,
                "prunable": block.prunable,
                "reason": block.reason,
            }
            for block in self.all
        ]
        covered = {tie.layer for block in self.all for tie in block.ties if tie.axis == "out"}
        rows += [
            {
                "block": name,
                "layers": name,
                "width": layer.out_channels,
                "units": 0,
                "prunable": False,
                "reason": "it hands on channels that no layer of this network makes",
            }
            for name, layer in self.trace.layers.items()
            if name not in covered
        ]
        rows += [
            {
                "block": name,
                "layers": name,
                "width": 0,
                "units": 0,
                "prunable": False,
                "reason": reason,
            }
            for name, reason in self.trace.unknown.items()
        ]
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False))


def find_blocks(model: nn.Module, input_shape: Sequence[int]) -> Blocks:
    """Find the blocks of a network, or recall them if its architecture is known.

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
    known = _BY_MODEL.get(model)
    if known is not None and known[0] == _signature(model, shape):
        return known[1]
    try:
        key = architecture(describe(model, shape))
    except ValueError:
        key = ""  # it can't be described, so it is known by itself only
    found = _BY_ARCHITECTURE.get(key)
    if found is None:
        traced = trace(model, shape)
        # Clients never come here; it loads what they can do without.
        from workbench.pruning.ties import tied_layers  # noqa: PLC0415

        found = Blocks(traced, verified(model, traced, tied_layers(model, traced)))
    _keep(key, found)
    remember(model, found)
    return found


def learn(model: nn.Module, description: str) -> None:
    """Keep the blocks of a network, if they are known, for all others of that description."""
    known = _BY_MODEL.get(model)
    if known is not None and known[0] == _signature(model, known[1].trace.input_shape):
        _keep(architecture(description), known[1])


def _keep(key: str, blocks: Blocks) -> None:
    if key:
        _BY_ARCHITECTURE[key] = blocks
        _BY_ARCHITECTURE.move_to_end(key)
        while len(_BY_ARCHITECTURE) > REMEMBERED:
            _BY_ARCHITECTURE.popitem(last=False)


def remember(model: nn.Module, blocks: Blocks) -> None:
    """Keep the blocks of a network for the next time that they are asked for."""
    _BY_MODEL[model] = (_signature(model, blocks.trace.input_shape), blocks)


def _signature(model: nn.Module, shape: tuple[int, ...]) -> object:
    """Return what changes when somebody changes a network that is remembered."""
    widths = tuple((name, tuple(value.shape)) for name, value in model.named_parameters())
    return shape, widths, tuple(type(module) for module in model.modules())


_BY_MODEL: WeakKeyDictionary[nn.Module, tuple[object, Blocks]] = WeakKeyDictionary()
_BY_ARCHITECTURE: OrderedDict[str, Blocks] = OrderedDict()
