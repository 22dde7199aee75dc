"""A search over containers: it ends as on any testbed, also when a client uses too much memory."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.federation.client import Clients
from workbench.federation.dispatch import RoundLimits
from workbench.federation.strategies import FedAvg
from workbench.pruning.netadapt import NetAdapt
from workbench.search.policies import SearchPolicy
from workbench.search.run import Run
from workbench.testbed import docker
from workbench.testbed.schedules import ConstantSchedule
from workbench.testbed.simulated import SimulatedTestbed

from .small import fleet

pytestmark = pytest.mark.docker

CLIENTS = 4
GREEDY = 2

HOG = """
from workbench.federation import client, training
train = training.train

def greedy(*arguments):
    wasted = bytearray(2_000_000_000)
    return train(*arguments)

def make(folder):
    training.train = greedy
    return client.unpack(folder)
"""


@pytest.fixture
def settings(missing):
    if reason := docker.why_not():
        missing("docker", reason)
    return {
        "fleet": fleet(CLIENTS).with_rates(np.full(CLIENTS, 50e6)),
        "training": FedAvg(rounds=1, local_epochs=1, batch_size=6),
        "limits": RoundLimits(deadline_s=60),
        "netadapt": NetAdapt(
            step=0.1, budget=0.4, iterations=1, conv_multiple=1, linear_multiple=1
        ),
        "policy": SearchPolicy(pretrain_rounds=1),
    }


def containers(**options) -> docker.DockerTestbed:
    return docker.DockerTestbed(schedule=ConstantSchedule(), **options)


def test_containers_learn_what_a_simulation_learns(search, settings, tmp_path):
    runs = [
        search(**settings, testbed=testbed).run(tmp_path / name, progress=False)
        for name, testbed in (("docker", containers(memory="2g")), ("here", SimulatedTestbed()))
    ]
    assert all(run.finished for run in runs)
    assert runs[0].failures().empty
    columns = ["iteration", "block", "macs", "size_bytes", "accuracy"]
    real, simulated = (run.frontier()[columns] for run in runs)
    assert real["accuracy"].notna().any()
    for name in columns:
        np.testing.assert_array_equal(real[name], simulated[name])


def test_a_client_over_its_memory_is_named_and_the_search_goes_on(
    search, settings, tmp_path, monkeypatch
):
    pack = Clients.pack

    def pack_greed(self, client, folder):
        made = pack(self, client, folder)
        if client != GREEDY:
            return made
        (folder / "hog.py").write_text(HOG)
        return "hog:make"

    monkeypatch.setattr(Clients, "pack", pack_greed)
    run = search(**settings, testbed=containers(memory="700m")).run(tmp_path, progress=False)
    assert run.finished
    failures = Run(tmp_path).failures()
    assert set(failures["client"]) == {GREEDY}
    assert failures["reason"].iloc[0] == (
        f"the process of client-{GREEDY} was killed for using more than its limit of 700m of memory"
    )
    assert (run.rounds()["replies"] == CLIENTS - 1).all()
