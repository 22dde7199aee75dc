"""Cut a network into segments that can be timed one by one, at any width.

A segment is a layer that makes channels, with all that is called after it up to the next such
layer: its batch norm, its activation, its pooling. Their time depends on the layer's widths only.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from workbench.pruning.vocabulary import LAYERS, LayerType

if TYPE_CHECKING:
    from workbench.pruning.layers import Layer, Trace
    from workbench.pruning.structure import IntArray

_WIDTHS = ("in_channels", "out_channels", "in_features", "out_features", "num_features")


@dataclass(frozen=True, eq=False)
class Segment:
    """Modules that are called one after the other, and timed together.

    Attributes
    ----------
    head
        The layer whose widths decide the time; None for what comes before the first one.
    input_shape
        Shape of its input for one sample.
    parts
        Name of the layer type and constructor's arguments of each module.
    """

    head: Layer | None
    input_shape: tuple[int, ...]
    parts: tuple[tuple[str, dict[str, Any]], ...]

    @property
    def key(self) -> str:
        """What the time depends on besides the widths, as text."""
        shape = self.input_shape if self.head is None else _positions(self.head, self.input_shape)
        parts = [
            (kind, {name: value for name, value in arguments.items() if name not in _WIDTHS})
            for kind, arguments in self.parts
        ]
        if self.head is not None and self.head.kind == "depthwise":
            parts[0][1].pop("groups")
        return json.dumps([shape, parts], separators=(",", ":"))

    @property
    def one_axis(self) -> bool:
        """Whether the output width alone decides the time."""
        return self.head is None or self.head.single_axis or self.head.kind == "depthwise"

    @property
    def widths(self) -> tuple[int, int]:
        """Input and output width; the input's is 1 where it follows from the output's."""
        if self.head is None:
            return 1, 1
        if self.one_axis:
            return 1, self.head.out_channels
        return self.head.in_channels, self.head.out_channels

    def grid(self, widest: tuple[int, int]) -> tuple[IntArray, IntArray]:
        """Return the input and the output widths at which the segment is timed, up to these."""
        inputs, outputs = widest
        if self.head is None or self.head.kind != "depthwise":
            groups = 1 if self.head is None else self.head.groups
            return _points(inputs, groups if inputs > 1 else 1), _points(outputs, groups)
        factor = self.head.out_channels // self.head.in_channels
        return _points(1, 1), _points(outputs // factor, 1) * factor

    def seconds(self, inputs: int, outputs: int, batch_size: int, repeats: int) -> float:
        """Time the segment with these widths: the fastest of some repetitions."""
        if self.head is not None and self.one_axis:
            inputs = max(1, outputs * self.head.in_channels // self.head.out_channels)
        modules = [
            _make(*part, self.head, inputs, outputs, first=place == 0)
            for place, part in enumerate(self.parts)
        ]
        shape = list(self.input_shape)
        if self.head is not None:
            shape[-1 if self.head.kind == "linear" else 0] = inputs
        network = nn.Sequential(*[module for module in modules if module is not None]).eval()
        for value in (*network.parameters(), *network.buffers()):
            # Memory that nobody has written to would be read from one page, much too fast.
            value.data.fill_(0.01 if value.is_floating_point() else 0)
        return fastest_seconds(network, torch.full((batch_size, *shape), 0.5), repeats)


def fastest_seconds(network: nn.Module, images: torch.Tensor, repeats: int) -> float:
    """Return the time of a forward pass in seconds: the fastest of some repetitions.

    Whatever else a machine does can only add to it, so the fastest is the least disturbed.
    """
    times = []
    with torch.no_grad():
        for _ in range(2):
            network(images)  # the first calls allocate and choose algorithms
        for _ in range(repeats):
            start = time.perf_counter()
            network(images)
            times.append(time.perf_counter() - start)
    return min(times)


def segments_of(model: nn.Module, trace: Trace) -> tuple[Segment, ...]:
    """Cut a network into segments.

    Operations that are not modules (an addition in ``forward``) are in none of them.
    """
    segments: list[Segment] = []
    for name, shape in trace.calls:
        module = model.get_submodule(name)
        known = _layer_type(module)
        if known is None:
            continue
        layer = trace.layers.get(name)
        last = segments[-1].head if segments else None
        starts = layer is not None and (
            layer.prunable or last is None or layer.out_channels != last.out_channels
        )
        part = (known.type.__name__, known.read(module))
        if starts or not segments:
            segments.append(Segment(layer, shape, (part,)))
        else:
            segments[-1] = Segment(last, segments[-1].input_shape, (*segments[-1].parts, part))
    return tuple(segments)


def _layer_type(module: nn.Module) -> LayerType | None:
    exact = LAYERS.get(type(module).__name__)
    if exact is not None and type(module) is exact.type:
        return exact
    return next((known for known in LAYERS.values() if isinstance(module, known.type)), None)


def _positions(head: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:-1] if head.kind == "linear" else shape[1:]


def _points(width: int, step: int) -> IntArray:
    """Choose four widths, the largest being the layer's own."""
    shares = np.array([0.0, 0.25, 0.5, 1.0])
    points = np.maximum(1, np.round(width / step * shares)) * step
    return np.unique(points.astype(np.int64))


def _make(
    kind: str,
    arguments: dict[str, Any],
    head: Layer | None,
    inputs: int,
    outputs: int,
    *,
    first: bool,
) -> nn.Module | None:
    """Build one module of a segment with other widths; None where that makes no sense."""
    values = dict(arguments)
    if first and head is not None and head.prunable:
        names = ("in_features", "out_features") if kind == "Linear" else _WIDTHS[:2]
        values.update(zip(names, (inputs, outputs), strict=True))
        if head.kind == "depthwise":
            values["groups"] = inputs
    elif head is not None:
        for name in ("num_features", "num_channels", "num_parameters"):
            if values.get(name) == head.out_channels:
                values[name] = outputs
        if kind == "GroupNorm":
            # The time does not depend on how the channels are dealt out.
            values["num_groups"] = 1
        if kind in {"LayerNorm", "PixelShuffle", "ChannelShuffle"}:
            return None
    module = LAYERS[kind].make(values)
    return module.to_empty(device="cpu")
