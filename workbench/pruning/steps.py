"""The steps of a described forward pass: checking them, trying them, carrying them out.

A step names a layer, a function, a method or a tensor, and its arguments name earlier values.
Everything here may come from anybody, so nothing is taken for granted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from workbench.pruning.arguments import is_integer
from workbench.pruning.tracing import example_input
from workbench.pruning.vocabulary import FUNCTIONS, METHODS

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn

Step = dict[str, Any]

MAX_ELEMENTS = 2**28
"""No value of a forward pass has more elements than this for one sample."""
MAX_PIECES = 4096
"""No step makes more values than this."""
LARGEST_NUMBER = 2**62


class DecodeError(ValueError):
    """Bytes that are not those of a network."""


class DescriptionError(DecodeError):
    """A description that is not one, or that asks for what is not allowed."""


# ---------------------------------------------------------------------- carrying out


def run_step(network: nn.Module, step: Step, values: dict[int, Any]) -> Any:  # noqa: ANN401 - whatever it makes
    """Carry out one step and return its value."""
    operation = step["op"]
    if operation == "tensor":
        owner, _, key = step["name"].rpartition(".")
        return getattr(network.get_submodule(owner), key)
    training = network.training
    args = [resolve(value, values, training=training) for value in step["args"]]
    if operation == "output":
        return args[0]
    kwargs = {
        key: resolve(value, values, training=training)
        for key, value in step.get("kwargs", {}).items()
    }
    if operation == "layer":
        return network.get_submodule(step["name"])(*args, **kwargs)
    if operation == "method":
        return getattr(args[0], step["name"])(*args[1:], **kwargs)
    return FUNCTIONS[step["name"]](*args, **kwargs)


@dataclass(frozen=True)
class PlainStep:
    """A step that puts one earlier value through one layer, as nearly all steps do.

    In a small network, reading a step's arguments each time takes as long as its layer.
    """

    path: tuple[str, ...]
    value: int

    def run(self, network: nn.Module, values: dict[int, Any]) -> Any:  # noqa: ANN401 - whatever it makes
        """Carry out the step and return its value."""
        layer: Any = network
        for name in self.path:
            layer = layer._modules[name]  # noqa: SLF001  # get_submodule takes 5 times as long
        return layer(values[self.value])


def plain_step(step: Step) -> PlainStep | None:
    """Return the short form of a step that has been checked, or None if it has none."""
    match step:
        case {"op": "layer", "args": [{"value": int(value)}]} if not step.get("kwargs"):
            return PlainStep(tuple(step["name"].split(".")), value)
    return None


def resolve(value: object, values: dict[int, Any], *, training: bool) -> Any:  # noqa: ANN401 - any argument
    """Turn an argument of a step, as JSON has it, into what it stands for."""
    if isinstance(value, list):
        return [resolve(entry, values, training=training) for entry in value]
    if not isinstance(value, dict):
        return value
    ((key, content),) = value.items()
    if key == "value":
        result = values[content]
    elif key == "number":
        result = float(content)
    elif key == "mapping":
        result = {name: resolve(entry, values, training=training) for name, entry in content}
    elif key in {"tuple", "slice"}:
        entries = resolve(content, values, training=training)
        result = tuple(entries) if key == "tuple" else slice(*entries)
    else:
        result = training if key == "training" else Ellipsis
    return result


def last_use(steps: list[Step]) -> list[list[int]]:
    """List for each step the values that no later step needs, so that they can be let go."""
    last: dict[int, int] = {}

    def visit(value: object, index: int) -> None:
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


# ---------------------------------------------------------------------- checking


def check_steps(steps: list[Step], layers: Collection[str], tensors: Collection[str]) -> None:
    """Check that each step is known and uses only what came before it.

    Parameters
    ----------
    steps
        The steps; each is an object, which is all that is known of them.
    layers, tensors
        Names of the network's layers, and of the tensors of its state.

    Raises
    ------
    DescriptionError
        If a step is not one; the message has its number.
    """
    known: dict[str, Collection[str]] = {
        "layer": layers,
        "tensor": tensors,
        "function": FUNCTIONS,
        "method": METHODS,
        "output": {""},
    }
    for index, step in enumerate(steps, start=1):
        operation, name = step.get("op"), step.get("name", "")
        if not isinstance(operation, str) or operation not in known:
            raise DescriptionError(f"step {index}: unknown operation {str(operation)[:40]!r}")
        if not isinstance(name, str) or name not in known[operation]:
            raise DescriptionError(f"step {index}: unknown {operation} {str(name)[:100]!r}")
        if operation != "tensor":
            _check_arguments(step, index)
        if (operation == "output") != (index == len(steps)):
            raise DescriptionError("the output must be the last step, and no other")


def _check_arguments(step: Step, index: int) -> None:
    args, kwargs = step.get("args"), step.get("kwargs", {})
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise DescriptionError(f"step {index}: its arguments must be a list and an object")
    if step["op"] == "method" and not args:
        raise DescriptionError(f"step {index}: a method needs a tensor")
    if step["op"] == "output" and len(args) != 1:
        raise DescriptionError(f"step {index}: an output has one argument")
    for value in (*args, *kwargs.values()):
        _check_argument(value, index, depth=0)


def _check_argument(value: object, index: int, depth: int) -> None:
    fits = depth <= 8
    if fits and isinstance(value, dict):
        fits = len(value) == 1 and _fits_object(value, index)
        inside = next(iter(value.values())) if fits else []
        value = inside if isinstance(inside, list) else []
    if not fits:
        raise DescriptionError(f"step {index}: {str(value)[:100]} is no argument")
    if isinstance(value, list):
        for entry in value:
            _check_argument(entry, index, depth + 1)
    elif isinstance(value, int) and abs(value) > 2**31:
        raise DescriptionError(f"step {index}: a number is too large")
    elif isinstance(value, str) and len(value) > 100:
        raise DescriptionError(f"step {index}: a text is too long")


def _fits_object(value: dict[str, object], index: int) -> bool:
    ((key, content),) = value.items()
    if key == "value":
        return is_integer(content, 0, index - 1)
    if key in {"training", "ellipsis"}:
        return content is True
    if key == "number":
        return isinstance(content, str) and content in {"inf", "-inf", "nan"}
    if not isinstance(content, list):
        return False
    if key == "mapping":
        return all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
            for pair in content
        )
    return key == "tuple" or (key == "slice" and len(content) == 3)


# ---------------------------------------------------------------------- trying


def try_on_meta(network: nn.Module, steps: list[Step], input_shape: tuple[int, ...]) -> None:
    """Carry out the steps without computing or allocating anything, and check what they make.

    Raises
    ------
    DescriptionError
        If a step fails or makes something too large.
    """
    network.eval()
    values: dict[int, Any] = {0: example_input(network, input_shape, "meta")}
    used_up = last_use(steps)
    with torch.no_grad(), torch.device("meta"):
        for index, step in enumerate(steps, start=1):
            try:
                _check_before(step, values)
                values[index] = run_step(network, step, values)
            except Exception as error:
                name = step.get("name", step["op"])
                raise DescriptionError(f"step {index} ({name}) does not run: {error}") from error
            _check_result(values[index], index)
            for value in used_up[index - 1]:
                values.pop(value, None)


def _check_before(step: Step, values: dict[int, Any]) -> None:
    """Refuse what would make Python itself build something huge."""
    name = str(step.get("name", ""))
    args = [resolve(value, values, training=False) for value in step.get("args", [])]
    if name.startswith("operator.") and name != "operator.getitem":
        if not all(isinstance(value, torch.Tensor | int | float) for value in args):
            raise DescriptionError(f"{name} is for tensors and numbers only")
    elif name.rpartition(".")[2] in {"split", "chunk"}:
        kwargs = step.get("kwargs", {})
        first = args[1] if len(args) > 1 else next(iter(kwargs.values()), None)
        longest = max(args[0].shape, default=0) if isinstance(args[0], torch.Tensor) else 0
        pieces = 0
        if is_integer(first, 1, 2**31):
            size = cast("int", first)
            pieces = min(size, longest) if name.endswith("chunk") else longest // size
        if pieces > MAX_PIECES:
            raise DescriptionError(f"{name} makes more than {MAX_PIECES} pieces")


def _check_result(value: object, index: int) -> None:
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
    elif isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise DescriptionError(f"step {index} makes a number that is too large")
