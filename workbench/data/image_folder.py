"""Any images sorted into one folder a class, such as ImageNet: loaded lazily.

Layouts: ``train/CLASS/*`` and ``val/CLASS/*`` (or ``test``), or ``CLASS/*`` alone, below any
number of folders that hold nothing else; as a folder or in a plain ``.tar``.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from workbench.data import archives, storage
from workbench.data.dataset import Dataset
from workbench.data.encoded import SUFFIXES, EncodedSource

if TYPE_CHECKING:
    from collections.abc import Sequence

TRAINING, TESTING = ("train",), ("val", "test")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images, as in general use."""


def load(
    root: str | Path | None = None,
    *,
    clients: Literal["all", "train"] = "all",
    size: int = 64,
    memory_mb: int = 256,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> Dataset:
    """Load images from one folder a class; the classes are the folders' names, sorted.

    Images are decoded when they are asked for. In memory: about 0.3 kB an image for its name and
    place, up to ``memory_mb`` of decoded pixels, and the images asked for.

    Parameters
    ----------
    root
        Folder or plain ``.tar``; what does not exist is looked for in ``WORKBENCH_DATA`` and the
        cache folder.
    clients
        What fleets are made of: ``all`` images, or those under ``train`` only. The images under
        ``val`` or ``test`` are ``official_test_indices`` either way.
    size
        Height and width to which the central square of each image is scaled.
    memory_mb
        Bound of the decoded pixels that are kept, in MB.
    mean, std
        Of the pixels scaled to [0, 1], for each of the three channels.

    Raises
    ------
    FileNotFoundError
        If ``root`` does not exist.
    ValueError
        If there is no image in a folder of its class, or the archive is damaged.
    """
    if clients not in ("all", "train"):
        raise ValueError(f"clients is {clients!r}, but must be 'all' or 'train'")
    path = _locate(root)
    store = archives.open_store(path)
    names = [name for name in store.names() if name.lower().endswith(SUFFIXES)]
    parts = [PurePosixPath(name).parts for name in names]
    if not names or min(len(part) for part in parts) < 2:
        raise ValueError(f"{path}: no images in folders, one a class, were found")
    class_of = [part[-2] for part in parts]
    testing = np.array([len(part) > 2 and part[-3] in TESTING for part in parts])
    training = np.array([len(part) > 2 and part[-3] in TRAINING for part in parts])
    if clients == "train" and not training.any():
        raise ValueError(f"{path} has no folder train; clients must be 'all'")
    class_names = sorted(set(class_of))
    number = {name: row for row, name in enumerate(class_names)}
    return Dataset(
        path.name.removesuffix(".tar"),
        [number[name] for name in class_of],
        class_names,
        EncodedSource(store, names, size=size, memory_bytes=memory_mb * 1_000_000),
        mean=mean,
        std=std,
        official_test_indices=np.flatnonzero(testing),
        client_indices=None if clients == "all" else np.flatnonzero(training),
    )


def _locate(root: str | Path | None) -> Path:
    if root is None:
        raise ValueError("root is None, but image_folder needs the folder or .tar with the images")
    path = Path(root)
    if path.exists():
        return path
    folders = storage.search_folders(None)
    found = None if path.is_absolute() else storage.find(folders, [str(path)])
    if found is None:
        raise FileNotFoundError(
            f"root {path} exists neither here nor in {', '.join(map(str, folders))}"
        )
    return found
