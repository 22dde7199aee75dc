"""Write a network's architecture down as data.

The network is traced symbolically with ``torch.fx``: what is written is its tree of modules, in
order, and the steps of its forward pass. Nothing of its code is.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from workbench.pruning.tracing import check_input_shape, copy_for_tracing
from workbench.pruning.vocabulary import DTYPES, FUNCTIONS, LAYERS, METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = "workbench-network-1"
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_FUNCTION_NAMES = {function: name for name, function in FUNCTIONS.items()}


def describe(model: nn.Module, input_shape: Sequence[int]) -> str:
    """Describe a network's architecture as JSON text.

    Parameters
    ----------
    model
        The network; it is left as it is.
    input_shape
        Shape of one sample without the batch, such as (3, 32, 32).

    Raises
    ------
    ValueError
        If the network can't be traced, or has a layer or an operation that a description has no
        word for; the message names it.
    """
    shape = check_input_shape(input_shape)
    copied = copy_for_tracing(model)
    description: dict[str, object] = {
        "format": FORMAT,
        "input_shape": list(shape),
        "modules": _describe_modules(copied, model),
        "steps": _describe_steps(copied),
    }
    shared = _shared_tensors(copied)
    if shared:
        description["shared"] = shared
    return json.dumps(description, separators=(",", ":"), allow_nan=False)


def architecture(description: str) -> str:
    """Return text that is equal for all networks of one architecture.

    Unlike a description it does not tell training from evaluation mode, nor frozen weights.
    """
    parsed = json.loads(description)
    for entry in parsed["modules"]:
        entry.pop("training", None)
        entry.pop("frozen", None)
    return json.dumps(parsed)


# ---------------------------------------------------------------------- the tree of modules


def _describe_modules(copied: nn.Module, model: nn.Module) -> list[dict[str, Any]]:
    """List all modules in the order in which the state dict visits them."""
    entries: list[dict[str, Any]] = []
    first_name: dict[nn.Module, str] = {}
    modes = {name: module.training for name, module in model.named_modules(remove_duplicate=False)}
    for name, module in copied.named_modules(remove_duplicate=False):
        if module in first_name:
            if not any(
                name.startswith(f"{entry['name']}.") for entry in entries if "same" in entry
            ):
                entries.append({"name": name, "same": first_name[module]})
            continue
        first_name[module] = name
        entry: dict[str, Any] = {"name": name}
        layer_type = LAYERS.get(type(module).__name__)
        if layer_type is not None and type(module) is layer_type.type and name:
            entry["type"] = type(module).__name__
            entry["arguments"] = layer_type.read(module)
            _add_dtype(entry, name, module)
        else:
            tensors = _own_tensors(name, module)
            if tensors:
                entry["tensors"] = tensors
        frozen = [
            key
            for key, value in model.get_submodule(name).named_parameters(recurse=False)
            if not value.requires_grad
        ]
        if frozen:
            entry["frozen"] = frozen
        if modes[name] != (modes[name.rpartition(".")[0]] if name else True):
            entry["training"] = modes[name]
        entries.append(entry)
    return entries


def _add_dtype(entry: dict[str, Any], name: str, module: nn.Module) -> None:
    floating = {value.dtype for value in module.state_dict(keep_vars=True).values()}
    floating = {dtype for dtype in floating if dtype.is_floating_point}
    if len(floating) > 1:
        raise ValueError(f"layer {name} mixes element types {sorted(map(str, floating))}")
    if floating - {torch.float32}:
        entry["dtype"] = _dtype_name(name, floating.pop())


def _own_tensors(name: str, module: nn.Module) -> list[dict[str, Any]]:
    """List the tensors that a module holds itself, outside of any layer."""
    saved = module.state_dict(keep_vars=True)
    tensors = []
    for key, value in (
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ):
        if key not in saved:
            continue  # not part of the state; an error only if the forward pass uses it
        path = f"{name}.{key}" if name else key
        tensors.append(
            {
                "name": key,
                "shape": list(value.shape),
                "dtype": _dtype_name(path, value.dtype),
                "trainable": isinstance(value, nn.Parameter),
            }
        )
    return tensors


def _dtype_name(path: str, dtype: torch.dtype) -> str:
    if dtype not in _DTYPE_NAMES:
        raise ValueError(f"{path} has the element type {dtype}; known are {sorted(DTYPES)}")
    return _DTYPE_NAMES[dtype]


def _shared_tensors(copied: nn.Module) -> dict[str, str]:
    """Find parameters that two different modules share: name -> the name that came first."""
    first: dict[int, tuple[str, int]] = {}
    shared = {}
    for prefix, module in copied.named_modules():
        for key, value in module.named_parameters(recurse=False):
            path = f"{prefix}.{key}" if prefix else key
            if id(value) in first:
                shared[path] = first[id(value)][0]
            else:
                first[id(value)] = (path, id(module))
    return shared


# ---------------------------------------------------------------------- the forward pass


def _describe_steps(copied: nn.Module) -> list[dict[str, Any]]:
    """Trace the forward pass in both modes and mark where it depends on the mode."""
    training = _trace_steps(copied.train())
    evaluating = _trace_steps(copied.eval())
    try:
        return [_merge(*pair) for pair in zip(training, evaluating, strict=True)]
    except ValueError as error:
        raise ValueError(
            "the forward pass takes different steps in training and in evaluation mode; "
            "only a flag such as dropout's may depend on the mode"
        ) from error


def _merge(training: Any, evaluating: Any) -> Any:  # noqa: ANN401 - any part of a step
    """Merge a part of two traces; it is an error if they differ in more than a flag."""
    if training is True and evaluating is False:
        return {"training": True}
    if isinstance(training, dict) and isinstance(evaluating, dict):
        pairs = zip(training.items(), evaluating.items(), strict=True)
        merged = {key: (other, _merge(one, two)) for (key, one), (other, two) in pairs}
        if all(key == other for key, (other, _) in merged.items()):
            return {key: value for key, (_, value) in merged.items()}
    elif isinstance(training, list) and isinstance(evaluating, list):
        return [_merge(*pair) for pair in zip(training, evaluating, strict=True)]
    elif type(training) is type(evaluating) and training == evaluating:
        return training
    raise ValueError(f"{training} and {evaluating} differ")


def _trace_steps(copied: nn.Module) -> list[dict[str, Any]]:
    try:
        graph = fx.Tracer().trace(copied)
    except Exception as error:
        raise ValueError(
            f"the forward pass of {type(copied).__name__} can't be traced symbolically: {error}"
        ) from error
    state = set(copied.state_dict(keep_vars=True))
    number: dict[fx.Node, int] = {}
    steps: list[dict[str, Any]] = []
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    used = [node for node in inputs if node.users]
    if len(used) != 1:
        raise ValueError(
            f"the forward pass takes {len(used)} inputs; a description has exactly one"
        )
    for node in graph.nodes:
        if node.op == "placeholder":
            number[node] = 0
            continue
        if node.op == "output":
            steps.append({"op": "output", "args": [_encode(node.args[0], number)]})
            continue
        steps.append(_describe_step(node, copied, state, number))
        number[node] = len(steps)
    return steps


def _describe_step(
    node: fx.Node, copied: nn.Module, state: set[str], number: dict[fx.Node, int]
) -> dict[str, Any]:
    arguments: dict[str, Any] = {"args": [_encode(value, number) for value in node.args]}
    if node.kwargs:
        arguments["kwargs"] = {key: _encode(value, number) for key, value in node.kwargs.items()}
    if node.op == "call_module":
        path = str(node.target)
        module = copied.get_submodule(path)
        known = LAYERS.get(type(module).__name__)
        if known is None or type(module) is not known.type:
            raise ValueError(
                f"layer {path} is a {type(module).__name__}, which a description has no word for; "
                f"known are {sorted(LAYERS)}"
            )
        return {"op": "layer", "name": path, **arguments}
    if node.op == "get_attr":
        if node.target not in state:
            raise ValueError(f"tensor {node.target} is used, but is not part of the state dict")
        return {"op": "tensor", "name": str(node.target)}
    if node.op == "call_method":
        if node.target not in METHODS:
            raise ValueError(f"a description has no word for the method {node.target!r}")
        return {"op": "method", "name": str(node.target), **arguments}
    if node.target is getattr and node.args[1:] == ("shape",):
        return {"op": "method", "name": "size", "args": arguments["args"][:1]}
    name = _FUNCTION_NAMES.get(node.target)  # type: ignore[arg-type]  # call_function has one
    if name is None:
        raise ValueError(f"a description has no word for the function {node.target}")
    return {"op": "function", "name": name, **arguments}


def _encode(value: object, number: dict[fx.Node, int]) -> Any:  # noqa: ANN401 - JSON
    """Write an argument of a step as JSON."""
    result: Any = value
    if isinstance(value, fx.Node):
        result = {"value": number[value]}
    elif isinstance(value, float) and not math.isfinite(value):
        result = {"number": str(value)}
    elif isinstance(value, tuple):
        result = {"tuple": [_encode(entry, number) for entry in value]}
    elif isinstance(value, list):
        result = [_encode(entry, number) for entry in value]
    elif isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        result = {"slice": [_encode(part, number) for part in parts]}
    elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
        result = {"mapping": [[key, _encode(entry, number)] for key, entry in value.items()]}
    elif value is Ellipsis:
        result = {"ellipsis": True}
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError(f"a description has no word for the argument {value!r}")
    return result
