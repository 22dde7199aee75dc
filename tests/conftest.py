"""What all tests share: the data, small fleets, and the rule for what a machine lacks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

from workbench.data.datasets import Dataset, load_dataset
from workbench.fleet import Fleet
from workbench.testbed.base import Testbed
from workbench.testbed.namespaces import NamespaceTestbed
from workbench.testbed.schedules import ConstantSchedule

# Shared machines stall now and then: no example fails for being slow.
settings.register_profile("workbench", deadline=None)
settings.load_profile("workbench")

Missing = Callable[[str, str], NoReturn]

LIVE = ("namespaces", "docker", "core")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what may run side by side where pytest is told to (``-n 3 --dist loadgroup``).

    Live tests measure links and look at what is left on the host, so they run one after the other.
    They mostly wait, which leaves the processor to the others; searches on live testbeds measure
    nothing and run beside them. All other tests stay with those of their file, for what these
    share; notebooks share nothing.
    """
    for item in items:
        file = item.nodeid.partition("::")[0]
        live = [kind for kind in LIVE if item.get_closest_marker(kind)]
        if live and (live == ["core"] or not file.startswith("tests/search/")):
            item.add_marker(pytest.mark.xdist_group("live"))
        elif live:
            item.add_marker(pytest.mark.xdist_group("live searches"))
        elif not item.name.startswith("test_notebook_runs"):
            item.add_marker(pytest.mark.xdist_group(file))


@pytest.fixture(scope="session")
def missing() -> Missing:
    """Skip a test for what the machine lacks: ``missing("namespaces", "not root")``.

    A machine that is meant to have it names it in WORKBENCH_REQUIRE, a list with commas; there
    the test fails instead of being skipped.
    """

    def skip_or_fail(name: str, reason: str) -> NoReturn:
        required = [entry.strip() for entry in os.environ.get("WORKBENCH_REQUIRE", "").split(",")]
        if name in required:
            pytest.fail(f"{name} is missing though WORKBENCH_REQUIRE names it: {reason}")
        pytest.skip(f"{name} is missing: {reason}")

    return skip_or_fail


@pytest.fixture(scope="session")
def workbench_data(missing: Missing) -> Path:
    """Return the folder with the real data sets."""
    named = os.environ.get("WORKBENCH_DATA")
    if not named or not Path(named).is_dir():
        missing("data", f"WORKBENCH_DATA is {named!r}, not a folder with the data sets")
    return Path(named)


@pytest.fixture
def chromium(missing: Missing) -> Iterator[Browser]:
    """Return a headless Chromium; tests make their own contexts in it.

    Not shared between tests: while it is up, this thread has a running event loop.
    """
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("browser", "there is no chromium on the path")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        arguments += ["--disable-background-networking", "--disable-component-update"]
        yield playwright.chromium.launch(executable_path=path, args=arguments)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """Return the 1,797 digits."""
    return load_dataset("digits")


@pytest.fixture(scope="session")
def cifar10(workbench_data: Path) -> Dataset:
    """Return the 60,000 images of CIFAR-10, read once for all tests: that takes some seconds."""
    return load_dataset("cifar10", root=workbench_data)


@pytest.fixture(scope="session")
def small_fleet(digits: Dataset) -> Fleet:
    """Return 14 clients on the digits, one of each tier of the paper."""
    return Fleet.dirichlet(digits, clients=14, alpha=0.3, seed=7)


@pytest.fixture(scope="session")
def counted_fleet() -> Fleet:
    """Return 28 clients with label counts and links, but no samples."""
    counts = np.random.default_rng(3).integers(0, 40, size=(28, 10))
    return Fleet.from_label_counts(counts, seed=3)


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(kind, marks=getattr(pytest.mark, kind))
        for kind in ("namespaces", "docker", "core")
    ],
)
def live_testbed(request: pytest.FixtureRequest, missing: Missing) -> Callable[..., Testbed]:
    """Return what makes a live testbed, of each kind in turn; links are constant unless told."""
    from workbench.testbed import core, docker, probe

    kind: str = request.param
    address = os.environ.get("WORKBENCH_CORE", "")

    def why_no_core() -> str:
        return core.why_not(address) if address else "WORKBENCH_CORE names no core-daemon"

    why_not, testbed, own = {
        "namespaces": (probe.why_no_namespaces, NamespaceTestbed, {}),
        "docker": (docker.why_not, docker.DockerTestbed, {"memory": "1g"}),
        "core": (why_no_core, core.CoreTestbed, {"address": address or core.ADDRESS}),
    }[kind]
    if reason := why_not():
        missing(kind, reason)
    return lambda **options: testbed(**({"schedule": ConstantSchedule()} | own | options))


@pytest.fixture(scope="session")
def live_machine(missing: Missing) -> None:
    """Ask for a machine on which a namespace testbed can be put up."""
    from workbench.testbed import probe

    if reason := probe.why_no_namespaces():
        missing("namespaces", reason)
