"""The words of an architecture's description: which layers, functions and methods it may name.

A description is data from the network. It can name nothing but what stands here.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from workbench.pruning.arguments import Kind, check

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class LayerType:
    """A layer that a description may name, and the kinds of its constructor's arguments."""

    type: type[nn.Module]
    arguments: dict[str, Kind]

    def read(self, module: nn.Module) -> dict[str, Any]:
        """Read the constructor's arguments off a layer."""
        values: dict[str, Any] = {}
        for name, kind in self.arguments.items():
            value = getattr(module, name, None)
            if name == "bias" and kind == "flag":
                value = value is not None
            elif isinstance(value, torch.Size | tuple):
                value = list(value)
            values[name] = _plain_number(value)
        return values

    def make(self, values: dict[str, Any]) -> nn.Module:
        """Build the layer on the meta device, where it takes no memory.

        Raises
        ------
        ValueError
            If an argument is missing, unknown, or out of range.
        """
        if set(values) != set(self.arguments):
            raise ValueError(
                f"{self.type.__name__} takes the arguments {sorted(self.arguments)}, "
                f"got {sorted(values)}"
            )
        checked = {name: check(name, kind, values[name]) for name, kind in self.arguments.items()}
        with torch.device("meta"):
            return self.type(**checked)


def _plain_number(value: object) -> object:
    """Write numbers that JSON does not know as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


_CONV: dict[str, Kind] = {
    "in_channels": "count",
    "out_channels": "count",
    "kernel_size": "size",
    "stride": "size",
    "padding": "padding",
    "dilation": "size",
    "groups": "count",
    "bias": "flag",
    "padding_mode": "choice",
}
_NORM: dict[str, Kind] = {
    "num_features": "count",
    "eps": "number",
    "momentum": "number",
    "affine": "flag",
    "track_running_stats": "flag",
}
_MAX_POOL: dict[str, Kind] = {
    "kernel_size": "size",
    "stride": "size",
    "padding": "padding",
    "dilation": "size",
    "ceil_mode": "flag",
    "return_indices": "flag",
}
_AVG_POOL: dict[str, Kind] = {
    "kernel_size": "size",
    "stride": "size",
    "padding": "padding",
    "ceil_mode": "flag",
    "count_include_pad": "flag",
}


_ARGUMENTS: dict[type[nn.Module], dict[str, Kind]] = {
    nn.Linear: {"in_features": "count", "out_features": "count", "bias": "flag"},
    nn.GroupNorm: {
        "num_groups": "count",
        "num_channels": "count",
        "eps": "number",
        "affine": "flag",
    },
    nn.LayerNorm: {
        "normalized_shape": "shape",
        "eps": "number",
        "elementwise_affine": "flag",
        "bias": "flag",
    },
    nn.LocalResponseNorm: {"size": "size", "alpha": "number", "beta": "number", "k": "number"},
    nn.PReLU: {"num_parameters": "count"},
    nn.LeakyReLU: {"negative_slope": "number", "inplace": "flag"},
    nn.ELU: {"alpha": "number", "inplace": "flag"},
    nn.CELU: {"alpha": "number", "inplace": "flag"},
    nn.GELU: {"approximate": "choice"},
    nn.Hardtanh: {"min_val": "number", "max_val": "number", "inplace": "flag"},
    nn.Softplus: {"beta": "number", "threshold": "number"},
    nn.Softmax: {"dim": "integer"},
    nn.LogSoftmax: {"dim": "integer"},
    nn.Flatten: {"start_dim": "integer", "end_dim": "integer"},
    nn.Upsample: {
        "size": "size",
        "scale_factor": "number",
        "mode": "choice",
        "align_corners": "flag",
    },
    nn.PixelShuffle: {"upscale_factor": "count"},
    nn.ChannelShuffle: {"groups": "count"},
    nn.ZeroPad2d: {"padding": "padding"},
}
_ALIKE: tuple[tuple[tuple[type[nn.Module], ...], dict[str, Kind]], ...] = (
    ((nn.Sigmoid, nn.Tanh, nn.Identity, nn.Softsign, nn.LogSigmoid), {}),
    (
        (nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid),
        {"inplace": "flag"},
    ),
    (
        (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
        {"p": "number", "inplace": "flag"},
    ),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _CONV),
    (
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
        {**_CONV, "output_padding": "padding"},
    ),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _NORM),
    ((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _NORM),
    ((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _MAX_POOL),
    ((nn.AvgPool1d,), _AVG_POOL),
    ((nn.AvgPool2d, nn.AvgPool3d), {**_AVG_POOL, "divisor_override": "size"}),
    (
        (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        {"output_size": "size"},
    ),
    (
        (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
        {"output_size": "size", "return_indices": "flag"},
    ),
)

LAYERS: dict[str, LayerType] = {
    **{kind.__name__: LayerType(kind, names) for kind, names in _ARGUMENTS.items()},
    **{kind.__name__: LayerType(kind, names) for kinds, names in _ALIKE for kind in kinds},
}
"""Layers by name."""

ARITHMETIC = ("add", "iadd", "sub", "isub", "mul", "imul", "truediv", "floordiv", "neg", "matmul")
_TORCH = (
    *(
        "add",
        "sub",
        "mul",
        "div",
        "cat",
        "concat",
        "concatenate",
        "flatten",
        "relu",
        "sigmoid",
        "tanh",
        "mean",
        "sum",
    ),
    *("amax", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "chunk", "split"),
    *("stack", "matmul", "bmm", "clamp", "softmax", "log_softmax", "abs", "sqrt", "exp", "pow"),
)
_FUNCTIONAL = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish"),
    *("hardsigmoid", "hardtanh", "softplus", "sigmoid", "tanh", "softmax", "log_softmax"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
    *("dropout", "dropout2d", "interpolate", "pad", "normalize", "linear", "conv1d", "conv2d"),
)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in (*ARITHMETIC, "getitem")},
    **{f"torch.{name}": getattr(torch, name) for name in _TORCH},
    **{f"functional.{name}": getattr(functional, name) for name in _FUNCTIONAL},
}
"""Functions by name."""

METHODS: frozenset[str] = frozenset(
    {
        *("size", "dim", "view", "reshape", "flatten", "permute", "transpose", "contiguous", "t"),
        *("mean", "sum", "amax", "relu", "relu_", "sigmoid", "tanh", "add", "add_", "sub", "mul"),
        *("mul_", "div", "squeeze", "unsqueeze", "chunk", "split", "softmax", "log_softmax"),
        *("clamp", "abs", "pow", "sqrt", "exp", "expand", "expand_as", "matmul"),
    }
)
"""Methods of a tensor."""

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
"""Element types by name."""
