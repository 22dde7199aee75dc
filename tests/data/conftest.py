"""Small archives, good and bad."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def make_tar():
    """Return a function that writes a tar of (name, content) pairs; None makes a folder."""

    def make_tar(path: Path, files, mode: str = "w") -> Path:
        with tarfile.open(path, mode) as archive:
            for name, content in files:
                member = tarfile.TarInfo(name)
                if content is None:
                    member.type = tarfile.DIRTYPE
                    archive.addfile(member)
                else:
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        return path

    return make_tar


@pytest.fixture(autouse=True)
def no_data_of_this_machine(monkeypatch, tmp_path_factory):
    """Keep what lies on this machine out of the tests: they name their data."""
    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
