"""CIFAR-10 in its official binary version: 60,000 colour images of 32 x 32, 10 classes.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html. A record is one byte for the class and 3,072 for
the pixels, channel by channel.
"""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm.auto import tqdm

from workbench.data import storage
from workbench.data.dataset import ArraySource, Dataset

if TYPE_CHECKING:
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
    records = _read(_locate(root))
    labels = records[:, 0].astype(np.int64)
    pixels = np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, 32, 32)
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


def _read(path: Path) -> NDArray[np.uint8]:
    """Return all records, (60000, 3073) uint8, each member checked against its MD5."""
    records = np.empty((len(MEMBER_MD5) * _IMAGES, _RECORD_BYTES), dtype=np.uint8)
    read = _read_folder if path.is_dir() else _read_archive
    read(path, records)
    return records


def _read_folder(folder: Path, records: NDArray[np.uint8]) -> None:
    for number, name in enumerate(MEMBER_MD5):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}; extract the archive again")
        _store(records, number, name, (folder / name).read_bytes(), folder)


def _read_archive(path: Path, records: NDArray[np.uint8]) -> None:
    """Read the members from the archive as it is; nothing is extracted to the disk."""
    numbers = {name: number for number, name in enumerate(MEMBER_MD5)}
    at = "its first member"
    try:
        with (
            tarfile.open(path, "r:*") as archive,
            tqdm(desc=f"Read {path.name}", total=len(numbers), unit="file", leave=False) as bar,
        ):
            for member in archive:
                at = member.name
                name = PurePosixPath(member.name).name
                if name not in numbers or not member.isfile():
                    continue
                content = archive.extractfile(member)
                if content is None or member.size != _IMAGES * _RECORD_BYTES:
                    raise ValueError(
                        f"{path}: member {at} has {member.size} bytes, not the "
                        f"{_IMAGES * _RECORD_BYTES} of CIFAR-10"
                    )
                _store(records, numbers.pop(name), at, content.read(), path)
                bar.update()
                if not numbers:
                    return
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or cut off at {at} ({error}); fetch the archive again"
        ) from error
    raise ValueError(f"{path} has no {', '.join(numbers)}: not the binary version of CIFAR-10")


def _store(records: NDArray[np.uint8], number: int, name: str, content: bytes, path: Path) -> None:
    expected = MEMBER_MD5[PurePosixPath(name).name]
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path}: {name} has MD5 {found}, but the official file has {expected}; "
            "fetch the archive again"
        )
    batch = np.frombuffer(content, dtype=np.uint8).reshape(_IMAGES, _RECORD_BYTES)
    records[number * _IMAGES : (number + 1) * _IMAGES] = batch
