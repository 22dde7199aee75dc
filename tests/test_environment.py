"""pyproject.toml, environments/constraints.txt and environment.yml say the same."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import (
    PackageNotFoundError,
    distribution,
    distributions,
    packages_distributions,
)
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SUPPORTED = [
    {
        "sys_platform": platform,
        "platform_system": platform.title(),
        "platform_machine": machine,
        "python_version": version,
        "python_full_version": f"{version}.0",
    }
    for platform, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
    for version in ("3.11", "3.12", "3.13")
]


def read_pins(text: str) -> dict[str, str]:
    """Return name -> version of ``name==version`` lines; anything else is an error."""
    pins: dict[str, str] = {}
    for line in text.splitlines():
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9A-Za-z.]*)", entry)
        assert match, f"{entry!r} is no plain pin"
        name = canonicalize_name(match[1])
        assert name not in pins, f"{name} is pinned twice"
        pins[name] = match[2]
    return pins


PINS = read_pins((ROOT / "environments" / "constraints.txt").read_text())


def closure(requirements: list[str], environment: dict[str, str]) -> set[str]:
    """Return the names that the requirements need, as far as what is installed tells."""
    done: dict[str, set[str]] = {}

    def walk(entries: list[str], extras: set[str]) -> None:
        for requirement in map(Requirement, entries):
            marker = requirement.marker
            if marker and not any(marker.evaluate({**environment, "extra": e}) for e in extras):
                continue
            name = canonicalize_name(requirement.name)
            new = {"", *requirement.extras} - done.get(name, set())
            if new:
                done.setdefault(name, set()).update(new)
                try:
                    walk(distribution(name).requires or [], new)
                except PackageNotFoundError:
                    continue  # of another platform, or of an extra that isn't installed

    walk(requirements, {""})
    return set(done)


def everything() -> list[str]:
    return PROJECT["dependencies"] + [entry for extra in EXTRAS.values() for entry in extra]


def required_here() -> list[str]:
    return PROJECT["dependencies"] + EXTRAS["test"]


def test_every_requirement_direct_or_not_is_pinned() -> None:
    for environment in SUPPORTED:
        needed = closure(everything(), {**default_environment(), **environment})
        assert not needed - PINS.keys(), environment


def test_every_pin_is_needed() -> None:
    installed = {canonicalize_name(entry.metadata["Name"]) for entry in distributions()}
    needed = set[str]()
    for environment in SUPPORTED:
        needed |= closure(everything(), {**default_environment(), **environment})
    assert not (PINS.keys() & installed) - needed


def test_what_is_installed_has_the_pinned_version() -> None:
    for name in closure(required_here(), default_environment()):
        # A build's label, such as +cpu, is not part of the version that is pinned.
        assert Version(distribution(name).version).public == PINS[name], name


def test_ranges_admit_the_pins() -> None:
    for requirement in map(Requirement, everything()):
        assert PINS[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_pins_run_on_the_oldest_python_that_the_project_admits() -> None:
    # Debian 12 has 3.11.2: a package that wants 3.11.5 can't be installed there.
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    for name in closure(everything(), default_environment()):
        try:
            wants = distribution(name).metadata["Requires-Python"]
        except PackageNotFoundError:
            continue  # of an extra that isn't installed
        assert oldest in SpecifierSet(wants or ""), f"{name} wants Python {wants}"


def test_conda_gives_the_same_packages_and_pins() -> None:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    conda = {entry.split("=")[0] for entry in entries if isinstance(entry, str)}
    assert conda == {"git", "make", "pip", "python"}, "packages come from one index, through pip"

    assert pip[0] == "--constraint environments/constraints.txt"
    assert pip[-1] == "--editable ."
    listed = {canonicalize_name(r.name): r for r in map(Requirement, pip[1:-1])}
    wanted = {canonicalize_name(r.name): r for r in map(Requirement, required_here())}
    assert listed.keys() == wanted.keys()
    for name, requirement in listed.items():
        assert requirement.specifier == SpecifierSet(f"=={PINS[name]}"), name
        assert requirement.marker == wanted[name].marker, name


def test_the_python_version_agrees() -> None:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (conda,) = [entry for entry in entries if str(entry).startswith("python=")]
    minimum = PROJECT["requires-python"].removeprefix(">=")
    assert conda == f"python={minimum}"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert settings["mypy"]["python_version"] == minimum
    assert settings["ruff"]["target-version"] == f"py{minimum.replace('.', '')}"
    asked = re.search(r"version_info < \((\d+), (\d+)\)", (ROOT / "Makefile").read_text())
    assert asked is not None
    assert ".".join(asked.groups()) == minimum


def imported_packages(folder: Path) -> set[str]:
    names = set[str]()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"workbench", "tests"}


@pytest.mark.parametrize("folder", ["workbench", "tests"])
def test_what_is_imported_is_declared(folder: str) -> None:
    entries = everything() if folder == "tests" else PROJECT["dependencies"]
    declared = {canonicalize_name(Requirement(entry).name) for entry in entries}
    owners = packages_distributions()
    undeclared = [
        name
        for name in imported_packages(ROOT / folder)
        # Packages of an extra that isn't installed can't be looked up; their name has to do.
        if not declared & {canonicalize_name(owner) for owner in owners.get(name, [name])}
    ]
    assert undeclared == []


def test_pip_check_is_clean() -> None:
    command = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout
