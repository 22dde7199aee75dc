"""Model <-> bytes: an architecture as data, and its weights beside it.

Two formats behind one pair of functions. ``safetensors`` is a safetensors file that carries the
description in its header. ``torchscript``, what the NAFNAS paper sends, is a TorchScript archive
that any libtorch can run; `decode` reads only the description and the numbers in it. Whatever the
bytes are, no code that came with them is run, and nothing is allocated that is not in them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import nn

from workbench.pruning.assembly import (
    MAX_DESCRIPTION_BYTES,
    DescribedNetwork,
    assemble,
    read_description,
)
from workbench.pruning.blocks import find_blocks, learn
from workbench.pruning.cost import total_cost
from workbench.pruning.description import describe as describe_architecture
from workbench.pruning.steps import DecodeError, DescriptionError
from workbench.pruning.torchscript import read_archive, write_archive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.pruning.cost import Cost

__all__ = [
    "MAX_BYTES",
    "DecodeError",
    "DescriptionError",
    "build",
    "decode",
    "describe",
    "described_cost",
    "encode",
]

MAX_BYTES = 4 * 2**30
"""Most bytes of a network, unless the caller says otherwise."""
MAX_HEADER_BYTES = 2 * MAX_DESCRIPTION_BYTES
Format = Literal["safetensors", "torchscript"]


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
    description = describe_architecture(model, input_shape)
    learn(model, description)
    return description


def described_cost(description: str, max_bytes: int = MAX_BYTES) -> Cost:
    """Return what a described network costs, without allocating its weights.

    Raises
    ------
    DescriptionError
        A ValueError; if the description is not one or asks for what is not allowed.
    """
    parsed = read_description(description)
    return total_cost(find_blocks(assemble(parsed, max_bytes), parsed["input_shape"]))


def build(description: str, max_bytes: int = MAX_BYTES) -> DescribedNetwork:
    """Build a network from what `describe` wrote, with all weights zero.

    Its state dict has the keys of the network that was described, in the same order, and with
    the same shapes; with that network's weights loaded it computes the same, bit for bit.

    Parameters
    ----------
    description
        JSON text.
    max_bytes
        Most bytes that its state may have.

    Raises
    ------
    DescriptionError
        A ValueError; if the description is not one or asks for what is not allowed.
    """
    network = assemble(read_description(description), max_bytes)
    _fill(network, {key: torch.zeros_like(value, device="cpu") for key, value in _state(network)})
    return network


def encode(model: nn.Module, input_shape: Sequence[int], format: Format = "safetensors") -> bytes:  # noqa: A002 - the word that people use
    """Write a network as bytes.

    Parameters
    ----------
    model
        The network; it is left as it is.
    input_shape
        Shape of one sample without the batch, such as (3, 32, 32).
    format
        ``safetensors`` or ``torchscript``.

    Raises
    ------
    ValueError
        If the format is unknown or the network can't be described.
    """
    description = describe(model, input_shape)
    tensors = {key: value.detach().cpu().contiguous() for key, value in _state(model)}
    if format == "safetensors":
        return bytes(safetensors_torch.save(tensors, metadata={"description": description}))
    if format == "torchscript":
        return write_archive(model, description, tensors)
    raise ValueError(f"format is {format!r}, but must be 'safetensors' or 'torchscript'")


def decode(data: bytes, max_bytes: int = MAX_BYTES) -> DescribedNetwork:
    """Build a network from the bytes of `encode`.

    Parameters
    ----------
    data
        The bytes; the format is told by how they begin.
    max_bytes
        Most bytes that the data, and the network in it, may have.

    Raises
    ------
    DecodeError
        A ValueError; if the bytes are truncated, too many, of the wrong shape, or name an
        unknown layer. The message says what is wrong.
    """
    if len(data) > max_bytes:
        raise DecodeError(f"the data has {len(data):,} bytes, more than {max_bytes:,}")
    if data[:4] == b"PK\x03\x04":
        description, read_tensors = read_archive(data)
    else:
        description, read_tensors = _read_header(data), None
    network = assemble(read_description(description), max_bytes)
    expected = dict(_state(network))
    tensors = _read_safetensors(data) if read_tensors is None else read_tensors(expected)
    _check_tensors(expected, tensors)
    _fill(network, tensors)
    return network


def _state(network: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """List the tensors of the state dict, each that is shared only once."""
    seen: set[int] = set()
    state = []
    for key, value in network.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            state.append((key, value))
    return state


def _read_header(data: bytes) -> str:
    """Find the description in the header of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(len(data) - 8, MAX_HEADER_BYTES):
        raise DecodeError("the data is truncated, or is neither safetensors nor TorchScript")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"the header is not JSON: {error}") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    description = metadata.get("description") if isinstance(metadata, dict) else None
    if not isinstance(description, str):
        raise DecodeError("the header holds no description of an architecture")
    return description


def _read_safetensors(data: bytes) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = safetensors_torch.load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError, OverflowError) as error:
        raise DecodeError(f"the tensors can't be read: {error}") from error
    return tensors


def _check_tensors(expected: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor]) -> None:
    """Refuse tensors that are not those of the architecture."""
    if set(expected) != set(tensors):
        missing = sorted(set(expected) - set(tensors))[:3]
        unknown = [key[:100] for key in sorted(set(tensors) - set(expected))[:3]]
        raise DecodeError(f"tensors are missing ({missing}) or unknown ({unknown})")
    for key, value in expected.items():
        found = tensors[key]
        if found.shape != value.shape or found.dtype != value.dtype:
            raise DecodeError(
                f"tensor {key} is {found.dtype} {tuple(found.shape)}, but the architecture has "
                f"{value.dtype} {tuple(value.shape)}"
            )


def _fill(network: DescribedNetwork, tensors: dict[str, torch.Tensor]) -> None:
    """Put real tensors in the place of those on the meta device, wherever they are shared."""
    real = {id(value): tensors[key] for key, value in _state(network)}
    replaced: dict[int, torch.Tensor] = {}
    for module in network.modules():
        for key, parameter in list(module._parameters.items()):  # noqa: SLF001 - in their place
            if parameter is not None:
                if id(parameter) not in replaced:
                    value = nn.Parameter(real[id(parameter)], parameter.requires_grad)
                    replaced[id(parameter)] = value
                module._parameters[key] = replaced[id(parameter)]  # type: ignore[assignment]  # noqa: SLF001
        for key, buffer in list(module._buffers.items()):  # noqa: SLF001
            if buffer is not None:
                module._buffers[key] = real[id(buffer)]  # noqa: SLF001
