"""Which channels of which layers must go together.

The dependency graph follows each layer's output channels through the network. Here its answers
become ties between single channels, and connected channels become units: the smallest things that
can be removed.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from workbench.pruning.graph import dependency_graph, is_last, reached
from workbench.pruning.layers import Axis, Layer, Trace, axis_length
from workbench.pruning.structure import Block, IntArray, Tie
from workbench.pruning.tracing import copy_for_tracing


class _Channels:
    """Numbers for all channels of all axes, and the ties between them."""

    def __init__(self, layers: dict[str, Layer]) -> None:
        self.layers = layers
        self.start: dict[tuple[str, Axis], int] = {}
        self.total = 0
        for name, layer in layers.items():
            axes: tuple[Axis, ...] = ("out",) if layer.single_axis else ("in", "out")
            for axis in axes:
                self.start[name, axis] = self.total
                self.total += axis_length(layer, axis)
        self._edges: list[tuple[IntArray, IntArray]] = []

    def of(self, name: str, axis: Axis) -> IntArray:
        """Return the numbers of all channels of an axis."""
        layer = self.layers[name]
        start = self.start[name, "out" if layer.single_axis else axis]
        return np.arange(start, start + axis_length(layer, axis), dtype=np.int64)

    def tie(self, left: IntArray, right: IntArray) -> None:
        """Tie channels pairwise."""
        self._edges.append((left, right))

    def components(self, extra: list[tuple[IntArray, IntArray]] | None = None) -> IntArray:
        """Return for each channel the number of the set of channels that it is tied to."""
        edges = [*self._edges, *(extra or [])]
        left = np.concatenate([edge[0] for edge in edges]) if edges else np.empty(0, np.int64)
        right = np.concatenate([edge[1] for edge in edges]) if edges else np.empty(0, np.int64)
        graph = coo_array(
            (np.ones(len(left), dtype=np.float64), (left, right)), shape=(self.total, self.total)
        )
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def tied_layers(model: nn.Module, trace: Trace) -> list[Block]:
    """Find the layers that must be pruned together.

    Parameters
    ----------
    model
        The network; it is left as it is.
    trace
        Its layers.

    Returns
    -------
    list[Block]
        In the order of their first layer in the network; each layer that makes channels is in
        exactly one of them.
    """
    channels = _Channels(trace.layers)
    for name, layer in trace.layers.items():
        _tie_within(channels, name, layer)
    reasons = _tie_between(channels, model, trace)
    # A layer's output channels are one block even where they belong to units of their own. A
    # depthwise convolution makes no channels of its own: it only hands on those of its input.
    producers = [
        name for name, layer in trace.layers.items() if layer.prunable and layer.kind != "depthwise"
    ]
    unit = channels.components()
    same_layer = [
        (numbers[:-1], numbers[1:]) for numbers in (channels.of(name, "out") for name in producers)
    ]
    block = channels.components(same_layer)
    members: dict[int, list[str]] = {}
    for name in producers:
        members.setdefault(int(block[channels.start[name, "out"]]), []).append(name)
    return [_collect(channels, unit, names, reasons) for names in members.values()]


def _tie_within(channels: _Channels, name: str, layer: Layer) -> None:
    """Tie the channels that a layer itself can only lose together."""
    outputs, inputs = channels.of(name, "out"), channels.of(name, "in")
    if layer.kind == "depthwise":
        channels.tie(outputs, np.repeat(inputs, layer.out_channels // layer.in_channels))
    elif layer.kind == "groupnorm":
        # The statistics of a group stay as they are only if the whole group goes.
        size = layer.out_channels // layer.groups
        channels.tie(outputs, np.repeat(outputs[::size], size))
    elif layer.groups > 1:
        # Every group must keep as many channels as the others: the same place in each of them.
        for numbers in (outputs, inputs):
            channels.tie(numbers, np.tile(numbers[: len(numbers) // layer.groups], layer.groups))


def _tie_between(channels: _Channels, model: nn.Module, trace: Trace) -> dict[str, str]:
    """Tie what the dependency graph ties; return the layers that can't be pruned, with reasons."""
    copied = copy_for_tracing(model, trace.device)
    name_of = {module: name for name, module in copied.named_modules()}
    parameter_names = {id(value): name for name, value in copied.named_parameters()}
    graph = dependency_graph(copied, trace)
    reasons: dict[str, str] = {}
    for name, layer in trace.layers.items():
        if not layer.prunable:
            continue
        module = copied.get_submodule(name)
        if layer.calls == 0:
            reasons[name] = "the forward pass does not use it"
        elif module not in graph.module2node:
            reasons[name] = "no gradient reaches it, so its connections can't be followed"
        else:
            for target, axis, index, root in reached(graph, module, layer.out_channels):
                if axis == "out" and is_last(graph, target):
                    reasons[name] = "output layer"
                known = name_of.get(target) if isinstance(target, nn.Module) else None
                if known in trace.layers:
                    numbers = channels.of(known, axis)
                    start = channels.of(name, "out")
                    inside = index < len(numbers)
                    channels.tie(start[root[inside]], numbers[index[inside]])
                elif isinstance(target, nn.Parameter):
                    parameter = parameter_names.get(id(target), "a parameter")
                    reasons[name] = f"{parameter}, a tensor outside of any layer, has its channels"
                elif known is not None:
                    reasons[name] = f"{known} ({type(target).__name__}) needs all its channels"
    return reasons


def _collect(
    channels: _Channels, unit: IntArray, names: list[str], reasons: dict[str, str]
) -> Block:
    """Give the units of a block numbers, and find all axes that they reach into."""
    numbers = np.concatenate([channels.of(name, "out") for name in names])
    found, first = np.unique(unit[numbers], return_index=True)
    found = found[np.argsort(first)]
    local: IntArray = np.full(int(unit.max()) + 1, -1, dtype=np.int64)
    local[found] = np.arange(len(found))
    ties = []
    for name, axis in channels.start:
        unit_of = local[unit[channels.of(name, axis)]]
        if (unit_of >= 0).any():
            ties.append(Tie(name, axis, unit_of))
    makers = [*names, *(tie.layer for tie in ties if tie.axis == "out")]
    reason = next((reasons[name] for name in makers if name in reasons), "")
    if not reason and len(found) < 2:
        reason = "all its channels hang together, so none can go alone"
    width = channels.layers[names[0]].out_channels
    return Block(tuple(names), len(found), width, tuple(ties), reason)
