"""A TorchScript archive that carries its architecture as data.

The archive is what ``torch.jit.save`` writes, and can be run as such. Beside the compiled code it
holds one more record: the description, and which record has which tensor. Reading it back uses
that record and the raw numbers only; the code, and the pickle that torch would read, stay shut.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from workbench.pruning.assembly import MAX_DESCRIPTION_BYTES
from workbench.pruning.steps import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

RECORD = "extra/workbench.json"
MAX_RECORDS = 100_000
Tensors = dict[str, torch.Tensor]


def compiled(model: nn.Module) -> torch.jit.ScriptModule:
    """Compile a network with TorchScript, from its symbolic trace.

    Raises
    ------
    ValueError
        If the network can't be traced or compiled; the message says why.
    """
    try:
        graph = fx.Tracer().trace(model)
        for node in graph.nodes:
            node.type = None  # annotations may name what TorchScript does not know
        traced = fx.GraphModule(model, graph)
        with warnings.catch_warnings():
            # The format stays what deployed devices read, whatever torch advises for new projects.
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            warnings.filterwarnings("ignore", "The TorchScript type system", UserWarning)
            script: torch.jit.ScriptModule = torch.jit.script(traced)
    except Exception as error:
        raise ValueError(f"the network can't be compiled with TorchScript: {error}") from error
    return script


def save_compiled(script: torch.jit.ScriptModule) -> bytes:
    """Return the archive of a compiled network."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.save(script, buffer)
    return buffer.getvalue()


def write_archive(model: nn.Module, description: str, tensors: Tensors) -> bytes:
    """Compile a network and add the description to the archive.

    Raises
    ------
    ValueError
        If the network can't be compiled, or has tensors that its forward pass does not use.
    """
    archive = save_compiled(compiled(model))
    places = _find_records(archive, tensors)
    content = json.dumps({"description": description, "tensors": places}, separators=(",", ":"))
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as records:
        records.writestr(f"{_folder(records)}/{RECORD}", content)
    return buffer.getvalue()


def _folder(records: zipfile.ZipFile) -> str:
    return records.infolist()[0].filename.partition("/")[0]


def _find_records(archive: bytes, tensors: Tensors) -> dict[str, str]:
    """Find for each tensor the record that holds its numbers."""
    with zipfile.ZipFile(io.BytesIO(archive)) as records:
        folder = _folder(records)
        by_size: dict[int, list[tuple[str, bytes]]] = {}
        for info in records.infolist():
            name = info.filename.removeprefix(f"{folder}/")
            if name.startswith("data/"):
                by_size.setdefault(info.file_size, []).append((name, records.read(info)))
    places = {}
    for key, tensor in tensors.items():
        raw = tensor.flatten().view(torch.uint8).numpy().tobytes()
        same = [name for name, content in by_size.get(len(raw), []) if content == raw]
        if not same:
            raise ValueError(
                f"tensor {key} is not used by the forward pass, so TorchScript leaves it out; "
                "use the safetensors format"
            )
        places[key] = same[0]
    return places


def read_archive(data: bytes) -> tuple[str, Callable[[Tensors], Tensors]]:
    """Read the description of an archive.

    Returns
    -------
    tuple
        The description, and a function that reads the tensors once it is known what they are.

    Raises
    ------
    DecodeError
        If the archive is damaged, compressed, or carries no description.
    """
    try:
        records = zipfile.ZipFile(io.BytesIO(data))
        infos = {info.filename: info for info in records.infolist()}
        folder = _folder(records) if infos else ""
    except _ZIP_ERRORS as error:
        raise DecodeError(f"the archive is damaged: {error}") from error
    if len(infos) > MAX_RECORDS:
        raise DecodeError(f"the archive has {len(infos)} records, more than {MAX_RECORDS}")
    info = infos.get(f"{folder}/{RECORD}")
    if info is None:
        raise DecodeError("the TorchScript archive carries no description of its architecture")
    content = _read(records, info, 2 * MAX_DESCRIPTION_BYTES)
    try:
        parsed = json.loads(content)
        description, places = parsed["description"], parsed["tensors"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise DecodeError(f"the archive's description is damaged: {error}") from error
    if not isinstance(description, str) or not isinstance(places, dict):
        raise DecodeError("the archive's description is damaged")

    def read_tensors(expected: Tensors) -> Tensors:
        if set(places) != set(expected):
            raise DecodeError("the archive has not the tensors of its architecture")
        tensors = {}
        for key, value in expected.items():
            found = infos.get(f"{folder}/{places[key]}")
            if found is None or found.file_size != value.nbytes:
                raise DecodeError(f"tensor {key} is missing or not of shape {tuple(value.shape)}")
            raw = bytearray(_read(records, found, value.nbytes))
            numbers = torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0)
            tensors[key] = _as(numbers, value)
        return tensors

    return description, read_tensors


def _as(numbers: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    if value.dtype == torch.bool:
        return (numbers != 0).view(value.shape)
    return (numbers.view(value.dtype) if numbers.numel() else numbers.to(value.dtype)).view(
        value.shape
    )


_ZIP_ERRORS: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    KeyError,
    OverflowError,
)


def _read(records: zipfile.ZipFile, info: Any, limit: int) -> bytes:  # noqa: ANN401 - ZipInfo
    """Read a record that is stored as it is."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise DecodeError(f"record {info.filename[:100]!r} is compressed")
    if info.file_size > limit:
        raise DecodeError(f"record {info.filename[:100]!r} has {info.file_size:,} bytes")
    try:
        return records.read(info)
    except _ZIP_ERRORS as error:
        raise DecodeError(f"record {info.filename[:100]!r} is damaged: {error}") from error
