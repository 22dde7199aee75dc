"""Dataset: images and labels behind one class, wherever the pixels lie."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workbench.data.partition import train_test_split
from workbench.data.sources import SubsetSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from workbench.data.sources import ImageSource


class Dataset:
    """Images and labels; pixels are kept as uint8 and normalised when asked for.

    Parameters
    ----------
    name
        How messages and run folders call it.
    labels
        (n,) class of each image, 0 to ``len(class_names) - 1``.
    class_names
        One name a class.
    source
        The pixels.
    mean, std
        Of the pixel values scaled to [0, 1], one number a channel: ``images`` returns
        ``(pixel / 255 - mean) / std``.
    official_test_indices
        Images of the official test part, if the data set has one.
    client_indices
        Images that a fleet is made of; all by default.
    server_indices
        Images that the server keeps for itself, none by default.
    identity
        (n,) to whom each image belongs, for `Fleet.by_identity`; None where nobody owns them.

    Raises
    ------
    ValueError
        If lengths do not match, a label is out of range, or an image is both the server's and a
        client's.
    """

    def __init__(
        self,
        name: str,
        labels: ArrayLike,
        class_names: Sequence[str],
        source: ImageSource,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        official_test_indices: ArrayLike = (),
        client_indices: ArrayLike | None = None,
        server_indices: ArrayLike = (),
        identity: ArrayLike | None = None,
    ) -> None:
        self.name = name
        self.labels: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
        self.class_names = tuple(class_names)
        self.source = source
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.official_test_indices = self._checked_indices(
            "official_test_indices", official_test_indices
        )
        self.server_indices = self._checked_indices("server_indices", server_indices)
        if client_indices is None:
            client_indices = np.setdiff1d(np.arange(len(self.labels)), self.server_indices)
        self.client_indices = self._checked_indices("client_indices", client_indices)
        self.identity = None if identity is None else np.asarray(identity)
        self._check()

    def _checked_indices(self, name: str, indices: ArrayLike) -> NDArray[np.int64]:
        checked: NDArray[np.int64] = np.asarray(indices, dtype=np.int64)
        outside = checked[(checked < 0) | (checked >= len(self.labels))]
        if outside.size:
            raise ValueError(
                f"{name} holds {outside[0]}; the {len(self.labels)} images of {self.name} are "
                f"numbered 0..{len(self.labels) - 1}"
            )
        return checked

    def _check(self) -> None:
        lengths = {"labels": len(self.labels), "images": len(self.source)}
        if self.identity is not None:
            lengths["identity"] = len(self.identity)
        if len(set(lengths.values())) != 1:
            raise ValueError(f"{self.name}: lengths differ: {lengths}")
        wrong = self.labels[(self.labels < 0) | (self.labels >= self.num_classes)]
        if wrong.size:
            raise ValueError(f"{self.name}: label {wrong[0]} is outside 0..{self.num_classes - 1}")
        channels = self.input_shape[0]
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise ValueError(
                f"{self.name}: mean and std must be {channels} numbers each, std above 0, got "
                f"{self.mean} and {self.std}"
            )
        if np.intersect1d(self.client_indices, self.server_indices).size:
            raise ValueError(f"{self.name}: server_indices and client_indices overlap")

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.source.shape

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def _scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean = torch.tensor(self.mean, dtype=torch.float32).view(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32).view(1, -1, 1, 1)
        return 255 * mean, 255 * std

    def images(self, indices: ArrayLike) -> torch.Tensor:
        """Return images (n, C, H, W), float32, normalised per channel.

        Raises
        ------
        IndexError
            If an index is outside the data set.
        """
        rows = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"images of {self.name} are numbered 0..{len(self) - 1}")
        mean, std = self._scale
        return torch.from_numpy(self.source.read(rows)).to(torch.float32).sub_(mean).div_(std)

    def targets(self, indices: ArrayLike) -> torch.Tensor:
        """Return the labels of these images, (n,) int64."""
        return torch.from_numpy(self.labels[np.atleast_1d(np.asarray(indices, dtype=np.int64))])

    def subset(self, indices: ArrayLike) -> Dataset:
        """Return a data set of these images only, in this order; they are numbered anew.

        Raises
        ------
        ValueError
            If an index is outside the data set or occurs twice.
        """
        rows = self._checked_indices("indices", indices)
        if len(np.unique(rows)) != len(rows):
            raise ValueError("indices holds an image twice")
        return self._with(
            labels=self.labels[rows],
            source=SubsetSource(self.source, rows),
            official_test_indices=np.flatnonzero(np.isin(rows, self.official_test_indices)),
            client_indices=np.flatnonzero(np.isin(rows, self.client_indices)),
            server_indices=np.flatnonzero(np.isin(rows, self.server_indices)),
            identity=None if self.identity is None else self.identity[rows],
        )

    def reserve_for_server(self, fraction: float, *, seed: int) -> Dataset:
        """Return the same data set with a share of the clients' images given to the server.

        They are drawn at random, of each class its share; no fleet gets them.

        Raises
        ------
        ValueError
            If ``fraction`` is outside [0, 1).
        """
        ((clients, server),) = train_test_split(
            [self.client_indices], self.labels, test_fraction=fraction, seed=seed
        )
        return self._with(
            client_indices=clients,
            server_indices=np.concatenate([self.server_indices, server]),
        )

    def _with(self, **changes: Any) -> Dataset:  # noqa: ANN401  # passed on to the constructor
        keep = {
            name: getattr(self, name)
            for name in (
                "name",
                "labels",
                "class_names",
                "source",
                "mean",
                "std",
                "official_test_indices",
                "client_indices",
                "server_indices",
                "identity",
            )
        }
        return Dataset(**{**keep, **changes})

    def fingerprint(self) -> str:
        """Return a SHA-256 of pixels, labels and normalisation; computed once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.source.fingerprint().encode())
        for part in (self.labels, self.client_indices, self.server_indices):
            digest.update(len(part).to_bytes(8, "little") + part.tobytes())
        digest.update(repr((self.name, self.class_names, self.mean, self.std)).encode())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, {len(self):,} images {self.input_shape}, "
            f"{self.num_classes} classes)"
        )

    def _repr_html_(self) -> str:
        counts = np.bincount(self.labels, minlength=self.num_classes)
        head = "".join(f"<th>{name}</th>" for name in self.class_names[:20])
        body = "".join(f"<td>{count:,}</td>" for count in counts[:20])
        more = f"<p>… and {self.num_classes - 20} more classes</p>" if self.num_classes > 20 else ""
        shape = " × ".join(str(size) for size in self.input_shape)
        return (
            f"<p><b>{self.name}</b>: {len(self):,} images of {shape}, {self.num_classes} "
            f"classes</p><table><tr>{head}</tr><tr>{body}</tr></table>{more}"
        )
