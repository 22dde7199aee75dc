"""Weights as flat arrays: exact both ways, and wary of what arrives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import nn

from workbench.federation import payload


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 2))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_weights_travel_unchanged(memory_format: torch.memory_format) -> None:
    source, target = model(0).to(memory_format=memory_format), model(1)
    source[1].num_batches_tracked += 7
    record = payload.to_record(payload.flatten(source))
    payload.load(target, payload.from_record(record))
    for (name, one), other in zip(
        source.state_dict().items(), target.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_one_array_a_dtype() -> None:
    flat = payload.flatten(model(0))
    assert {name: array.dtype.name for name, array in flat.items()} == {
        "float32": "float32",
        "int64": "int64",
    }
    assert sum(array.nbytes for array in flat.values()) == sum(
        tensor.nbytes for tensor in model(0).state_dict().values()
    )


def test_what_arrives_is_read_only_and_not_copied() -> None:
    flat = payload.flatten(model(0))
    record = payload.to_record(flat)
    views = payload.from_record(record)
    assert np.shares_memory(views["float32"], flat["float32"])
    with pytest.raises(ValueError, match="read-only"):
        views["float32"][0] = 1


@pytest.mark.parametrize(
    "record",
    [
        {"float32": Array("float32", (3,), payload.STYPE, b"1234")},
        {"float32": Array("float32", (1, 1), payload.STYPE, b"1234")},
        {"float32": Array("float64", (1,), payload.STYPE, b"12345678")},
        {"object": Array("object", (1,), payload.STYPE, b"12345678")},
        {"float32": Array("float32", (1,), "numpy.ndarray", b"1234")},
        {"float32": Array("float32", (-1,), payload.STYPE, b"1234")},
    ],
)
def test_odd_records_are_refused(record: dict[str, Array]) -> None:
    with pytest.raises(payload.PayloadError):
        payload.from_record(ArrayRecord(record))


def test_another_size_is_refused_with_both_numbers() -> None:
    flat = payload.flatten(model(0))
    short = {**flat, "float32": flat["float32"][:-1]}
    with pytest.raises(
        payload.PayloadError, match=f"{short['float32'].size}.*{flat['float32'].size}"
    ):
        payload.load(model(1), short)
    with pytest.raises(payload.PayloadError, match="int64"):
        payload.load(model(1), {"float32": flat["float32"]})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    flat = payload.flatten(model(0))
    payload.check_finite(flat)
    flat["float32"][3] = bad
    with pytest.raises(payload.PayloadError, match="not finite"):
        payload.check_finite(flat)


def test_the_size_of_a_message_counts_data_and_text() -> None:
    content = RecordDict(
        {
            "weights": payload.to_record({"float32": np.zeros(10, dtype=np.float32)}),
            "config": ConfigRecord({"name": "abc", "n": 1, "raw": b"12"}),
            "metrics": MetricRecord({"x": 1.0, "list": [1, 2, 3]}),
        }
    )
    assert payload.message_bytes(content) == 40 + (4 + 3) + (1 + 8) + (3 + 2) + (1 + 8) + (4 + 24)
