"""``make`` says in one line what a machine lacks, and how to get it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("make", "sh", "awk", "echo", "id", "paste", "sed", "sort")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder with what make reads, and ``bin`` with the tools that every machine has."""
    folder = tmp_path / "clone"
    (folder / "environments").mkdir(parents=True)
    (folder / "bin").mkdir()
    for name in ("Makefile", "pyproject.toml", "environments/constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, f"{tool} is needed to test the Makefile"
        (folder / "bin" / tool).symlink_to(found)
    return folder


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(clone / "bin"), "HOME": os.environ.get("HOME", "/")}
    command = [str(clone / "bin" / "make"), *arguments]
    return subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_help_is_the_default_and_names_every_target(clone: Path) -> None:
    result = make(clone)
    assert result.returncode == 0
    for target in ("help", "run", "lab", "test", "check", "bench"):
        assert f"\n  {target} " in result.stdout
    assert not (clone / ".venv").exists()


def test_missing_git_is_said(clone: Path) -> None:
    line = complaint(make(clone, "run"))
    assert line.startswith("git is missing: install it")


def test_a_missing_old_or_broken_python_is_said(clone: Path) -> None:
    program(clone / "bin" / "git", "exit 0")
    assert "Python 3.11 or newer is missing (found: none)" in complaint(make(clone, "run"))

    program(clone / "bin" / "python3", '[ "$1" = --version ] && echo Python 3.9.2; exit 1')
    program(clone / "bin" / "python3.13", "echo no such version >&2; exit 127")
    assert "is missing (found: Python 3.9.2): install it" in complaint(make(clone, "test"))

    line = complaint(make(clone, "run", "PYTHON=/nowhere/python3"))
    assert line.endswith("name it with PYTHON=/path/to/python3")


def test_a_python_without_venv_is_said(clone: Path) -> None:
    program(clone / "bin" / "git", "exit 0")
    program(clone / "bin" / "python3", 'case "$2" in *ensurepip*) exit 1;; esac')
    assert complaint(make(clone, "run")).startswith("python3 has no venv module: install it")


def test_it_installs_once_and_again_when_the_pins_change(clone: Path) -> None:
    program(clone / "bin" / "git", "exit 0")
    log = clone / "log"
    fake = clone / "bin" / "python3.12"
    for tool in ("cp", "mkdir", "touch"):
        (clone / "bin" / tool).symlink_to(shutil.which(tool))
    program(
        fake,
        f'echo "$@" >> {log}\n'
        'case "$*" in *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python;; esac',
    )

    def installs() -> int:
        return log.read_text().count("pip --disable-pip-version-check install")

    assert make(clone, "run").returncode == 0
    assert installs() == 1
    assert "run-notebook notebooks/00_quickstart.ipynb" in log.read_text()
    assert make(clone, "run", "test").returncode == 0
    assert installs() == 1
    later = (clone / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(clone / "environments" / "constraints.txt", (later, later))
    assert make(clone, "test").returncode == 0
    assert installs() == 2
    assert log.read_text().count("-m venv") == 1, "the environment itself is kept"
