"""What a network consists of: its layers, and what each costs as a formula of its widths.

Once the layers are known, the cost of any narrower version of a network is arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

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

    @property
    def regular(self) -> bool:
        """Whether a module with these widths would be described as a layer of the same kind."""
        if self.kind in {"depthwise", "prelu"}:
            return self.in_channels > 1
        return self.groups == 1 or min(self.in_channels, self.out_channels) > self.groups

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
    names the modules that hold tensors but are no layer that we know, with the reason. ``calls``
    are the modules without parts in the order in which they are called, each with the shape of
    its input for one sample.
    """

    input_shape: tuple[int, ...]
    layers: dict[str, Layer]
    other_macs: int
    other_parameters: int
    other_bytes: int
    device: Literal["meta", "cpu"] = "meta"
    unknown: dict[str, str] = field(default_factory=dict)
    calls: tuple[tuple[str, tuple[int, ...]], ...] = ()


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


def axis_length(layer: Layer, axis: Axis) -> int:
    """Return the number of channels of one of a layer's axes."""
    return layer.out_channels if axis == "out" else layer.in_channels
