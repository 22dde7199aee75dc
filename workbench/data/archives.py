"""Files inside archives, read where they lie: nothing is ever extracted to the disk.

`stream` reads a few files from any tar archive, once, from front to back. `open_store` gives a
folder or an uncompressed tar as a store of many small files that are read one by one.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# What the standard library raises for damaged archives. OSError is among them, without a number:
# with one, it is an error of the disk.
DAMAGE = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError)

COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ", b"BZh", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")
"""How gzip, xz, bzip2, zip and zstandard files begin."""

MAX_FILE_BYTES = 1 << 28
"""No single file of a data set is larger; a header that claims more is damaged."""


def stream(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (file name, content) of the wanted files of a tar archive, whatever its compression.

    Files are known by their last name, in whatever folder of the archive they lie. Reading stops
    with the last one.

    Raises
    ------
    ValueError
        If the archive is damaged or cut off, or lacks a file; the message names archive and file.
    """
    missing = set(wanted)
    at = "its beginning"
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                at = f"after {member.name}"
                name = PurePosixPath(member.name).name
                if name not in missing or not member.isfile():
                    continue
                at = member.name
                yield name, _content(archive, member)
                missing.remove(name)
                if not missing:
                    return
    except DAMAGE as error:
        _raise_if_of_the_disk(error)
        why = str(error).partition("\n")[0].rstrip(":")  # tarfile tells of every method it tried
        raise ValueError(f"{path} is damaged or cut off at {at} ({why}); fetch it again") from error
    raise ValueError(f"{path} is damaged, or has no {', '.join(sorted(missing))}")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_FILE_BYTES:
        raise tarfile.ReadError(f"a header claims {member.size} bytes")
    file = archive.extractfile(member)
    content = file.read() if file is not None else b""
    if len(content) != member.size:
        raise tarfile.ReadError(f"{len(content)} of {member.size} bytes are there")
    return content


def _raise_if_of_the_disk(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno is not None:
        raise error


class Store(Protocol):
    """Many files under one root."""

    @property
    def path(self) -> Path:
        """The folder or archive."""
        ...

    def names(self) -> list[str]:
        """Return the path of each file inside the store, with /, sorted."""
        ...

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        ...

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        ...


def open_store(path: Path) -> Store:
    """Open a folder or an uncompressed ``.tar``.

    Raises
    ------
    ValueError
        If it is neither, or damaged. Files of a compressed archive can't be read one by one; the
        message says what to do instead.
    """
    return FolderStore(path) if path.is_dir() else TarStore(path)


class FolderStore:
    """The files under a folder, at any depth."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """Return the path of each file inside the folder, with /, sorted."""
        files = (entry for entry in self.path.rglob("*") if entry.is_file())
        return sorted(entry.relative_to(self.path).as_posix() for entry in files)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return (self.path / name).stat().st_size

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return (self.path / name).read_bytes()


class TarStore:
    """The files of an uncompressed tar archive; keeps their places, about 200 bytes a file.

    The archive is opened for each read, so that a store may be used in threads and forks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        last = "its beginning"
        with path.open("rb") as file:
            if file.read(6).startswith(COMPRESSED):
                raise ValueError(
                    f"{path} is compressed, so its files can't be read one by one; unpack it to a "
                    "folder or to a plain .tar first"
                )
        try:
            with tarfile.open(path, "r:") as archive:
                while (member := archive.next()) is not None:
                    last = member.name
                    if member.isfile():
                        self._places[member.name] = (member.offset_data, member.size)
                    # Or all headers stay in memory, some 200 MB for 200,000 files.
                    archive.members.clear()  # type: ignore[attr-defined]  # not in the stubs
                end = archive.offset
        except DAMAGE as error:
            _raise_if_of_the_disk(error)
            raise ValueError(
                f"{path} is no tar archive, damaged or cut off at {last} ({error})"
            ) from error
        # The standard library takes a damaged header for the end of the archive.
        with path.open("rb") as file:
            file.seek(end)
            if any(file.read(tarfile.BLOCKSIZE)):
                raise ValueError(f"{path} is damaged after {last}; fetch it again")

    def names(self) -> list[str]:
        """Return the path of each file inside the archive, with /, sorted."""
        return sorted(self._places)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self._places[name][1]

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        offset, size = self._places[name]
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
