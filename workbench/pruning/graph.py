"""torch-pruning's dependency graph, asked where a layer's output channels go.

``DependencyGraph`` (Fang et al., "DepGraph", CVPR 2023) works on the graph that autograd records.
It infers the sizes of concatenated and flattened tensors from the layers around them, which fails
where one follows the other; here they are read off the recorded tensors.
"""

from __future__ import annotations

import math
import warnings
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch_pruning

from workbench.pruning.tracing import example_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from workbench.pruning.layers import Axis, Trace
    from workbench.pruning.structure import IntArray

    Indices = list[Any]
    Mapping = Callable[[Indices], Indices]


def dependency_graph(copied: nn.Module, trace: Trace) -> Any:  # noqa: ANN401 - an untyped library
    """Build the dependency graph of a network that was copied for tracing."""
    graph = torch_pruning.DependencyGraph()
    with warnings.catch_warnings(), torch.enable_grad(), torch.device(trace.device):
        warnings.simplefilter("ignore")  # what it can't follow is found out by trying
        images = example_input(copied, trace.input_shape, trace.device)
        graph.build_dependency(copied, (images,), verbose=False)
    for node in graph.module2node.values():
        if node.type == torch_pruning.ops.OPTYPE.CONCAT:
            _map_concatenation(node)
        elif node.type == torch_pruning.ops.OPTYPE.RESHAPE:
            _map_flattening(node)
    return graph


def reached(
    graph: Any,  # noqa: ANN401 - an untyped library
    module: nn.Module,
    width: int,
) -> Iterator[tuple[Any, Axis, IntArray, IntArray]]:
    """Follow a layer's output channels: module, axis, its channels, and the layer's channels."""
    pruner = graph.get_pruner_of_module(module)
    group = graph.get_pruning_group(module, pruner.prune_out_channels, list(range(width)))
    for item in group:
        axis: Axis = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        index = np.asarray(item.idxs, dtype=np.int64)
        root = np.asarray(item.root_idxs, dtype=np.int64)
        yield item.dep.target.module, axis, index, root


def is_last(graph: Any, target: object) -> bool:  # noqa: ANN401 - an untyped library
    """Whether nothing follows: a layer at the end, or the graph's own mark for an output."""
    node = graph.module2node.get(target)
    return node is not None and not node.outputs


def _shape(grad_fn: Any, output: int = 0) -> tuple[int, ...]:  # noqa: ANN401 - autograd's own
    """Shape of one of the tensors that an operation made."""
    return tuple(int(size) for size in grad_fn._input_metadata[output].shape)  # noqa: SLF001


def _map_concatenation(node: Any) -> None:  # noqa: ANN401 - an untyped library
    """Tell the graph where each input of a concatenation of channels begins."""
    total = _shape(node.grad_fn)
    dimension = int(node.grad_fn._saved_dim)  # noqa: SLF001 - there is no public way
    if dimension not in {1, 2**64 - len(total) + 1, 1 - len(total)}:
        return
    sources = node.grad_fn.next_functions
    sizes = [_shape(source, which)[1] if source is not None else 0 for source, which in sources]
    unknown = [place for place, (source, _) in enumerate(sources) if source is None]
    if len(unknown) > 1:
        return  # several inputs without a gradient: their sizes are not recorded
    if unknown:
        sizes[unknown[0]] = total[1] - sum(sizes)
    starts = [0, *accumulate(sizes)]
    ranges = [
        (starts[place], starts[place + 1])
        for place, (source, _) in enumerate(sources)
        if source is not None and "accumulategrad" not in source.name().lower()
    ]
    if len(ranges) != len(node.inputs):
        return
    node.enable_index_mapping = False  # the graph must not put its own guess in this place
    done: set[int] = set()
    for source, (start, stop) in zip(node.inputs, ranges, strict=True):
        _map_first(node, source, _inside(start, stop), done, slot=1)
        _map_first(source, node, _moved(start), done, slot=1)


def _map_flattening(node: Any) -> None:  # noqa: ANN401 - an untyped library
    """Tell the graph how many features of a flattened tensor one channel becomes."""
    before = getattr(node.grad_fn, "_saved_self_sym_sizes", None)
    if before is None:
        return
    before, after = tuple(int(size) for size in before), _shape(node.grad_fn)
    flat = len(before) > 2 and len(after) == 2 and after[1] == math.prod(before[1:])
    if not flat or after[0] != before[0]:
        return
    node.type = torch_pruning.ops.OPTYPE.ELEMENTWISE  # or the graph would put its own guess here
    repeat = math.prod(before[2:])
    for source in node.inputs:
        _map_first(node, source, _joined(repeat), set(), slot=0)
        _map_first(source, node, _repeated(repeat), set(), slot=0)


def _map_first(source: Any, target: Any, mapping: Mapping, done: set[int], slot: int) -> None:  # noqa: ANN401 - an untyped library
    """Set the mapping of the first connection between two nodes that has none yet."""
    for dependency in source.dependencies:
        if dependency.target is target and id(dependency) not in done:
            dependency.index_mapping[slot] = mapping
            done.add(id(dependency))
            return


def _moved(start: int) -> Mapping:
    return lambda indices: [index._replace(idx=index.idx + start) for index in indices]


def _inside(start: int, stop: int) -> Mapping:
    return lambda indices: [
        index._replace(idx=index.idx - start) for index in indices if start <= index.idx < stop
    ]


def _repeated(repeat: int) -> Mapping:
    return lambda indices: [
        index._replace(idx=index.idx * repeat + place)
        for index in indices
        for place in range(repeat)
    ]


def _joined(repeat: int) -> Mapping:
    return lambda indices: list(
        dict.fromkeys(index._replace(idx=index.idx // repeat) for index in indices)
    )
