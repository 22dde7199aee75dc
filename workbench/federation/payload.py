"""Weights as they travel: one flat array per dtype.

Every tensor of its own would cost at least two requests to a SuperLink; a flat array costs two
in all. Names and shapes need not travel, because both sides know the architecture: tensors lie in
the order of the module's state dict. What arrives is data: sizes are checked before use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from torch import nn

STYPE = "workbench.flat"
"""Serialisation type of the flat arrays: raw little-endian bytes, C order."""

_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "int64": torch.int64,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

Flat = dict[str, "NDArray[Any]"]
"""Weights as flat NumPy arrays by dtype name."""


class PayloadError(ValueError):
    """Weights that do not fit the architecture, or are not numbers."""


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """Return the module's tensors in the order in which they travel."""
    return [tensor for tensor in module.state_dict().values() if isinstance(tensor, torch.Tensor)]


def layout(tensors: Iterable[torch.Tensor]) -> dict[str, int]:
    """Return the number of elements per dtype name."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        name = _dtype_name(tensor)
        sizes[name] = sizes.get(name, 0) + tensor.numel()
    return sizes


def flatten(module: nn.Module) -> Flat:
    """Copy a module's weights into new flat arrays, one per dtype."""
    tensors = tensors_of(module)
    flat = {name: torch.empty(size, dtype=_DTYPES[name]) for name, size in layout(tensors).items()}
    offsets = dict.fromkeys(flat, 0)
    for tensor in tensors:
        name = _dtype_name(tensor)
        start, stop = offsets[name], offsets[name] + tensor.numel()
        # reshape() of the view keeps C order whatever the memory format of the tensor is.
        flat[name][start:stop].view(tensor.shape).copy_(tensor.detach())
        offsets[name] = stop
    return {name: array.numpy() for name, array in flat.items()}


def load(module: nn.Module, flat: Mapping[str, NDArray[Any]]) -> None:
    """Copy flat arrays into a module's tensors, in place.

    Raises
    ------
    PayloadError
        If a dtype or a number of elements is not that of the module.
    """
    tensors = tensors_of(module)
    check_layout(flat, layout(tensors))
    offsets = dict.fromkeys(flat, 0)
    with torch.no_grad():
        for tensor in tensors:
            name = _dtype_name(tensor)
            start, stop = offsets[name], offsets[name] + tensor.numel()
            source = flat[name][start:stop].reshape(tensor.shape)
            if tensor.device.type == "cpu":
                # Through NumPy: torch has no read-only tensors, and what arrived is read-only.
                np.copyto(tensor.detach().numpy(), source)
            else:
                tensor.copy_(torch.from_numpy(source.copy()))
            offsets[name] = stop


class FlatModule:
    """A module whose tensors are views of one flat tensor per dtype.

    Loading weights is one copy per dtype, and giving them away is one, or none where they are
    only lent. A module that uses a tensor under two names is copied tensor by tensor.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        tensors = [
            tensor
            for tensor in module.state_dict(keep_vars=True).values()
            if isinstance(tensor, torch.Tensor)
        ]
        self._layout = layout(tensors)
        self.nbytes = sum(tensor.nbytes for tensor in tensors)
        self._flat: dict[str, torch.Tensor] = {}
        if len({id(tensor) for tensor in tensors}) < len(tensors):
            return
        device = tensors[0].device if tensors else torch.device("cpu")
        self._flat = {
            name: torch.empty(size, dtype=_DTYPES[name], device=device)
            for name, size in self._layout.items()
        }
        offsets = dict.fromkeys(self._flat, 0)
        for tensor in tensors:
            name = _dtype_name(tensor)
            start, stop = offsets[name], offsets[name] + tensor.numel()
            view = self._flat[name][start:stop].view(tensor.shape)
            view.copy_(tensor.detach())
            tensor.data = view
            offsets[name] = stop

    def load(self, flat: Mapping[str, NDArray[Any]]) -> None:
        """Copy flat arrays into the module.

        Raises
        ------
        PayloadError
            If a dtype or a number of elements is not that of the module.
        """
        check_layout(flat, self._layout)
        if not self._flat:
            load(self.module, flat)
            return
        for name, array in flat.items():
            target = self._flat[name]
            if target.device.type == "cpu":
                np.copyto(target.numpy(), array)
            else:
                target.copy_(torch.from_numpy(array.copy()))

    def weights(self, *, lend: bool = False) -> Flat:
        """Return the weights as flat arrays; lent ones change when the module is used again."""
        if not self._flat:
            return flatten(self.module)
        if lend:
            return {name: tensor.cpu().numpy() for name, tensor in self._flat.items()}
        return {name: tensor.cpu().numpy().copy() for name, tensor in self._flat.items()}


def check_layout(flat: Mapping[str, NDArray[Any]], expected: Mapping[str, int]) -> None:
    """Refuse flat arrays whose dtypes or sizes are not the expected ones."""
    found = {name: int(array.size) for name, array in flat.items()}
    if found != dict(expected):
        raise PayloadError(f"weights have {found} elements, but the model has {dict(expected)}")


def check_finite(flat: Mapping[str, NDArray[Any]]) -> None:
    """Refuse weights that hold NaN or infinity."""
    for name, array in flat.items():
        # The dot product is one fast pass; it overflows for huge numbers, hence the second look.
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = array.dtype.kind == "f" and not np.isfinite(np.dot(array, array))
        if suspicious and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise PayloadError(f"weights hold {bad} values of {name} that are not finite")


def to_record(flat: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Wrap flat arrays for a message, without copying them."""
    record = ArrayRecord()
    for name, array in flat.items():
        wrapped = Array(name, (int(array.size),), STYPE, b"")
        # flwr asks for bytes, but slices whatever has a buffer: a view saves one copy a message.
        wrapped.data = cast("bytes", np.ascontiguousarray(array).data.cast("B"))
        record[name] = wrapped
    return record


def from_record(record: ArrayRecord) -> Flat:
    """Return the flat arrays of a record as read-only views of its bytes.

    Raises
    ------
    PayloadError
        If the record is not of the kind that `to_record` makes.
    """
    flat: Flat = {}
    for name, array in record.items():
        if array.stype != STYPE or name not in _DTYPES or array.dtype != name:
            raise PayloadError(
                f"array {name!r} has the dtype {array.dtype!r} and the form {array.stype!r}; "
                f"allowed are {sorted(_DTYPES)} in the form {STYPE!r}"
            )
        dtype = np.dtype(name)
        if len(array.shape) != 1 or len(array.data) != array.shape[0] * dtype.itemsize:
            raise PayloadError(
                f"array {name!r} says shape {array.shape}, but holds {len(array.data)} bytes"
            )
        view = np.frombuffer(array.data, dtype=dtype)
        view.flags.writeable = False
        flat[name] = view
    return flat


def message_bytes(content: RecordDict) -> int:
    """Return the bytes that a message's content puts on the wire, without protocol headers.

    Arrays count with their data, every other entry with its name and its value as text or bytes.
    """
    total = 0
    for record in content.values():
        if isinstance(record, ArrayRecord):
            total += sum(len(array.data) for array in record.values())
        elif isinstance(record, ConfigRecord | MetricRecord):
            for key, value in record.items():
                total += len(key)
                if isinstance(value, bytes):
                    total += len(value)
                elif isinstance(value, str):
                    total += len(value.encode())
                else:
                    total += 8 * (len(value) if isinstance(value, list) else 1)
    return total


def _dtype_name(tensor: torch.Tensor) -> str:
    try:
        return _NAMES[tensor.dtype]
    except KeyError:
        raise PayloadError(
            f"a tensor has the dtype {tensor.dtype}; allowed are {sorted(_DTYPES)}"
        ) from None
