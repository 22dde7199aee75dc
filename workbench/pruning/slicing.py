"""Make a network really smaller: keep some channels of some layers, share all other tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from workbench.pruning.buffers import POOL
from workbench.pruning.cloning import clone_sharing_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from workbench.pruning.layers import Layer
    from workbench.pruning.structure import Kept


def sliced(model: nn.Module, layers: Mapping[str, Layer], kept: Kept) -> nn.Module:
    """Return a network that has only the kept channels.

    Tensors of layers that lose nothing are shared with ``model``; the others are new. Everything
    that is not a tensor is copied.
    """
    smaller = clone_sharing_tensors(model)
    for name in dict.fromkeys(name for name, _ in kept):
        layer = layers[name]
        _slice_layer(
            smaller.get_submodule(name), layer, kept.get((name, "in")), kept.get((name, "out"))
        )
    return smaller


def _slice_layer(
    module: nn.Module,
    layer: Layer,
    inputs: NDArray[np.int64] | None,
    outputs: NDArray[np.int64] | None,
) -> None:
    """Slice a layer's tensors in place of the module, and set its numbers of channels."""
    where: dict[str, list[tuple[int, NDArray[np.int64]]]] = {}
    if layer.prunable:
        output_dimension, input_dimension = (1, 0) if layer.kind == "transposed" else (0, 1)
        if outputs is not None:
            if layer.kind == "transposed":
                # its weight has the output channels of one group only
                within = outputs[: len(outputs) // layer.groups]
                where["weight"] = [(output_dimension, within)]
            else:
                where["weight"] = [(output_dimension, outputs)]
            where["bias"] = [(0, outputs)]
        if inputs is not None and layer.kind != "depthwise":
            within = inputs
            if layer.kind == "conv":
                # all groups keep the same places
                within = inputs[: len(inputs) // layer.groups]
            where.setdefault("weight", []).append((input_dimension, within))
    elif outputs is not None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            where[key] = [(0, outputs)]
    for key, cuts in where.items():
        _slice_tensor(module, key, cuts)
    _set_widths(module, layer, inputs, outputs)


def _slice_tensor(module: nn.Module, key: str, cuts: list[tuple[int, NDArray[np.int64]]]) -> None:
    parameter = module._parameters.get(key)  # noqa: SLF001 - assignment without registering again
    if parameter is not None:
        value = take(parameter.detach(), cuts)
        module._parameters[key] = nn.Parameter(value, parameter.requires_grad)  # noqa: SLF001
    elif isinstance(module._buffers.get(key), torch.Tensor):  # noqa: SLF001
        buffer = module.get_buffer(key)
        module._buffers[key] = take(buffer, cuts)  # noqa: SLF001


def take(tensor: torch.Tensor, cuts: list[tuple[int, NDArray[np.int64]]]) -> torch.Tensor:
    """Return the given indices along the given dimensions, in memory of its own."""
    # The dimension that loses most goes first, so that the second pass has less to read.
    for dimension, index in sorted(cuts, key=lambda cut: len(cut[1]) / tensor.shape[cut[0]]):
        tensor = _take_along(tensor.contiguous(), dimension, index)
    return tensor


def _take_along(tensor: torch.Tensor, dimension: int, index: NDArray[np.int64]) -> torch.Tensor:
    shape = list(tensor.shape)
    run = _run_length(index, shape[dimension])
    shape[dimension] = len(index)
    # Features that one channel was flattened into stay together, and are copied together.
    viewed = tensor.view(*tensor.shape[:dimension], -1, run, *tensor.shape[dimension + 1 :])
    places = torch.from_numpy(index[::run] // run).to(tensor.device)
    if tensor.device.type != "cpu":
        selected: torch.Tensor = viewed.index_select(dimension, places).reshape(shape)
        return selected
    taken = POOL.empty(shape, tensor.dtype)
    out = taken.view(*viewed.shape[:dimension], len(places), *viewed.shape[dimension + 1 :])
    torch.index_select(viewed, dimension, places, out=out)
    return taken


def _run_length(index: NDArray[np.int64], length: int) -> int:
    """Return the largest number such that the index is made of aligned runs of that length."""
    breaks = np.flatnonzero(np.diff(index) != 1)
    edges = np.concatenate([index[:1], index[breaks + 1], index[breaks] + 1, index[-1:] + 1])
    return int(np.gcd.reduce(edges, initial=length))


def _set_widths(
    module: nn.Module,
    layer: Layer,
    inputs: NDArray[np.int64] | None,
    outputs: NDArray[np.int64] | None,
) -> None:
    """Tell a module how many channels it has now."""
    own = {"norm": "num_features", "groupnorm": "num_channels", "prelu": "num_parameters"}
    kind = "features" if layer.kind == "linear" else "channels"
    widths = {}
    if layer.prunable and inputs is not None:
        widths[f"in_{kind}"] = len(inputs)
        if layer.kind == "depthwise":
            widths["groups"] = len(inputs)
    if outputs is not None:
        widths[own.get(layer.kind, f"out_{kind}")] = len(outputs)
        if layer.kind == "groupnorm":
            widths["num_groups"] = len(outputs) * layer.groups // layer.out_channels
    for name, width in widths.items():
        setattr(module, name, width)
