"""The data sets by name: ``load_dataset("digits")``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.data import celeba, cifar10, digits, image_folder
from workbench.data.dataset import Dataset
from workbench.data.sources import ArraySource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["ArraySource", "Dataset", "dataset_names", "load_dataset"]

_LOADERS: dict[str, Callable[..., Dataset]] = {
    "celeba": celeba.load,
    "cifar10": cifar10.load,
    "digits": digits.load,
    "image_folder": image_folder.load,
}


def dataset_names() -> tuple[str, ...]:
    """Return the names that `load_dataset` knows, sorted."""
    return tuple(sorted(_LOADERS))


def load_dataset(name: str, root: str | Path | None = None, **options: object) -> Dataset:
    """Load a data set by its name.

    Parameters
    ----------
    name
        ``digits`` (no files needed), ``cifar10`` (found or downloaded), ``celeba`` (found), or
        ``image_folder`` (any images, one folder a class).
    root
        The archive or folder with the files; where it is None, the folder named by the
        environment variable ``WORKBENCH_DATA`` and then the cache folder are searched.
    options
        What the loader of this name takes beside ``root``; see ``load`` in
        `workbench.data.celeba`, `cifar10`, `digits` and `image_folder`.

    Raises
    ------
    ValueError
        If the name is unknown, or a file is damaged.
    FileNotFoundError
        If the files are not where ``root`` says.
    TypeError
        If the loader has no such option.
    """
    if name not in _LOADERS:
        raise ValueError(f"no dataset {name!r}; there are {', '.join(dataset_names())}")
    return _LOADERS[name](root, **options)
