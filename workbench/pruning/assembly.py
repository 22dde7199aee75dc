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

from workbench.pruning.arguments import check, is_integer
from workbench.pruning.description import FORMAT
from workbench.pruning.steps import (
    DescriptionError,
    PlainStep,
    Step,
    check_steps,
    last_use,
    plain_step,
    run_step,
    try_on_meta,
)
from workbench.pruning.vocabulary import DTYPES, LAYERS

MAX_DESCRIPTION_BYTES = 4 * 2**20
MAX_ENTRIES = 5_000
"""Most modules, and most steps."""
_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
_CONTAINERS: set[type[nn.Module]] = {nn.Module}


class DescribedNetwork(nn.Module):
    """A network whose forward pass is a list of steps; `assemble` builds it."""

    def __init__(self) -> None:
        super().__init__()
        self._described_steps: list[tuple[Step, PlainStep | None, list[int]]] = []

    def set_steps(self, steps: list[Step]) -> None:
        """Set the steps of the forward pass, which must have been checked."""
        plain = map(plain_step, steps)
        self._described_steps = list(zip(steps, plain, last_use(steps), strict=True))

    def forward(self, images: torch.Tensor) -> Any:  # noqa: ANN401 - a tensor, or several
        """Carry out the steps on a batch (n, *input_shape)."""
        values: dict[int, Any] = {0: images}
        for index, (step, plain, used_up) in enumerate(self._described_steps, start=1):
            if plain is None:
                values[index] = run_step(self, step, values)
            else:
                values[index] = plain.run(self, values)
            for value in used_up:
                values.pop(value, None)
        return values[len(self._described_steps)]


_CONTAINERS.add(DescribedNetwork)


def read_description(text: str | bytes) -> dict[str, Any]:
    """Parse a description and check that it has all its parts.

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
    try:
        check("input_shape", "shape", description["input_shape"])
    except ValueError as error:
        raise DescriptionError(str(error)) from error
    for part in ("modules", "steps"):
        entries = _list(description, part, MAX_ENTRIES)
        if not entries or not all(isinstance(entry, dict) for entry in entries):
            raise DescriptionError(f"{part} must be a list of objects, and not empty")
    return description


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
    state = network.state_dict(keep_vars=True)
    size = sum(value.nbytes for value in state.values())
    if size > max_bytes:
        raise DescriptionError(f"the network has {size:,} bytes, more than {max_bytes:,}")
    layers = {
        name
        for name, module in network.named_modules(remove_duplicate=False)
        if type(module) not in _CONTAINERS
    }
    check_steps(description["steps"], layers, state.keys())
    try_on_meta(network, description["steps"], tuple(description["input_shape"]))
    network.set_steps(description["steps"])
    _set_modes(network, description["modules"])
    return network


# ---------------------------------------------------------------------- modules


def _add_module(network: DescribedNetwork, entry: dict[str, Any]) -> None:
    known = {"name", "same", "type", "arguments", "dtype", "tensors", "frozen", "training"}
    name = entry.get("name")
    if not isinstance(name, str) or not set(entry) <= known:
        raise DescriptionError(f"a module has the parts {sorted(entry)[:10]}")
    module: nn.Module = network
    if name:
        parent_name, _, own_name = name.rpartition(".")
        if not _NAME.fullmatch(own_name) or name.count(".") > 40:
            raise DescriptionError(f"{name[:100]!r} is not a module's name")
        parent = network.get_submodule(parent_name)
        known_names = parent._modules  # noqa: SLF001 - children as a list would take quadratic time
        if type(parent) not in _CONTAINERS or own_name in known_names:
            raise DescriptionError(f"module {name!r} can't be inside {parent_name!r}, or is there")
        module = _make_module(network, entry)
        parent.add_module(own_name, module)
    for tensor in _list(entry, "tensors", 1000):
        _add_tensor(module, tensor)
    own = dict(module.named_parameters(recurse=False))
    for key in _list(entry, "frozen", 1000):
        if not isinstance(key, str) or key not in own:
            raise DescriptionError(f"module {name!r} has no parameter {str(key)[:100]!r} to freeze")
        own[key].requires_grad = False


def _list(entry: dict[str, Any], key: str, longest: int) -> list[Any]:
    value = entry.get(key, [])
    if not isinstance(value, list) or len(value) > longest:
        raise DescriptionError(f"{key} must be a list of at most {longest} entries")
    return value


def _make_module(network: DescribedNetwork, entry: dict[str, Any]) -> nn.Module:
    if "same" in entry:
        if not isinstance(entry["same"], str) or set(entry) != {"name", "same"}:
            raise DescriptionError("an entry for a module that occurs again has names only")
        return network.get_submodule(entry["same"])
    if "type" not in entry:
        return nn.Module()
    kind, arguments = entry["type"], entry.get("arguments")
    if not isinstance(kind, str) or kind not in LAYERS:
        raise DescriptionError(f"unknown layer {str(kind)[:100]!r}; known are {sorted(LAYERS)}")
    if not isinstance(arguments, dict) or "tensors" in entry:
        raise DescriptionError(f"layer {entry['name']!r} must have arguments, and no tensors")
    try:
        module = LAYERS[kind].make(arguments)
    except Exception as error:
        raise DescriptionError(f"layer {entry['name']!r} ({kind}): {error}") from error
    return module.to(_dtype(entry["dtype"])) if "dtype" in entry else module


def _dtype(name: object) -> torch.dtype:
    if not isinstance(name, str) or name not in DTYPES:
        raise DescriptionError(
            f"unknown element type {str(name)[:40]!r}; known are {sorted(DTYPES)}"
        )
    return DTYPES[name]


def _add_tensor(module: nn.Module, tensor: object) -> None:
    """Register a tensor that a module holds itself."""
    if not isinstance(tensor, dict) or set(tensor) != {"name", "shape", "dtype", "trainable"}:
        raise DescriptionError("a tensor has a name, a shape, a dtype, and is trainable or not")
    name, shape = tensor["name"], tensor["shape"]
    if not isinstance(name, str) or not _NAME.fullmatch(name) or hasattr(module, name):
        raise DescriptionError(f"{str(name)[:100]!r} can't be a tensor's name")
    fits = isinstance(shape, list) and len(shape) <= 8
    if not fits or not all(is_integer(size, 0, 2**31) for size in shape):
        raise DescriptionError(f"tensor {name!r} has no valid shape")
    if math.prod(shape) > 2**34:
        raise DescriptionError(f"tensor {name!r} is too large: {shape}")
    value = torch.empty(shape, dtype=_dtype(tensor["dtype"]), device="meta")
    if tensor["trainable"] is True:
        module.register_parameter(name, nn.Parameter(value, value.is_floating_point()))
    else:
        module.register_buffer(name, value)


def _share_tensors(network: DescribedNetwork, shared: object) -> None:
    """Let two modules have one parameter."""
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
        setattr(network.get_submodule(owner), key, own[first])


def _set_modes(network: DescribedNetwork, entries: list[dict[str, Any]]) -> None:
    """Set training or evaluation mode; a module without one has that of its parent."""
    network.train()
    for entry in entries:
        if "same" in entry:
            continue
        module = network.get_submodule(entry["name"])
        inherited = network.get_submodule(entry["name"].rpartition(".")[0]).training
        mode = entry.get("training", inherited)
        if not isinstance(mode, bool):
            raise DescriptionError(f"module {entry['name']!r}: training must be true or false")
        module.training = mode
