"""Run a network once, without computing anything, and write down its layers."""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from workbench.pruning.layers import Layer, Trace, Width, describe_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def copy_for_tracing(model: nn.Module, device: str = "meta") -> nn.Module:
    """Return a copy of a network in evaluation mode; on the meta device it takes no memory."""
    memo: dict[int, Any] = {}
    if device == "meta":
        for parameter in model.parameters():
            empty = torch.empty_like(parameter, device="meta")
            memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.is_floating_point())
        plain = [
            value
            for module in model.modules()
            for value in vars(module).values()
            if isinstance(value, torch.Tensor)
        ]
        for tensor in (*model.buffers(), *plain):
            memo[id(tensor)] = torch.empty_like(tensor, device="meta")
    copied: nn.Module = copy.deepcopy(model, memo).to(device)
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copied.eval()


def example_input(model: nn.Module, input_shape: Sequence[int], device: str) -> torch.Tensor:
    """Return a batch of one sample of zeros, of the element type that a network computes in."""
    floating = (value.dtype for value in model.parameters() if value.is_floating_point())
    dtype = next(floating, torch.float32)
    return torch.zeros((1, *input_shape), device=device, dtype=dtype)


def check_input_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one sample as a tuple of whole numbers.

    Raises
    ------
    ValueError
        If it is empty or has an entry below 1.
    """
    shape = tuple(int(size) for size in input_shape)
    if not shape or min(shape) < 1:
        raise ValueError(
            f"input_shape is {tuple(input_shape)}, but must be the shape of one sample without "
            "the batch, such as (3, 32, 32)"
        )
    return shape


def trace(model: nn.Module, input_shape: Sequence[int]) -> Trace:
    """Run a network once on the meta device and write down its layers.

    Parameters
    ----------
    model
        The network; it is left as it is.
    input_shape
        Shape of one sample without the batch, such as (3, 32, 32).

    Raises
    ------
    ValueError
        If the network does not run on an input of that shape.
    """
    shape = check_input_shape(input_shape)
    # Code that looks at numbers fails on the meta device, and then has to be run for real.
    with suppress(Exception):
        return _Recorder(copy_for_tracing(model, "meta"), "meta").record(shape)
    try:
        return _Recorder(copy_for_tracing(model, "cpu"), "cpu").record(shape)
    except Exception as error:
        raise ValueError(
            f"the network does not run on an input of shape {(1, *shape)}: {error}"
        ) from error


class _Recorder:
    """Watches one forward pass of a network that was copied for it."""

    def __init__(self, copied: nn.Module, device: Literal["meta", "cpu"]) -> None:
        self.copied = copied
        self.device = device
        self.names = {module: name for name, module in copied.named_modules()}
        described = {name: describe_layer(name, module) for module, name in self.names.items()}
        self.layers = {name: layer for name, layer in described.items() if layer is not None}
        self.calls: list[tuple[str, tuple[int, ...]]] = []

    def record(self, shape: tuple[int, ...]) -> Trace:
        """Run the network on one sample and return what was seen."""
        with ExitStack() as stack:
            for module in self.names:
                if not any(True for _ in module.children()):
                    stack.callback(module.register_forward_hook(self._count).remove)
            flops = stack.enter_context(FlopCounterMode(display=False))
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.device(self.device))
            self.copied(example_input(self.copied, shape, self.device))
        parameters = sum(parameter.numel() for parameter in self.copied.parameters())
        return Trace(
            input_shape=shape,
            layers=self.layers,
            other_macs=int(flops.get_total_flops()) // 2 - self._total(Layer.macs),
            other_parameters=parameters - self._total(Layer.parameters),
            other_bytes=state_bytes(self.copied) - self._total(Layer.size_bytes),
            device=self.device,
            unknown=_unknown(self.copied, self.layers),
            calls=tuple(self.calls),
        )

    def _count(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        name = self.names[module]
        if inputs and isinstance(inputs[0], torch.Tensor):
            self.calls.append((name, tuple(inputs[0].shape[1:])))
        layer = self.layers.get(name)
        if layer is None:
            return
        positions = 0
        if layer.kind == "linear":
            positions = output.numel() // layer.out_channels
        elif layer.kind == "transposed":
            positions = math.prod(inputs[0].shape[2:])
        elif layer.prunable:
            positions = math.prod(output.shape[2:])
        self.layers[name] = replace(
            layer, positions=layer.positions + positions, calls=layer.calls + 1
        )

    def _total(self, formula: Callable[[Layer, Width, Width], Width]) -> int:
        layers = self.layers.values()
        return sum(int(formula(layer, layer.in_channels, layer.out_channels)) for layer in layers)


def _unknown(copied: nn.Module, layers: dict[str, Layer]) -> dict[str, str]:
    """Name the modules whose own tensors belong to no layer, with the reason."""
    unknown = {}
    for name, module in copied.named_modules():
        own = [value for value in module.parameters(recurse=False) if value.numel() > 1]
        if name not in layers and own:
            unknown[name or "(the network itself)"] = (
                f"{type(module).__name__} is no layer that channels can be taken from"
            )
    return unknown


def state_bytes(model: nn.Module) -> int:
    """Return the bytes of all tensors in the state dict: what a link carries."""
    return sum(value.nbytes for value in model.state_dict(keep_vars=True).values())
