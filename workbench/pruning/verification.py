"""Try out what the dependency graph says, before anybody relies on it.

The graph can't see everything: sizes written into ``forward``, a mean over channels, a channel
shuffle. So each block is tried: a much narrower version of the network, with random weights, is
pruned, and must compute the same as its own unpruned version with those channels zeroed. A block
that fails is not pruned and carries the reason.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils import _pytree as pytree

from workbench.pruning.slicing import sliced
from workbench.pruning.structure import (
    Block,
    BoolArray,
    Kept,
    kept_channels,
    narrowed_blocks,
    narrowed_layers,
)
from workbench.pruning.tracing import copy_for_tracing, example_input, trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from workbench.pruning.layers import Layer, Trace

TRIAL_CHANNELS = 6
"""Channels that each layer keeps in the narrow version that is tried."""
LARGE = 5_000_000
"""Above this many parameters the trial is done in single precision only."""


@dataclass(frozen=True, eq=False)
class _Trial:
    """A network on a device for tracing, and the shapes of its outputs."""

    network: nn.Module
    trace: Trace
    shapes: list[tuple[int, ...]]


def verified(model: nn.Module, traced: Trace, blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Return the blocks, with the reason filled in for those that turn out not to be prunable.

    Parameters
    ----------
    model
        The network; it is left as it is.
    traced
        Its layers.
    blocks
        Its blocks, as the dependency graph has them.
    """
    network = copy_for_tracing(model, traced.device)
    trial = _Trial(network, traced, _output_shapes(network, traced))
    hopeful = [block for block in blocks if block.prunable]
    if not _problem(trial, hopeful):
        return tuple(blocks)
    # Something is wrong somewhere: let the blocks in one after the other.
    good: list[Block] = []
    reasons: dict[str, str] = {}
    for block in hopeful:
        problem = _problem(trial, [*good, block])
        if problem:
            reasons[block.name] = problem
        else:
            good.append(block)
    return tuple(
        replace(block, reason=block.reason or reasons.get(block.name, "")) for block in blocks
    )


def _problem(trial: _Trial, blocks: list[Block]) -> str:
    """Say what goes wrong when these blocks are pruned; nothing if all is well."""
    if not blocks:
        return ""
    layers = trial.trace.layers
    chosen = [(block, _spread(block, min(TRIAL_CHANNELS, block.units - 1))) for block in blocks]
    kept = kept_channels(layers, chosen)
    network = sliced(trial.network, layers, kept)
    try:
        shapes = _output_shapes(network, trial.trace)
        differs = trial.trace.other_macs and (
            trace(network, trial.trace.input_shape).other_macs != trial.trace.other_macs
        )
    except Exception as error:  # noqa: BLE001 - whatever a network's own code may raise
        return _does_not_run(error)
    if shapes != trial.shapes:
        return "output layer: its channels are among the network's outputs"
    if differs:
        return "operations outside of layers depend on its width, so its cost has no formula"
    narrow = [block for block in narrowed_blocks(blocks, kept, chosen) if block.prunable]
    return _numeric_problem(network, narrowed_layers(layers, kept), narrow, trial.trace.input_shape)


def _does_not_run(error: Exception) -> str:
    first_line = next(iter(str(error).strip().splitlines()), repr(error))
    return f"the network does not run without some of its channels: {first_line}"


def _spread(block: Block, channels: int) -> BoolArray:
    """Choose a few units, (units,) bool, spread over every layer of the block."""
    chosen = np.zeros(block.units, dtype=np.bool_)
    for tie in block.producing:
        units = np.unique(tie.unit_of)
        most = min(channels, max(2, len(units) - 1), len(units))
        places = np.linspace(0, len(units) - 1, most)
        chosen[units[places.astype(np.int64)]] = True
    return chosen


def _output_shapes(network: nn.Module, traced: Trace) -> list[tuple[int, ...]]:
    with torch.no_grad(), torch.device(traced.device):
        output = network(example_input(network, traced.input_shape, traced.device))
    return [tuple(leaf.shape) for leaf in _tensors(output)]


def _tensors(output: object) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


# ---------------------------------------------------------------------- with numbers


def _numeric_problem(
    network: nn.Module,
    layers: dict[str, Layer],
    blocks: list[Block],
    input_shape: tuple[int, ...],
) -> str:
    """Prune a network with random weights, and compare with zeroing the same channels."""
    chosen = [(block, _spread(block, max(1, block.units // 2))) for block in blocks]
    chosen = [(block, _drop_one(units)) for block, units in chosen]
    kept = kept_channels(layers, chosen)
    large = sum(parameter.numel() for parameter in network.parameters()) > LARGE
    problem = ""
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 1e-3)):
        if dtype == torch.float64 and large:
            continue
        try:
            difference, scale = _difference(network, layers, kept, input_shape, dtype)
        except Exception as error:  # noqa: BLE001 - a network may insist on single precision
            problem = _does_not_run(error)
            continue
        if difference <= tolerance * max(scale, 1e-6):
            return ""
        return (
            "removing its channels changes more than their absence: something besides layers "
            "looks at all of them, such as a mean over channels"
        )
    return problem


def _drop_one(units: BoolArray) -> BoolArray:
    """Make sure that something is removed."""
    if units.all():
        units = units.copy()
        units[len(units) // 2] = False
    return units


def _difference(
    network: nn.Module,
    layers: dict[str, Layer],
    kept: Kept,
    input_shape: tuple[int, ...],
    dtype: torch.dtype,
) -> tuple[float, float]:
    """Return the largest difference of the outputs, and the outputs' own size."""
    generator = torch.Generator().manual_seed(0)
    random = _with_random_weights(network, dtype, generator)
    images = torch.randn((2, *input_shape), generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        smaller = _tensors(sliced(random, layers, kept)(images))
        _zero_removed(random, layers, kept)
        zeroed = _tensors(random(images))
    pairs = [(a.double(), b.double()) for a, b in zip(smaller, zeroed, strict=True)]
    difference = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
    return difference, max((float(b.abs().max()) for _, b in pairs), default=0.0)


def _with_random_weights(
    network: nn.Module, dtype: torch.dtype, generator: torch.Generator
) -> nn.Module:
    """Return a real copy whose activations neither vanish nor explode."""
    random = copy.deepcopy(network).to_empty(device="cpu").to(dtype)
    with torch.no_grad():
        for module in random.modules():
            for key, value in (
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            ):
                if not value.is_floating_point():
                    value.zero_()
                elif value.dim() > 1:
                    fan_in = math.prod(value.shape[1:])
                    value.normal_(0, math.sqrt(2 / fan_in), generator=generator)
                elif key in {"weight", "running_var"}:
                    value.uniform_(0.5, 1.5, generator=generator)
                else:
                    value.normal_(0, 0.1, generator=generator)
    return random


def _zero_removed(network: nn.Module, layers: dict[str, Layer], kept: Kept) -> None:
    """Zero the channels that are not kept, where they are made and where they are used."""
    for (name, axis), channels in kept.items():
        layer, module = layers[name], network.get_submodule(name)
        length = layer.out_channels if axis == "out" else layer.in_channels
        removed = np.setdiff1d(np.arange(length), channels)
        if axis == "out":
            for key in ("weight", "bias"):
                value = getattr(module, key, None)
                if value is not None and not (layer.kind == "transposed" and key == "weight"):
                    value[removed] = 0
                elif value is not None:
                    value[:, np.unique(removed % value.shape[1])] = 0
        elif layer.kind == "linear":
            module.get_parameter("weight")[:, removed] = 0
        elif layer.kind == "conv":
            weight = module.get_parameter("weight")
            weight[:, np.unique(removed % weight.shape[1])] = 0
        elif layer.kind == "transposed":
            module.get_parameter("weight")[removed] = 0
