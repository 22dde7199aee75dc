"""The compose file, the devcontainer and the images: nobody else gets in, nothing gets too much."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / "environments"


@pytest.fixture(scope="module")
def lab() -> dict:
    return yaml.safe_load((ENVIRONMENTS / "compose.yaml").read_text())["services"]["lab"]


def test_jupyterlab_is_bound_to_this_machine_and_wants_a_token(lab: dict) -> None:
    assert lab["ports"] == ["127.0.0.1:${PORT:-8888}:8888"]
    assert lab["environment"]["JUPYTER_TOKEN"].startswith("${JUPYTER_TOKEN:?")
    assert "token" not in lab["command"], "it would stand in the list of processes"
    assert "network_mode" not in lab


def test_jupyterlab_is_not_privileged(lab: dict) -> None:
    assert not lab.get("privileged")
    assert lab["cap_drop"] == ["ALL"]
    assert {"SYS_MODULE", "SYS_RAWIO", "SYS_BOOT"}.isdisjoint(lab["cap_add"])


def test_folders_have_the_same_name_inside_and_outside(lab: dict) -> None:
    same = [each.split(":")[:2] for each in lab["volumes"] if "/var/run/docker.sock" not in each]
    assert all(here == there for here, there in same)
    assert lab["environment"]["TMPDIR"] in {here for here, _ in same}
    assert lab["environment"]["PYTHONPATH"] == lab["working_dir"] == "${PWD}"


def test_the_devcontainer_is_built_from_what_is_there() -> None:
    path = ROOT / ".devcontainer" / "devcontainer.json"
    text = "\n".join(
        line for line in path.read_text().splitlines() if not line.strip().startswith("//")
    )
    made = json.loads(text)
    assert (path.parent / made["build"]["dockerfile"]).resolve().is_file()
    assert (path.parent / made["build"]["context"]).resolve() == ROOT
    assert (ROOT / made["customizations"]["codespaces"]["openFiles"][0]).is_file()
    assert "runArgs" not in made, "the simulated testbed needs no rights"


@pytest.mark.parametrize("name", ["client.Dockerfile", "notebook.Dockerfile"])
def test_bases_are_arguments_and_what_is_copied_is_there(name: str) -> None:
    text = (ENVIRONMENTS / name).read_text()
    assert re.search(r"^ARG BASE=\S+$", text, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE)[-1] == "${BASE}"
    if name == "notebook.Dockerfile":
        for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
            for copied in line.split():
                assert (ROOT / copied).exists(), copied


def test_cores_containers_get_what_the_docker_testbeds_get() -> None:
    made = yaml.safe_load(
        re.sub(r"[@$]\{([^}]*)\}", "1", (ENVIRONMENTS / "core-client.compose.yaml").read_text())
    )["services"]["client"]
    assert "privileged" not in made
    assert made["cap_drop"] == ["ALL"]
    assert made["read_only"] is True
    assert made["network_mode"] == "none"
    assert made["security_opt"] == ["no-new-privileges:true"]
    assert made["user"] == "10001:10001"
    assert all(volume.endswith(":ro") for volume in made["volumes"])
    assert not any("docker.sock" in volume for volume in made["volumes"])
