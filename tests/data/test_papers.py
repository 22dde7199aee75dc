"""The papers' data sets at full size: who the clients are, and how their samples are split."""

from __future__ import annotations

import gc
import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from workbench.data import celeba
from workbench.data.dataset import Dataset
from workbench.data.datasets import load_dataset
from workbench.fleet import Fleet

SPLIT = {"validation_fraction": 0.2, "test_fraction": 0.2, "seed": 3}


class NoPixels:
    """So many images whose pixels nobody asks for."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.shape = (3, 8, 8)

    def __len__(self) -> int:
        return self.count

    def read(self, rows):  # noqa: ARG002  # the interface of a source
        raise AssertionError("a fleet is made without looking at an image")

    def fingerprint(self) -> str:
        return "none"


def assert_split_6_2_2(fleet: Fleet) -> None:
    samples = fleet.samples
    fifth = np.floor(0.2 * samples + 0.5)
    assert (fleet.test_samples == fifth).all()
    assert (fleet.validation_samples == fifth).all()
    assert (fleet.train_samples == samples - 2 * fifth).all()
    for row in range(0, len(fleet), 97):
        parts = (fleet.train_indices, fleet.validation_indices, fleet.test_indices)
        rows = np.concatenate([part[row] for part in parts])
        assert len(np.unique(rows)) == len(rows) == samples[row]


@pytest.mark.data
def test_celebas_clients_are_those_of_decnas(workbench_data):
    known = celeba.read_annotations(workbench_data)
    classes = celeba.class_names()
    dataset = Dataset(
        "celeba", known.labels, classes, NoPixels(len(known.labels)),
        mean=[0] * 3, std=[1] * 3, identity=known.identity,
    )  # fmt: skip
    fleet = Fleet.by_identity(dataset, min_samples=5, **SPLIT)
    assert len(fleet) == 9_343
    assert fleet.samples.mean() == pytest.approx(21.4, abs=0.05)
    assert fleet.samples.min() == 5
    assert fleet.label_counts.shape == (9_343, 8)
    assert (fleet.label_counts.sum(axis=0) > 0).all()
    assert_split_6_2_2(fleet)
    # Not IID: most persons are seen in few of the 8 classes.
    assert np.median((fleet.label_counts > 0).sum(axis=1)) <= 4


def test_imagenet_is_split_evenly_over_1500_clients():
    count = 1_500 * 915
    labels = np.random.default_rng(1).integers(0, 1000, size=count)
    names = [str(number) for number in range(1000)]
    dataset = Dataset("imagenet", labels, names, NoPixels(count), mean=[0] * 3, std=[1] * 3)
    fleet = Fleet.iid(dataset, clients=1_500, **SPLIT)
    assert set(fleet.samples) == {915}
    assert_split_6_2_2(fleet)


@pytest.mark.data
def test_any_subset_of_imagenet_serves_as_many_clients(workbench_data):
    dataset = load_dataset("image_folder", workbench_data / "imagenette-64px-2k.tar")
    fleet = Fleet.iid(dataset, clients=1_500, **SPLIT)
    assert len(fleet) == 1_500
    assert set(fleet.samples) == {1, 2}
    assert fleet.samples.sum() == 2_000


def test_an_image_folder_keeps_to_the_memory_that_it_states(tmp_path, make_tar):
    count, size = 4_000, 16
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (9, 99, 199)).save(file, "PNG")
    content = file.getvalue()
    path = make_tar(
        tmp_path / "many.tar",
        [(f"train/class{k % 10}/image-{k:07}.png", content) for k in range(count)],
    )
    load_dataset("image_folder", path, size=size)
    gc.collect()
    tracemalloc.start()
    dataset = load_dataset("image_folder", path, size=size, memory_mb=1)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for start in range(0, count, 200):
        pixels = dataset.source.read(np.arange(start, start + 200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.shape == (200, 3, size, size)
    assert held < 300 * count  # what the documentation says
    # 3 MB would be needed to keep them all: the bound, two batches, and what decoding takes.
    assert peak - held < 1_000_000 + 2 * 200 * 3 * size * size + 600_000
