"""CelebA: faces with 40 attributes each and an identity, as DecNAS uses them.

Source: Z. Liu, P. Luo, X. Wang and X. Tang, Deep Learning Face Attributes in the Wild, ICCV 2015;
for non-commercial research. Three attributes make 8 classes, and each identity with at least
5 images is a client: 9,343 clients with 21.4 images on the mean (DecNAS, section 5.1; LEAF).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.data import archives, storage
from workbench.data.dataset import Dataset
from workbench.data.encoded import SUFFIXES, EncodedSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ATTRIBUTES = ("Smiling", "Male", "Mouth_Slightly_Open")
ATTRIBUTE_FILE, IDENTITY_FILE = "list_attr_celeba.txt", "identity_CelebA.txt"
ANNOTATIONS = ("celeba-annotations.tar.xz", "celeba-annotations.tar", "Anno", ".")
IMAGES = ("img_align_celeba", "img_align_celeba.tar", "celeba-aligned-10k.tar")
MEAN, STD = (0.509, 0.423, 0.378), (0.300, 0.279, 0.278)
"""Of the first 10,000 aligned images, for each channel."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """What is known of each of n images.

    Attributes
    ----------
    names
        n file names, ``000001.jpg`` onwards.
    values
        (n, attributes) bool, in the order asked for.
    identity
        (n,) int64, the person.
    """

    names: tuple[str, ...]
    values: NDArray[np.bool_]
    identity: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) class: the attributes as bits, the first one highest."""
        weights = 1 << np.arange(self.values.shape[1])[::-1]
        labels: NDArray[np.int64] = self.values.astype(np.int64) @ weights
        return labels


def load(
    root: str | Path | None = None,
    *,
    images: str | Path | None = None,
    attributes: Sequence[str] = ATTRIBUTES,
    size: int = 128,
    memory_mb: int = 256,
) -> Dataset:
    """Load CelebA, or any subset of its images: an image that is not there is left out.

    Images are decoded when they are asked for. In memory: about 0.3 kB an image for what is
    known of it (65 MB for all 202,599), up to ``memory_mb`` of decoded pixels, and the images
    asked for; reading the annotations needs 250 MB for a moment.

    Parameters
    ----------
    root
        A folder with the annotations (``list_attr_celeba.txt`` and ``identity_CelebA.txt``, or
        ``celeba-annotations.tar.xz``) and the images; ``WORKBENCH_DATA`` or the cache folder
        if None.
    images
        Folder or plain ``.tar`` of the aligned images, if it is not one of ``img_align_celeba``,
        ``img_align_celeba.tar`` and ``celeba-aligned-10k.tar`` in ``root``.
    attributes
        The binary attributes that make up the classes, two classes an attribute.
    size
        Height and width to which the central square of each image is scaled; DecNAS uses 128.
    memory_mb
        Bound of the decoded pixels that are kept, in MB.

    Raises
    ------
    FileNotFoundError
        If annotations or images are not found.
    ValueError
        If they are damaged or do not fit together, or an attribute is unknown.
    """
    folders = storage.search_folders(root)
    known = read_annotations(root, attributes=attributes)
    place = Path(images) if images is not None else storage.find(folders, IMAGES)
    if place is None or not place.exists():
        raise FileNotFoundError(
            f"no CelebA images ({', '.join(IMAGES)}) in {', '.join(map(str, folders))}"
            if place is None
            else f"images {place} does not exist"
        )
    store = archives.open_store(place)
    paths = {PurePosixPath(name).name: name for name in store.names() if name.endswith(SUFFIXES)}
    unknown = paths.keys() - set(known.names)
    if unknown or not paths:
        raise ValueError(
            f"{place} has no image of CelebA"
            if not paths
            else f"{place}: nothing is known of {len(unknown)} images, {min(unknown)} among them"
        )
    rows = np.flatnonzero([name in paths for name in known.names])
    return Dataset(
        "celeba",
        known.labels[rows],
        class_names(attributes),
        EncodedSource(
            store,
            [paths[known.names[row]] for row in rows],
            size=size,
            memory_bytes=memory_mb * 1_000_000,
        ),
        mean=MEAN,
        std=STD,
        identity=known.identity[rows],
    )


def class_names(attributes: Sequence[str] = ATTRIBUTES) -> list[str]:
    """Return the name of each class, such as ``Smiling+Male``; ``none`` for class 0."""
    return [
        "+".join(name for name, on in zip(attributes, bits, strict=True) if on) or "none"
        for bits in product((0, 1), repeat=len(attributes))
    ]


def read_annotations(
    root: str | Path | None = None, *, attributes: Sequence[str] = ATTRIBUTES
) -> Annotations:
    """Read what is known of all images; parameters and errors as in `load`."""
    files = _annotation_files(storage.search_folders(root))
    where, attribute_bytes = files[ATTRIBUTE_FILE]
    count_line, _, rest = attribute_bytes.partition(b"\n")
    header, _, table = rest.partition(b"\n")
    columns = header.decode(errors="replace").split()
    if not count_line.strip().isdigit():
        raise ValueError(f"{where}: the first line is not the number of images")
    unknown = [name for name in attributes if name not in columns]
    if unknown or not attributes:
        raise ValueError(
            f"attributes {unknown} are not in CelebA; there are {', '.join(columns)}"
            if unknown
            else "attributes is empty; at least one is needed"
        )
    values = _read_table(where, table, ["image", *columns], ["image", *attributes])
    if len(values) != int(count_line):
        raise ValueError(f"{where}: {len(values)} lines, but it announces {int(count_line)}")
    identity_where, identity_bytes = files[IDENTITY_FILE]
    identity = _read_table(identity_where, identity_bytes, ["image", "identity"], None)
    if not values["image"].equals(identity["image"]):
        raise ValueError(f"{where} and {identity_where} do not name the same images")
    bits = values[list(attributes)].to_numpy()
    if not np.isin(bits, (-1, 1)).all():
        raise ValueError(f"{where}: attributes must be 1 or -1")
    return Annotations(
        tuple(values["image"]), bits == 1, identity["identity"].to_numpy(dtype=np.int64)
    )


def _annotation_files(folders: Sequence[Path]) -> dict[str, tuple[str, bytes]]:
    """Return where each of the two files was found, and its content."""
    wanted = (ATTRIBUTE_FILE, IDENTITY_FILE)
    for folder in folders:
        for place in (folder / name for name in ANNOTATIONS):
            if place.is_file():
                return {
                    name: (f"{place}: {name}", content)
                    for name, content in archives.stream(place, wanted)
                }
            if all((place / name).is_file() for name in wanted):
                return {name: (str(place / name), (place / name).read_bytes()) for name in wanted}
    raise FileNotFoundError(
        f"no {' and '.join(wanted)} in {', '.join(map(str, folders))}; needed are these two "
        f"files, or {ANNOTATIONS[0]}"
    )


def _read_table(
    where: str, content: bytes, columns: list[str], used: list[str] | None
) -> pd.DataFrame:
    try:
        return pd.read_csv(
            io.BytesIO(content),
            sep=r"\s+",
            header=None,
            names=columns,
            usecols=used,
            dtype=dict.fromkeys(columns[1:], np.int32),
        )
    except ValueError as error:  # the parser's errors, and values that are no numbers
        raise ValueError(f"{where} is damaged: {error}") from error
