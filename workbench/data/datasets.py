"""The data sets by name: ``load_dataset("digits")``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.data import cifar10, digits
from workbench.data.dataset import ArraySource, Dataset

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["ArraySource", "Dataset", "dataset_names", "load_dataset"]

_LOADERS: dict[str, Callable[..., Dataset]] = {
    "cifar10": cifar10.load,
    "digits": digits.load,
}


def dataset_names() -> tuple[str, ...]:
    """Return the names that `load_dataset` knows, sorted."""
    return tuple(sorted(_LOADERS))


def load_dataset(name: str, root: str | Path | None = None, **options: object) -> Dataset:
    """Load a data set by its name.

    Parameters
    ----------
    name
        ``digits`` (no files needed) or ``cifar10`` (found or downloaded).
    root
        The archive or folder with the files; where it is None, the folder named by the
        environment variable ``WORKBENCH_DATA`` and then the cache folder are searched.
    options
        What the loader of this name takes beside ``root``: `workbench.data.digits.load`,
        `workbench.data.cifar10.load`.

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
