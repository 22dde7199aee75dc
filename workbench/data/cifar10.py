"""CIFAR-10 in its official binary version: 60,000 colour images of 32 x 32, 10 classes.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html. A record is one byte for the class and 3,072 for
the pixels, channel by channel.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm.auto import tqdm

from workbench.data import archives, storage
from workbench.data.dataset import Dataset
from workbench.data.sources import ArraySource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
URL_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FOLDER = "cifar-10-batches-bin"
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-binary.tar.xz", "cifar-10-binary.tar")
MEMBER_MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of the pixels of the 50,000 training images scaled to [0, 1], for each channel."""

_IMAGES, _RECORD_BYTES = 10_000, 1 + 3 * 32 * 32


def load(root: str | Path | None = None, *, clients: Literal["all", "train"] = "all") -> Dataset:
    """Load CIFAR-10: 184 MB in memory.

    Reading and checking takes about 2 s from a folder, 3 s from ``.tar.gz``, 10 s from
    ``.tar.xz``.

    Parameters
    ----------
    root
        The archive (``.tar.gz``, ``.tar.xz``, ``.tar``), the extracted folder, or a folder that
        holds one of them. If None: ``WORKBENCH_DATA``, the cache folder, and then a download of
        170 MB from the official site.
    clients
        What fleets are made of: ``all`` 60,000 images, as in the NAFNAS experiments, where each
        client keeps a part of its own samples for testing; or ``train``, the 50,000 of the
        official training part. ``official_test_indices`` holds the other 10,000 either way.

    Raises
    ------
    FileNotFoundError
        If ``root`` has no CIFAR-10.
    ValueError
        If an archive is damaged, or a member differs from the official one.
    OSError
        If a download is needed and fails.
    """
    if clients not in ("all", "train"):
        raise ValueError(f"clients is {clients!r}, but must be 'all' or 'train'")
    labels, pixels = _read(_locate(root))
    training = 5 * _IMAGES
    return Dataset(
        "cifar10",
        labels,
        CLASS_NAMES,
        ArraySource(pixels),
        mean=MEAN,
        std=STD,
        official_test_indices=np.arange(training, len(labels)),
        client_indices=None if clients == "all" else np.arange(training),
    )


def _locate(root: str | Path | None) -> Path:
    """Return the archive, or the folder that holds the six files."""
    folders = storage.search_folders(root)
    for folder in folders:
        if folder.is_file() or all((folder / name).is_file() for name in MEMBER_MD5):
            return folder
    found = storage.find(folders, [FOLDER, *ARCHIVES])
    if found is not None:
        return found
    if root is not None:
        raise FileNotFoundError(
            f"no CIFAR-10 in {root}; needed is one of {FOLDER}/, {', '.join(ARCHIVES)}"
        )
    return storage.download(URL, storage.cache_folder() / ARCHIVES[0], md5=URL_MD5)


def _read(path: Path) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return labels (60000,) and pixels (60000, 3, 32, 32), each member checked by its MD5."""
    labels = np.empty(len(MEMBER_MD5) * _IMAGES, dtype=np.int64)
    pixels = np.empty((len(labels), 3, 32, 32), dtype=np.uint8)
    rows = {name: number * _IMAGES for number, name in enumerate(MEMBER_MD5)}
    members = _folder_files(path) if path.is_dir() else archives.stream(path, MEMBER_MD5)
    for name, content in tqdm(
        members, desc=f"Read {path.name}", total=len(rows), unit="file", leave=False
    ):
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != MEMBER_MD5[name]:
            raise ValueError(
                f"{path}: {name} has MD5 {found}, but the official file has {MEMBER_MD5[name]}; "
                "fetch it again"
            )
        records = np.frombuffer(content, dtype=np.uint8).reshape(_IMAGES, _RECORD_BYTES)
        batch = slice(rows[name], rows[name] + _IMAGES)
        labels[batch] = records[:, 0]
        pixels[batch] = records[:, 1:].reshape(_IMAGES, 3, 32, 32)
    return labels, pixels


def _folder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in MEMBER_MD5:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}; extract the archive again")
        yield name, (folder / name).read_bytes()
