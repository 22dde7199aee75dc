"""The doctor: what can run here, and why not."""

from __future__ import annotations

import sys

import numpy as np
import psutil
import pytest

import workbench as wb
from workbench.federation import flower
from workbench.testbed import cleanup, core, linux, probe


@pytest.fixture(scope="module")
def found():
    return wb.doctor()


def test_it_tells_of_every_testbed(found):
    table = found.table()
    assert list(table.columns) == ["testbed", "runs", "detail", "remedy"]
    assert list(table["testbed"]) == [
        "SimulatedTestbed",
        "NamespaceTestbed",
        "NamespaceTestbed, delay and loss",
        "SuperLinkTestbed",
        "DockerTestbed",
        "CoreTestbed",
    ]
    assert found.runs("SimulatedTestbed")
    assert (table["detail"] != "").all()
    refused = table[~table["runs"]]
    assert (refused["remedy"] != "").all()
    for name in table["testbed"]:
        assert name in str(found)
        assert name in found._repr_html_()
    with pytest.raises(KeyError, match="no testbed 'MininetTestbed'"):
        found.runs("MininetTestbed")


def test_what_it_says_of_namespaces_is_true(found):
    if sys.platform != "linux":
        assert not found.runs("NamespaceTestbed")
        return
    fleet = wb.Fleet.from_label_counts(np.ones((2, 3), dtype=int))
    if found.runs("NamespaceTestbed"):
        with wb.NamespaceTestbed().up(fleet) as network:
            assert network.present().all()
    else:
        with pytest.raises(RuntimeError):
            wb.NamespaceTestbed().up(fleet)


def test_it_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # others may have testbeds, too
    before = processes_of_ours()
    wb.doctor()
    assert cleanup.folders() == []
    assert processes_of_ours() <= before


def processes_of_ours() -> set[tuple[int, str]]:
    """Return the testbeds' processes that are this one's children, or nobody's any more."""
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    named = {each.pid: each for each in psutil.process_iter(["ppid", "name"])}
    return {
        (number, each.info["name"])
        for number, each in named.items()
        if each.info["name"].startswith("wb-") and (number in children or each.info["ppid"] == 1)
    }


def test_reason_and_remedy_of_the_kernel_are_told(monkeypatch):
    reason = "it cannot be put up here: Operation not permitted; run as root"
    monkeypatch.setattr(probe, "why_no_namespaces", lambda **_: reason)
    found = {finding.testbed: finding for finding in wb.doctor().findings}
    for name in ("NamespaceTestbed", "NamespaceTestbed, delay and loss"):
        assert not found[name].runs
        assert found[name].detail == "it cannot be put up here: Operation not permitted"
        assert found[name].remedy == "run as root"


def test_reason_and_remedy_of_containers_and_core_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(linux, "may_administer", lambda: True)
    monkeypatch.setattr(probe, "why_no_namespaces", lambda **_: "")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setattr(core.why_not, "__defaults__", ("localhost:1",))
    found = {finding.testbed: finding for finding in wb.doctor().findings}
    docker = found["DockerTestbed"]
    assert not docker.runs
    assert docker.detail.startswith("no Docker engine answers: ")
    assert docker.remedy.startswith("start it (systemctl start docker, or dockerd), or name it in")
    there = found["CoreTestbed"]
    assert not there.runs
    assert there.detail.startswith("the core-daemon at localhost:1 does not answer")
    assert there.remedy.startswith("start it (systemctl start core-daemon), or give its address")


def test_a_flower_that_is_not_known_is_told(monkeypatch):
    monkeypatch.setattr(probe, "why_no_namespaces", lambda **_: "")
    monkeypatch.setattr(flower, "version", lambda _: "1.43.0")
    found = {finding.testbed: finding for finding in wb.doctor().findings}
    for name in ("NamespaceTestbed", "SuperLinkTestbed"):
        assert not found[name].runs
        assert "flwr 1.43.0 is installed" in found[name].detail
        assert "pip install" in found[name].remedy


def test_a_fleet_that_is_too_much_is_told():
    ones = np.ones((4, 3), dtype=int)
    fast = wb.Fleet.from_label_counts(ones, rate_bps=np.full(4, 400e6))
    slow = fast.with_rates(np.full(4, 10e6))
    assert "1.6 Gbit/s, but one SuperLink carries about 0.8" in wb.doctor(fast).machine[-1]
    assert "0.04 Gbit/s, which one SuperLink carries" in wb.doctor(slow).machine[-1]
