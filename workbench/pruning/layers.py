"""What a network consists of: its layers, and what each costs as a formula of its widths.

A network is traced once, on the meta device, where nothing is computed and nothing allocated.
From then on the cost of any narrower version of it is arithmetic.
"""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Axis = Literal["in", "out"]
Kind = Literal["conv", "transposed", "depthwise", "linear", "norm", "groupnorm", "prelu"]
Width = int | np.ndarray[Any, np.dtype[np.int64]]
"""A number of channels, or an array of numbers of channels to be priced at once."""


@dataclass(frozen=True)
class Layer:
    """A module with weights whose number of channels can change.

    Attributes
    ----------
    name
        Path of the module in the network.
    kind
        ``depthwise`` is a convolution with one input channel in each group; its groups follow
        its input channels.
    in_channels, out_channels
        Lengths of its two axes; equal for all that have only one.
    groups
        Groups of a grouped convolution or of a group norm, otherwise 1.
    kernel
        Elements of a convolution's kernel, otherwise 1.
    positions
        How often the kernel is applied for one sample, over all calls in a forward pass.
    per_channel
        Further parameters of each output channel: a bias, a norm's weight and bias.
    buffers
        Buffer elements of each output channel: a norm's running mean and variance.
    fixed_bytes
        Bytes of tensors that do not depend on any width (a norm's batch counter).
    itemsize
        Bytes of one element.
    calls
        Number of calls in a forward pass.
    """

    name: str
    kind: Kind
    in_channels: int
    out_channels: int
    groups: int = 1
    kernel: int = 1
    positions: int = 0
    per_channel: int = 0
    buffers: int = 0
    fixed_bytes: int = 0
    itemsize: int = 4
    calls: int = 0

    @property
    def prunable(self) -> bool:
        """Whether the layer makes channels of its own (norms only pass them on)."""
        return self.kind in {"conv", "transposed", "depthwise", "linear"}

    @property
    def single_axis(self) -> bool:
        """Whether input and output channels are the same channels."""
        return self.kind in {"norm", "groupnorm", "prelu"}

    def _kernel_elements(self, inputs: Width, outputs: Width) -> Width:
        """Elements of the weight of a convolution or linear layer with these widths."""
        if not self.prunable:
            return 0
        if self.kind == "depthwise":
            return outputs * self.kernel
        return outputs * (inputs // self.groups) * self.kernel

    def macs(self, inputs: Width, outputs: Width) -> Width:
        """Multiply-accumulate operations for one sample with these widths."""
        return self._kernel_elements(inputs, outputs) * self.positions

    def parameters(self, inputs: Width, outputs: Width) -> Width:
        """Trainable elements with these widths."""
        return self._kernel_elements(inputs, outputs) + outputs * self.per_channel

    def size_bytes(self, inputs: Width, outputs: Width) -> Width:
        """Bytes in the state dict with these widths."""
        elements = self.parameters(inputs, outputs) + outputs * self.buffers
        return elements * self.itemsize + self.fixed_bytes


@dataclass(frozen=True)
class Trace:
    """The layers of a network, and what it costs besides them.

    ``other_macs`` are operations outside of layers (a matrix product in ``forward``);
    ``other_parameters`` and ``other_bytes`` are tensors outside of layers. ``device`` is where
    the network could be traced: ``meta``, or ``cpu`` if its code needs real numbers. ``unknown``
    names the modules that hold tensors but are no layer that we know, with the reason.
    """

    input_shape: tuple[int, ...]
    layers: dict[str, Layer]
    other_macs: int
    other_parameters: int
    other_bytes: int
    device: Literal["meta", "cpu"] = "meta"
    unknown: dict[str, str] = field(default_factory=dict)


def describe_layer(name: str, module: nn.Module) -> Layer | None:
    """Return the layer of a module without its positions; None if it is none that we know."""
    tensors = {**module._parameters, **module._buffers}  # noqa: SLF001 - own tensors only
    if any(True for _ in module.children()):
        return None
    layer: Layer | None = None
    if isinstance(module, _ConvNd):
        kind: Kind = "conv"
        if module.transposed:
            kind = "transposed"
        elif module.groups == module.in_channels and module.groups > 1:
            kind = "depthwise"
        layer = Layer(
            name,
            kind,
            module.in_channels,
            module.out_channels,
            groups=1 if kind == "depthwise" else module.groups,
            kernel=math.prod(module.kernel_size),
        )
    elif isinstance(module, nn.Linear):
        layer = Layer(name, "linear", module.in_features, module.out_features)
    elif isinstance(module, _NormBase):
        layer = Layer(name, "norm", module.num_features, module.num_features)
    elif isinstance(module, nn.GroupNorm):
        channels, groups = module.num_channels, module.num_groups
        layer = Layer(name, "groupnorm", channels, channels, groups=groups)
    elif isinstance(module, nn.PReLU) and module.num_parameters > 1:
        layer = Layer(name, "prelu", module.num_parameters, module.num_parameters)
    if layer is None or (layer.prunable and tensors.get("weight") is None):
        return None
    return _with_tensors(layer, module)


def _with_tensors(layer: Layer, module: nn.Module) -> Layer:
    """Fill in what the module's tensors besides the kernel take."""
    parameters = [(key, value) for key, value in module.named_parameters() if value is not None]
    per_channel = [key for key, _ in parameters if not (layer.prunable and key == "weight")]
    saved = set(module.state_dict(keep_vars=True)) - {key for key, _ in parameters}
    buffers = [value for key, value in module.named_buffers() if key in saved]
    wide = [value for value in buffers if value.numel() == layer.out_channels and value.dim()]
    fixed = sum(value.nbytes for value in buffers if not any(value is other for other in wide))
    itemsize = parameters[0][1].element_size() if parameters else 4
    return replace(
        layer,
        per_channel=len(per_channel),
        buffers=len(wide),
        fixed_bytes=fixed,
        itemsize=itemsize,
    )


def copy_for_tracing(model: nn.Module, device: str = "meta") -> nn.Module:
    """Return a copy of a network in evaluation mode; on the meta device it takes no memory."""
    memo: dict[int, Any] = {}
    if device == "meta":
        for parameter in model.parameters():
            empty = torch.empty_like(parameter, device="meta")
            memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.is_floating_point())
        plain = [
            value
            for module in model.modules()
            for value in vars(module).values()
            if isinstance(value, torch.Tensor)
        ]
        for tensor in (*model.buffers(), *plain):
            memo[id(tensor)] = torch.empty_like(tensor, device="meta")
    copied: nn.Module = copy.deepcopy(model, memo).to(device)
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copied.eval()


def example_input(
    input_shape: Sequence[int],
    batch: int = 1,
    device: str = "meta",
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return a batch of zeros (batch, *input_shape)."""
    return torch.zeros((batch, *input_shape), device=device, dtype=dtype)


def check_input_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one sample as a tuple of whole numbers.

    Raises
    ------
    ValueError
        If it is empty or has an entry below 1.
    """
    shape = tuple(int(size) for size in input_shape)
    if not shape or min(shape) < 1:
        raise ValueError(
            f"input_shape is {tuple(input_shape)}, but must be the shape of one sample without "
            "the batch, such as (3, 32, 32)"
        )
    return shape


def trace(model: nn.Module, input_shape: Sequence[int]) -> Trace:
    """Run a network once on the meta device and write down its layers.

    Parameters
    ----------
    model
        The network; it is left as it is.
    input_shape
        Shape of one sample without the batch, such as (3, 32, 32).

    Raises
    ------
    ValueError
        If the network does not run on an input of that shape.
    """
    shape = check_input_shape(input_shape)
    try:
        return _trace_on(copy_for_tracing(model, "meta"), shape, "meta")
    except Exception:  # noqa: BLE001 - its own code may look at numbers, which meta has not
        pass
    try:
        return _trace_on(copy_for_tracing(model, "cpu"), shape, "cpu")
    except Exception as error:
        raise ValueError(
            f"the network does not run on an input of shape {(1, *shape)}: {error}"
        ) from error


def _trace_on(copied: nn.Module, shape: tuple[int, ...], device: Literal["meta", "cpu"]) -> Trace:
    layers: dict[str, Layer] = {}
    by_module: dict[nn.Module, str] = {}
    for name, module in copied.named_modules():
        layer = describe_layer(name, module)
        if layer is not None:
            layers[name] = layer
            by_module[module] = name

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        name = by_module[module]
        layer = layers[name]
        positions = 0
        if layer.kind == "linear":
            positions = output.numel() // layer.out_channels
        elif layer.kind == "transposed":
            positions = math.prod(inputs[0].shape[2:])
        elif layer.prunable:
            positions = math.prod(output.shape[2:])
        layers[name] = replace(layer, positions=layer.positions + positions, calls=layer.calls + 1)

    with ExitStack() as stack:
        for module in by_module:
            stack.callback(module.register_forward_hook(count).remove)
        flops = stack.enter_context(FlopCounterMode(display=False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.device(device))
        copied(example_input(shape, device=device))
    return Trace(
        input_shape=shape,
        layers=layers,
        other_macs=int(flops.get_total_flops()) // 2 - _total(layers, Layer.macs),
        other_parameters=sum(parameter.numel() for parameter in copied.parameters())
        - _total(layers, Layer.parameters),
        other_bytes=state_bytes(copied) - _total(layers, Layer.size_bytes),
        device=device,
        unknown=_unknown(copied, layers),
    )


def _unknown(copied: nn.Module, layers: dict[str, Layer]) -> dict[str, str]:
    """Name the modules whose own tensors belong to no layer, with the reason."""
    unknown = {}
    for name, module in copied.named_modules():
        if name not in layers and any(True for _ in module.parameters(recurse=False)):
            unknown[name or "(the network itself)"] = (
                f"{type(module).__name__} is no layer that channels can be taken from"
            )
    return unknown


def _total(layers: dict[str, Layer], formula: Callable[[Layer, Width, Width], Width]) -> int:
    return sum(
        int(formula(layer, layer.in_channels, layer.out_channels)) for layer in layers.values()
    )


def state_bytes(model: nn.Module) -> int:
    """Return the bytes of all tensors in the state dict: what a link carries."""
    return sum(value.nbytes for value in model.state_dict(keep_vars=True).values())


def axis_length(layer: Layer, axis: Axis) -> int:
    """Return the number of channels of one of a layer's axes."""
    return layer.out_channels if axis == "out" else layer.in_channels
