"""A client's own share of the data in one file, for a node that runs in a container.

A node sees the samples of its client and of nobody else. The file is data and nothing but data:
tensors, and names as JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from workbench.data.dataset import Dataset
from workbench.data.sources import ArraySource
from workbench.fleet import Fleet

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_FILE = "share.safetensors"
_PARTS = ("train", "validation", "test")


def write(dataset: Dataset, fleet: Fleet, row: int, folder: Path) -> None:
    """Write a client's samples into a folder."""
    indices = (fleet.train_indices, fleet.validation_indices, fleet.test_indices)
    parts = [np.asarray(each[row] if each else [], dtype=np.int64) for each in indices]
    rows = np.concatenate(parts)
    sizes = [len(part) for part in parts]
    about = {
        "name": dataset.name,
        "class_names": dataset.class_names,
        "mean": dataset.mean,
        "std": dataset.std,
        "row": row,
        "names": fleet.names,
    }
    tensors: dict[str, NDArray[np.int64] | NDArray[np.uint8]] = {
        "pixels": np.ascontiguousarray(dataset.source.read(rows)),
        "labels": dataset.labels[rows],
        "label_counts": np.ascontiguousarray(fleet.label_counts[row]),
        "sizes": np.array(sizes, dtype=np.int64),
    }
    target = folder / _FILE
    written = target.with_suffix(".part")
    save_file(tensors, written, metadata={"about": json.dumps(about)})
    written.chmod(0o644)
    written.rename(target)


def read(folder: Path) -> tuple[Dataset, Fleet]:
    """Return the dataset of one client's samples, and a fleet in which only that client has any."""
    with safe_open(folder / _FILE, framework="np") as file:
        about = json.loads(file.metadata()["about"])
        pixels, labels, counts, sizes = (
            file.get_tensor(name) for name in ("pixels", "labels", "label_counts", "sizes")
        )
    dataset = Dataset(
        about["name"],
        labels,
        about["class_names"],
        ArraySource(pixels),
        mean=about["mean"],
        std=about["std"],
    )
    clients, row = len(about["names"]), int(about["row"])
    nothing = np.zeros(0, dtype=np.int64)
    ends = np.cumsum(sizes)
    parts: dict[str, Any] = {}
    for name, size, end in zip(_PARTS, sizes, ends, strict=True):
        mine = np.arange(end - size, end, dtype=np.int64)
        parts[f"{name}_indices"] = tuple(
            mine if each == row else nothing for each in range(clients)
        )
    label_counts = np.zeros((clients, len(counts)), dtype=np.int64)
    label_counts[row] = counts
    empty = Fleet.from_label_counts(label_counts, names=about["names"])
    fleet = Fleet(
        label_counts=empty.label_counts,
        tier=empty.tier,
        rate_bps=empty.rate_bps,
        tiers=empty.tiers,
        names=empty.names,
        **parts,
    )
    return dataset, fleet
