"""Write a network for deployment: safetensors, TorchScript or ONNX, in evaluation mode."""

from __future__ import annotations

import importlib.util
import io
import math
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import nn

from workbench.pruning.cloning import clone_sharing_tensors
from workbench.pruning.codec import encode
from workbench.pruning.tracing import check_input_shape, trace

if TYPE_CHECKING:
    from collections.abc import Sequence

ExportFormat = Literal["safetensors", "torchscript", "onnx"]
SUFFIXES: dict[str, str] = {"safetensors": ".safetensors", "torchscript": ".pt", "onnx": ".onnx"}


def export_model(
    model: nn.Module,
    input_shape: Sequence[int],
    path: str | Path,
    format: ExportFormat = "safetensors",  # noqa: A002 - the word that people use
) -> Path:
    """Write a network to a file.

    ``safetensors`` is read by `workbench.pruning.codec.decode` (and, weights alone, by anything
    that reads safetensors), ``torchscript`` by ``torch.jit.load``, ``onnx`` by any ONNX runtime;
    its input is called ``images``, its output ``output``, and the batch may have any size.

    Parameters
    ----------
    model
        The network; it is left as it is.
    input_shape
        Shape of one sample without the batch, such as (3, 32, 32).
    path
        The file; the format's suffix is added if it has none. It appears only when complete.
    format
        ``safetensors``, ``torchscript`` or ``onnx``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the format is unknown, or can't express the network.
    ModuleNotFoundError
        If ONNX is asked for and the package onnx is not installed.
    """
    shape = check_input_shape(input_shape)
    if format not in get_args(ExportFormat):
        raise ValueError(f"format is {format!r}, but must be one of {get_args(ExportFormat)}")
    target = Path(path)
    if not target.suffix:
        target = target.with_suffix(SUFFIXES[format])
    deployed = clone_sharing_tensors(model).eval()
    content = _to_onnx(deployed, shape) if format == "onnx" else encode(deployed, shape, format)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(name).replace(target)
    return target


def _to_onnx(deployed: nn.Module, shape: tuple[int, ...]) -> bytes:
    if importlib.util.find_spec("onnx") is None:
        raise ModuleNotFoundError("the ONNX format needs the package onnx: pip install onnx")
    _replace_adaptive_pools(deployed, shape)
    device = next((value.device for value in deployed.parameters()), torch.device("cpu"))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that torch now recommends needs onnxscript; this one does without.
        warnings.filterwarnings("ignore", "You are using the legacy", DeprecationWarning)
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
        try:
            torch.onnx.export(
                deployed,
                (torch.zeros((2, *shape), device=device),),
                buffer,  # type: ignore[arg-type]  # a buffer works as well as a path
                dynamo=False,
                input_names=["images"],
                output_names=["output"],
                dynamic_axes={"images": {0: "batch"}, "output": {0: "batch"}},
            )
        except Exception as error:
            first_line = next(iter(str(error).strip().splitlines()), repr(error))
            raise ValueError(f"ONNX can't express the network: {first_line}") from error
    return buffer.getvalue()


class AveragedCells(nn.Module):
    """Adaptive average pooling as two matrix products, for sizes that ONNX has no pooling for.

    Parameters
    ----------
    before, after
        Height and width of the input and of the output.
    """

    def __init__(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        super().__init__()
        self.rows: torch.Tensor
        self.columns: torch.Tensor
        self.register_buffer("rows", _averages(before[0], after[0]))
        self.register_buffer("columns", _averages(before[1], after[1]).T.contiguous())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (n, channels, *before) to (n, channels, *after)."""
        return torch.matmul(torch.matmul(self.rows, images), self.columns)


def _averages(before: int, after: int) -> torch.Tensor:
    """Return the matrix (after, before) that averages as adaptive pooling does."""
    matrix = torch.zeros(after, before)
    for cell in range(after):
        start, stop = cell * before // after, math.ceil((cell + 1) * before / after)
        matrix[cell, start:stop] = 1 / (stop - start)
    return matrix


def _replace_adaptive_pools(deployed: nn.Module, shape: tuple[int, ...]) -> None:
    """Replace the pools whose output does not divide their input, for which ONNX has no word."""
    for name, input_shape in trace(deployed, shape).calls:
        module = deployed.get_submodule(name)
        if not isinstance(module, nn.AdaptiveAvgPool2d) or len(input_shape) != 3:
            continue
        before, wanted = (input_shape[1], input_shape[2]), module.output_size
        sizes = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        after = (sizes[0] or before[0], sizes[1] or before[1])
        if before[0] % after[0] or before[1] % after[1]:
            parent, _, key = name.rpartition(".")
            setattr(deployed.get_submodule(parent), key, AveragedCells(before, after))
