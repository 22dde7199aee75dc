"""The words of an architecture's description: which layers, functions and methods it may name.

A description is data from the network. It can name nothing but what stands here, and every
number in it is checked against a range before it reaches torch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

Kind = Literal["count", "size", "padding", "number", "flag", "choice", "shape", "integer"]

LARGEST_COUNT = 2**24
"""No layer has more channels or features than this."""
LARGEST_SIZE = 2**14
"""No kernel, stride, padding or output size is larger than this."""
_CHOICES = frozenset(
    {
        *("zeros", "reflect", "replicate", "circular", "constant", "same", "valid", "none", "tanh"),
        *("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"),
    }
)


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


def _plain_number(value: Any) -> Any:
    """Write numbers that JSON does not know as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def check(name: str, kind: Kind, value: Any) -> Any:
    """Return an argument's value as the constructor takes it.

    Raises
    ------
    ValueError
        If it is not of that kind or out of range; the message names the argument and the value.
    """
    result, allowed = _CHECKS[kind](value)
    if allowed:
        raise ValueError(f"{name} is {_short(value)}, but must be {allowed}")
    return result


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def is_integer(value: Any, low: int, high: int) -> bool:
    """Whether a value is a whole number (not a bool) within the bounds, both included."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _check_count(value: Any) -> tuple[Any, str]:
    fits = is_integer(value, 1, LARGEST_COUNT)
    return value, "" if fits else f"a whole number in 1..{LARGEST_COUNT}"


def _check_size(value: Any) -> tuple[Any, str]:
    low, entries = 1, value if isinstance(value, list) else [value]
    fits = 1 <= len(entries) <= 3 and all(
        entry is None or is_integer(entry, low, LARGEST_SIZE) for entry in entries
    )
    result = tuple(entries) if isinstance(value, list) else value
    return result, "" if fits else f"one to three whole numbers in 1..{LARGEST_SIZE}"


def _check_padding(value: Any) -> tuple[Any, str]:
    if isinstance(value, str) and value in {"same", "valid"}:
        return value, ""
    entries = value if isinstance(value, list) else [value]
    fits = 1 <= len(entries) <= 6 and all(is_integer(entry, 0, LARGEST_SIZE) for entry in entries)
    result = tuple(entries) if isinstance(value, list) else value
    return result, "" if fits else f"whole numbers in 0..{LARGEST_SIZE}, 'same' or 'valid'"


def _check_number(value: Any) -> tuple[Any, str]:
    if isinstance(value, str) and value in {"inf", "-inf"}:
        return float(value), ""
    entries = value if isinstance(value, list) else [value]
    fits = 1 <= len(entries) <= 3 and all(
        entry is None
        or (isinstance(entry, int | float) and not isinstance(entry, bool) and abs(entry) < 1e12)
        for entry in entries
    )
    result = tuple(entries) if isinstance(value, list) else value
    return result, "" if fits else "a finite number or nothing"


def _check_flag(value: Any) -> tuple[Any, str]:
    return value, "" if value is None or isinstance(value, bool) else "true or false"


def _check_choice(value: Any) -> tuple[Any, str]:
    fits = isinstance(value, str) and value in _CHOICES
    return value, "" if fits else f"one of {sorted(_CHOICES)}"


def _check_shape(value: Any) -> tuple[Any, str]:
    fits = (
        isinstance(value, list)
        and 1 <= len(value) <= 4
        and all(is_integer(entry, 1, LARGEST_COUNT) for entry in value)
    )
    return tuple(value) if fits else value, "" if fits else "one to four sizes"


def _check_integer(value: Any) -> tuple[Any, str]:
    fits = value is None or is_integer(value, -16, 16)
    return value, "" if fits else "a whole number in -16..16"


_CHECKS: dict[Kind, Callable[[Any], tuple[Any, str]]] = {
    "count": _check_count,
    "size": _check_size,
    "padding": _check_padding,
    "number": _check_number,
    "flag": _check_flag,
    "choice": _check_choice,
    "shape": _check_shape,
    "integer": _check_integer,
}

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


def _layer_types() -> dict[str, LayerType]:
    arguments: dict[type[nn.Module], dict[str, Kind]] = {
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
    for plain in (nn.Sigmoid, nn.Tanh, nn.Identity, nn.Softsign, nn.LogSigmoid):
        arguments[plain] = {}
    for in_place in (nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid):
        arguments[in_place] = {"inplace": "flag"}
    for dropout in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout):
        arguments[dropout] = {"p": "number", "inplace": "flag"}
    for conv in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        arguments[conv] = _CONV
    for transposed in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
        arguments[transposed] = {**_CONV, "output_padding": "padding"}
    for batch in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        arguments[batch] = _NORM
    for instance in (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d):
        arguments[instance] = _NORM
    for maximum in (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d):
        arguments[maximum] = _MAX_POOL
    for average in (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d):
        arguments[average] = dict(_AVG_POOL)
        if average is not nn.AvgPool1d:
            arguments[average]["divisor_override"] = "size"
    for dimensions in (1, 2, 3):
        average_pool = getattr(nn, f"AdaptiveAvgPool{dimensions}d")
        maximum_pool = getattr(nn, f"AdaptiveMaxPool{dimensions}d")
        arguments[average_pool] = {"output_size": "size"}
        arguments[maximum_pool] = {"output_size": "size", "return_indices": "flag"}
    return {kind.__name__: LayerType(kind, kinds) for kind, kinds in arguments.items()}


LAYERS: dict[str, LayerType] = _layer_types()
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
