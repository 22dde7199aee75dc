"""Build a network from its description: real layers, and an interpreter for the forward pass.

The description may come from anybody. What it names is looked up in the vocabulary, every number
is checked, all of it is first put together and tried on the meta device, where nothing is
allocated, and no code is generated or run that came with it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import torch
from torch import nn

from workbench.pruning.description import FORMAT
from workbench.pruning.vocabulary import DTYPES, FUNCTIONS, LAYERS, METHODS, check, is_integer

MAX_DESCRIPTION_BYTES = 4 * 2**20
MAX_MODULES = 20_000
MAX_STEPS = 20_000
MAX_ELEMENTS = 2**28
"""No tensor between two layers has more elements than this for one sample."""
MAX_PIECES = 4096
_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")


class DescriptionError(ValueError):
    """A description that is not one, or that asks for what is not allowed."""


class DescribedNetwork(nn.Module):
    """A network whose forward pass is a list of steps; `assemble` builds it."""

    def __init__(self) -> None:
        super().__init__()
        self._described_steps: list[dict[str, Any]] = []
        self._described_last_use: list[list[int]] = []

    def forward(self, images: torch.Tensor) -> Any:
        """Carry out the steps on a batch (n, *input_shape)."""
        values: dict[int, Any] = {0: images}
        for index, step in enumerate(self._described_steps, start=1):
            values[index] = run_step(self, step, values)
            if step["op"] == "output":
                return values[index]
            for used_up in self._described_last_use[index - 1]:
                values.pop(used_up, None)
        raise DescriptionError("the description has no output")


def run_step(network: nn.Module, step: dict[str, Any], values: dict[int, Any]) -> Any:
    """Carry out one step and return its value."""
    operation = step["op"]
    if operation == "tensor":
        owner, _, key = step["name"].rpartition(".")
        return getattr(network.get_submodule(owner), key)
    args = [_decode(value, values, network.training) for value in step["args"]]
    if operation == "output":
        return args[0]
    kwargs = {
        key: _decode(value, values, network.training)
        for key, value in step.get("kwargs", {}).items()
    }
    if operation == "layer":
        return network.get_submodule(step["name"])(*args, **kwargs)
    if operation == "method":
        return getattr(args[0], step["name"])(*args[1:], **kwargs)
    return FUNCTIONS[step["name"]](*args, **kwargs)


def _decode(value: Any, values: dict[int, Any], training: bool) -> Any:
    if isinstance(value, list):
        return [_decode(entry, values, training) for entry in value]
    if not isinstance(value, dict):
        return value
    ((key, content),) = value.items()
    if key == "value":
        return values[content]
    if key == "training":
        return training
    if key == "number":
        return float(content)
    if key == "tuple":
        return tuple(_decode(entry, values, training) for entry in content)
    if key == "slice":
        return slice(*(_decode(entry, values, training) for entry in content))
    return Ellipsis


# ---------------------------------------------------------------------- from text to network


def read_description(text: str | bytes) -> dict[str, Any]:
    """Parse a description and check the form of everything in it.

    Raises
    ------
    DescriptionError
        If it is too long, is no JSON, or has an unknown or missing part.
    """
    if len(text) > MAX_DESCRIPTION_BYTES:
        raise DescriptionError(
            f"the description has {len(text):,} bytes, more than {MAX_DESCRIPTION_BYTES:,}"
        )
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DescriptionError(f"the description is not JSON: {error}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise DescriptionError(f"the description is not of the format {FORMAT}")
    parts = {"format", "input_shape", "modules", "steps"}
    if not parts <= set(description) <= parts | {"shared"}:
        raise DescriptionError(f"the description has the parts {sorted(description)[:10]}")
    _checked("input_shape", "shape", description["input_shape"])
    for part, limit in (("modules", MAX_MODULES), ("steps", MAX_STEPS)):
        if not isinstance(description[part], list) or not 1 <= len(description[part]) <= limit:
            raise DescriptionError(f"{part} must be a list of 1 to {limit} entries")
        if not all(isinstance(entry, dict) for entry in description[part]):
            raise DescriptionError(f"{part} must be a list of objects")
    return description


def _checked(name: str, kind: Any, value: Any) -> Any:
    try:
        return check(name, kind, value)
    except ValueError as error:
        raise DescriptionError(str(error)) from error


def assemble(description: dict[str, Any], max_bytes: int) -> DescribedNetwork:
    """Build the network of a parsed description on the meta device and try it there.

    Parameters
    ----------
    description
        What `read_description` returned.
    max_bytes
        Most bytes that its state may have.

    Raises
    ------
    DescriptionError
        If it names something unknown, a number is out of range, its state is too large, or its
        forward pass does not run on an input of its shape.
    """
    network = DescribedNetwork()
    for entry in description["modules"]:
        try:
            _add_module(network, entry)
        except DescriptionError:
            raise
        except Exception as error:
            name = str(entry.get("name"))[:100]
            raise DescriptionError(f"module {name!r} can't be built: {error}") from error
    _share_tensors(network, description.get("shared", {}))
    size = sum(value.nbytes for value in network.state_dict(keep_vars=True).values())
    if size > max_bytes:
        raise DescriptionError(f"the network has {size:,} bytes, more than {max_bytes:,}")
    network._described_steps = _check_steps(network, description["steps"])  # noqa: SLF001
    network._described_last_use = _last_use(description["steps"])  # noqa: SLF001
    try_on_meta(network, tuple(description["input_shape"]))
    _set_modes(network, description["modules"])
    return network


def _add_module(network: DescribedNetwork, entry: dict[str, Any]) -> None:
    known = {"name", "same", "type", "arguments", "dtype", "tensors", "frozen", "training"}
    name = entry.get("name")
    if not isinstance(name, str) or not set(entry) <= known:
        raise DescriptionError(f"a module has the parts {sorted(entry)[:10]}")
    parent_name, _, own_name = name.rpartition(".")
    module: nn.Module
    if name == "":
        module = network
    else:
        if not _NAME.fullmatch(own_name) or name.count(".") > 40:
            raise DescriptionError(f"{name[:100]!r} is not a module's name")
        parent = network.get_submodule(parent_name)
        if type(parent) not in {nn.Module, DescribedNetwork} or own_name in parent._modules:  # noqa: SLF001
            raise DescriptionError(f"module {name!r} can't be inside {parent_name!r}, or is there")
        module = _make_module(network, entry)
        parent.add_module(own_name, module)
    for tensor in _list(entry, "tensors"):
        _add_tensor(module, tensor)
    frozen = _list(entry, "frozen")
    own = dict(module.named_parameters(recurse=False))
    for key in frozen:
        if key not in own:
            raise DescriptionError(f"module {name!r} has no parameter {str(key)[:100]!r} to freeze")
        own[key].requires_grad_(False)


def _list(entry: dict[str, Any], key: str) -> list[Any]:
    value = entry.get(key, [])
    if not isinstance(value, list) or len(value) > 1000:
        raise DescriptionError(f"{key} must be a short list")
    return value


def _make_module(network: DescribedNetwork, entry: dict[str, Any]) -> nn.Module:
    if "same" in entry:
        if not isinstance(entry["same"], str) or set(entry) != {"name", "same"}:
            raise DescriptionError("an entry for a module that occurs again has a name only")
        return network.get_submodule(entry["same"])
    if "type" not in entry:
        return nn.Module()
    kind = entry["type"]
    if not isinstance(kind, str) or kind not in LAYERS:
        raise DescriptionError(f"unknown layer {str(kind)[:100]!r}; known are {sorted(LAYERS)}")
    arguments = entry.get("arguments")
    if not isinstance(arguments, dict) or "tensors" in entry:
        raise DescriptionError(f"layer {entry['name']!r} must have arguments and nothing more")
    try:
        module = LAYERS[kind].make(arguments)
    except DescriptionError:
        raise
    except Exception as error:
        raise DescriptionError(f"layer {entry['name']!r} ({kind}): {error}") from error
    if "dtype" in entry:
        module = module.to(_dtype(entry["dtype"]))
    return module


def _dtype(name: Any) -> torch.dtype:
    if not isinstance(name, str) or name not in DTYPES:
        raise DescriptionError(
            f"unknown element type {str(name)[:40]!r}; known are {sorted(DTYPES)}"
        )
    return DTYPES[name]


def _add_tensor(module: nn.Module, tensor: Any) -> None:
    if not isinstance(tensor, dict) or set(tensor) != {"name", "shape", "dtype", "trainable"}:
        raise DescriptionError(
            "a tensor must have a name, a shape, a dtype, and be trainable or not"
        )
    name, shape = tensor["name"], tensor["shape"]
    if not isinstance(name, str) or not _NAME.fullmatch(name) or hasattr(module, name):
        raise DescriptionError(f"{str(name)[:100]!r} can't be a tensor's name")
    fits = isinstance(shape, list) and len(shape) <= 8
    if not fits or not all(is_integer(size, 0, 2**31) for size in shape):
        raise DescriptionError(f"tensor {name!r} has no valid shape")
    if math.prod(shape) > 2**34:
        raise DescriptionError(f"tensor {name!r} is too large: {shape}")
    value = torch.empty(shape, dtype=_dtype(tensor["dtype"]), device="meta")
    if tensor["trainable"]:
        module.register_parameter(name, nn.Parameter(value, value.is_floating_point()))
    else:
        module.register_buffer(name, value)


def _share_tensors(network: DescribedNetwork, shared: Any) -> None:
    if not isinstance(shared, dict):
        raise DescriptionError("shared must map names of tensors to names of tensors")
    own = dict(network.named_parameters(remove_duplicate=False))
    for path, first in shared.items():
        if path not in own or not isinstance(first, str) or first not in own:
            raise DescriptionError(
                f"tensors {path[:100]!r} and {str(first)[:100]!r} can't be shared"
            )
        if own[path].shape != own[first].shape:
            raise DescriptionError(f"tensors {path!r} and {first!r} have different shapes")
        owner, _, key = path.rpartition(".")
        network.get_submodule(owner)._parameters[key] = own[first]  # noqa: SLF001


def _set_modes(network: DescribedNetwork, entries: list[dict[str, Any]]) -> None:
    """Set training or evaluation mode; a module without one has that of its parent."""
    for entry in entries:
        if "same" not in entry:
            mode = entry.get("training", True)
            if entry["name"]:
                parent = network.get_submodule(entry["name"].rpartition(".")[0])
                mode = entry.get("training", parent.training)
            if not isinstance(mode, bool):
                raise DescriptionError(f"module {entry['name']!r}: training must be true or false")
            network.get_submodule(entry["name"]).training = mode


# ---------------------------------------------------------------------- the steps


def _check_steps(network: nn.Module, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Check that each step is known and uses only what came before it."""
    modules = dict(network.named_modules(remove_duplicate=False))
    state = set(network.state_dict(keep_vars=True))
    for index, step in enumerate(steps, start=1):
        operation, name = step.get("op"), step.get("name")
        known = {
            "layer": modules,
            "function": FUNCTIONS,
            "method": METHODS,
            "tensor": state,
        }
        if operation == "output":
            if index != len(steps) or len(step.get("args", [])) != 1:
                raise DescriptionError("the output must be the last step and have one argument")
        elif operation not in known:
            raise DescriptionError(f"step {index}: unknown operation {str(operation)[:40]!r}")
        elif not isinstance(name, str) or name not in known[operation]:
            raise DescriptionError(f"step {index}: unknown {operation} {str(name)[:100]!r}")
        elif operation == "layer" and type(modules[name]) in {nn.Module, DescribedNetwork}:
            raise DescriptionError(f"step {index}: {name!r} is no layer")
        if operation != "tensor":
            args, kwargs = step.get("args"), step.get("kwargs", {})
            if not isinstance(args, list) or not isinstance(kwargs, dict):
                raise DescriptionError(f"step {index}: its arguments must be a list and an object")
            if operation == "method" and not args:
                raise DescriptionError(f"step {index}: a method needs a tensor")
            for value in (*args, *kwargs.values()):
                _check_value(value, index)
    if steps[-1].get("op") != "output":
        raise DescriptionError("the last step must be the output")
    return steps


def _check_value(value: Any, index: int, depth: int = 0) -> None:
    if depth > 8:
        raise DescriptionError(f"step {index}: its arguments are nested too deeply")
    if isinstance(value, list):
        for entry in value:
            _check_value(entry, index, depth + 1)
    elif isinstance(value, dict):
        if len(value) != 1:
            raise DescriptionError(f"step {index}: {str(value)[:100]} is no argument")
        ((key, content),) = value.items()
        if key == "value":
            good = is_integer(content, 0, index - 1)
        elif key in {"training", "ellipsis"}:
            good = content is True
        elif key == "number":
            good = content in {"inf", "-inf", "nan"}
        else:
            good = isinstance(content, list) and (
                key == "tuple" or (key == "slice" and len(content) == 3)
            )
        if not good:
            raise DescriptionError(f"step {index}: {str(value)[:100]} is no argument")
        if isinstance(content, list):
            _check_value(content, index, depth + 1)
    elif isinstance(value, int) and abs(value) > 2**31:
        raise DescriptionError(f"step {index}: the number {str(value)[:40]} is too large")
    elif isinstance(value, str) and len(value) > 100:
        raise DescriptionError(f"step {index}: a text is too long")


def _last_use(steps: list[dict[str, Any]]) -> list[list[int]]:
    """List for each step the values that no later step needs, so that they can be let go."""
    last: dict[int, int] = {}

    def visit(value: Any, index: int) -> None:
        if isinstance(value, dict):
            if "value" in value:
                last[value["value"]] = index
            for content in value.values():
                visit(content, index)
        elif isinstance(value, list):
            for entry in value:
                visit(entry, index)

    for index, step in enumerate(steps):
        visit([step.get("args", []), list(step.get("kwargs", {}).values())], index)
    used_up: list[list[int]] = [[] for _ in steps]
    for value, index in last.items():
        used_up[index].append(value)
    return used_up


def try_on_meta(network: DescribedNetwork, input_shape: tuple[int, ...]) -> None:
    """Carry out the steps without computing or allocating anything, and check what they make.

    Raises
    ------
    DescriptionError
        If a step fails or makes something too large.
    """
    network.eval()
    values: dict[int, Any] = {0: torch.empty((1, *input_shape), device="meta")}
    with torch.no_grad():
        for index, step in enumerate(network._described_steps, start=1):  # noqa: SLF001
            try:
                _check_before(step, values)
                values[index] = run_step(network, step, values)
            except Exception as error:
                name = step.get("name", step["op"])
                raise DescriptionError(f"step {index} ({name}) does not run: {error}") from error
            _check_result(values[index], index)


def _check_before(step: dict[str, Any], values: dict[int, Any]) -> None:
    """Refuse what would make Python itself build something huge."""
    name = str(step.get("name", ""))
    args = [_decode(value, values, training=False) for value in step.get("args", [])]
    if name.startswith("operator.") and name != "operator.getitem":
        if not all(isinstance(value, torch.Tensor | int | float) for value in args):
            raise DescriptionError(f"{name} is for tensors and numbers only")
    if name.rpartition(".")[2] in {"split", "chunk"} and args:
        sizes = args[0].shape if isinstance(args[0], torch.Tensor) else ()
        if max(sizes, default=0) > MAX_PIECES and not isinstance(args[1], list | tuple):
            pieces = args[1] if name.endswith("chunk") else max(sizes) / max(1, int(args[1]))
            if pieces > MAX_PIECES:
                raise DescriptionError(f"{name} makes more than {MAX_PIECES} pieces")


def _check_result(value: Any, index: int) -> None:
    if isinstance(value, torch.Tensor):
        if value.numel() > MAX_ELEMENTS:
            raise DescriptionError(
                f"step {index} makes a tensor of {value.numel():,} elements for one sample, "
                f"more than {MAX_ELEMENTS:,}"
            )
    elif isinstance(value, list | tuple):
        if len(value) > MAX_PIECES:
            raise DescriptionError(f"step {index} makes {len(value)} values")
        for entry in value:
            _check_result(entry, index)
    elif isinstance(value, int) and abs(value) > 2**62:
        raise DescriptionError(f"step {index} makes a number that is too large")
