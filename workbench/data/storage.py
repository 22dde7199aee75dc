"""Where data files lie, and how a missing one is fetched."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHUNK_BYTES = 1 << 20


def cache_folder() -> Path:
    """Return the folder for downloads: ``WORKBENCH_CACHE``, else the user's cache folder."""
    named = os.environ.get("WORKBENCH_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("federated-nas-workbench"))


def search_folders(root: str | Path | None) -> list[Path]:
    """Return where files are looked for: ``root`` alone, else ``WORKBENCH_DATA`` and the cache.

    Raises
    ------
    FileNotFoundError
        If ``root`` is given and does not exist.
    """
    if root is not None:
        path = Path(root)
        if not path.exists():
            raise FileNotFoundError(f"root {path} does not exist")
        return [path]
    named = os.environ.get("WORKBENCH_DATA")
    return [*([Path(named)] if named else []), cache_folder()]


def find(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Return the first file or folder of one of these names in one of the folders."""
    for folder in folders:
        for name in names:
            if (folder / name).exists():
                return folder / name
    return None


def download(url: str, target: Path, *, md5: str) -> Path:
    """Fetch ``url`` into ``target`` with a progress bar; the target appears only when complete.

    Raises
    ------
    OSError
        If the address cannot be reached, or the folder cannot be written.
    ValueError
        If what came is not the expected file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    descriptor, partial = tempfile.mkstemp(prefix=target.name, suffix=".part", dir=target.parent)
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            urllib.request.urlopen(url, timeout=60) as reply,  # noqa: S310  # a constant of ours
            tqdm(
                desc=f"Download {target.name}",
                total=int(reply.headers.get("Content-Length", 0)) or None,
                unit="B",
                unit_scale=True,
            ) as progress,
        ):
            while chunk := reply.read(_CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                progress.update(len(chunk))
        if digest.hexdigest() != md5:
            raise ValueError(
                f"{url} gave a file with MD5 {digest.hexdigest()}, but {md5} is expected; "
                "it came incomplete or was changed, try again"
            )
        Path(partial).replace(target)
    except urllib.error.URLError as error:
        raise OSError(
            f"{url} cannot be reached ({error.reason}); download it elsewhere, and name its "
            "folder in root or in the environment variable WORKBENCH_DATA"
        ) from error
    finally:
        Path(partial).unlink(missing_ok=True)
    return target
