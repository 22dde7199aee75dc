"""The Docker testbed: what containers may do, what limits them, and that none is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workbench.testbed import cleanup, containers, docker, image, linux
from workbench.testbed.containers import clean_containers
from workbench.testbed.docker import DockerTestbed
from workbench.testbed.schedules import ConstantSchedule

NEEDS_DOCKER = pytest.mark.docker


@pytest.fixture(scope="module")
def here(missing):
    """Return what makes a Docker testbed, where there is an engine."""
    if reason := docker.why_not():
        missing("docker", reason)
    return DockerTestbed


@pytest.fixture(scope="module")
def net(here, fleet_of):
    """Return two containers that may use little."""
    testbed = here(cpus=0.5, memory="96m", schedule=ConstantSchedule())
    with testbed.up(fleet_of([50e6, 50e6])) as network:
        yield network


@pytest.fixture
def run_in(net, wait_until):
    """Return a function that runs Python in client-0's container: (what it says, how it ends)."""

    def run(code: str):
        heard = []
        log = net.inside.folder / "clients.log"
        log.unlink(missing_ok=True)
        programs = net.inside.run_clients(
            ["python3", "-c", code],
            lambda row: {"hello": row},
            2,
            lambda _, said: heard.append(said),
        )
        programs.start([0])
        wait_until(lambda: any("ended" in said for said in heard), 60)
        programs.close()
        said = [each for each in heard if not each.keys() & {"process", "ended"}]
        return said, next(each for each in heard if "ended" in each)

    return run


# ---------------------------------------------------------------------- what they may do

LOOK = """
import json, os, pathlib, socket, sys
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines()
              if ":\\t" in line)
def tries(work):
    try:
        work()
    except OSError as error:
        return error.strerror
    return "allowed"
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(), "groups": os.getgroups(),
    "capabilities": [status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh")],
    "new_privileges": status["NoNewPrivs"], "seccomp": status["Seccomp"],
    "root": tries(lambda: open("/new", "w")), "code": tries(lambda: open(
        "/opt/workbench/workbench/new.py", "w")), "share": tries(lambda: open("/share/x", "w")),
    "temporary": tries(lambda: open("/tmp/x", "w")),
    "raw": tries(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "become_root": tries(lambda: os.setuid(0)),
    "sockets": [str(path) for place in ("/run", "/var/run") for path in
                pathlib.Path(place).rglob("*.sock")],
    "interfaces": sorted(name for _, name in socket.if_nameindex()),
    "routes": len(open("/proc/net/route").read().splitlines()) - 1,
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "python": sys.version_info[:2],
    "outside": tries(lambda: socket.create_connection(("192.0.2.1", 80), 2)),
}))
"""


@NEEDS_DOCKER
def test_a_container_has_no_rights_and_no_way_out(run_in):
    (found,), ended = run_in(LOOK)
    assert ended == {"ended": 0}
    assert (found["user"], found["group"]) == (10001, 10001)
    assert set(found["groups"]) <= {10001}
    assert {int(each, 16) for each in found["capabilities"]} == {0}
    assert (found["new_privileges"], found["seccomp"]) == ("1", "2")
    for place in ("root", "code", "share"):
        assert found[place] == "Read-only file system", place
    assert found["temporary"] == "allowed"
    assert found["raw"] == found["become_root"] == "Operation not permitted"
    assert found["sockets"] == []
    # A link and a route to the others on it, nothing else; names differ by kernel (tunl0, sit0).
    assert {"lo", "link"} <= set(found["interfaces"])
    assert not any(name.startswith("eth") for name in found["interfaces"])
    assert found["routes"] == 1
    assert found["outside"] == "Network is unreachable"
    assert found["processes"] <= 4
    assert tuple(found["python"]) == sys.version_info[:2]


@NEEDS_DOCKER
def test_the_engine_was_asked_for_no_privilege(net):
    for row in range(2):
        seen = net.inside.containers.engine.api.inspect_container(net.inside.containers.name(row))
        host = seen["HostConfig"]
        assert host["Privileged"] is False
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["ReadonlyRootfs"] is True
        assert host["NetworkMode"] == "none"
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert host["Memory"] == host["MemorySwap"] == 96 * 2**20
        assert (host["CpuQuota"], host["CpuPeriod"]) == (50_000, 100_000)
        assert not any(mount["RW"] for mount in seen["Mounts"])
        assert not any("docker" in mount["Source"] for mount in seen["Mounts"])
        assert seen["Config"]["User"] == "10001:10001"


@NEEDS_DOCKER
def test_a_client_sees_its_own_share_and_nobody_elses(net, run_in):
    for row in range(2):
        (net.inside.share(row) / "mine").write_text(f"share of {row}")
    (said,), _ = run_in(
        "import json, os; print(json.dumps({'files': os.listdir('/share'), "
        "'mine': open('/share/mine').read()}))"
    )
    assert said == {"files": ["mine"], "mine": "share of 0"}


# ---------------------------------------------------------------------- limits


@NEEDS_DOCKER
def test_a_client_over_its_memory_is_killed_and_named(run_in):
    (said,), ended = run_in(
        "import json; print(json.dumps({'begins': 1}), flush=True); x = bytearray(200_000_000)"
    )
    assert said == {"begins": 1}
    assert ended["ended"] == -9
    assert ended["reason"] == "was killed for using more than its limit of 96m of memory"
    # The container is still there, and a second program in it is not blamed for the first.
    _, ended = run_in("import os; os.kill(os.getpid(), 9)")
    assert ended == {"ended": -9}


@NEEDS_DOCKER
def test_a_client_gets_its_share_of_the_cpu(run_in):
    (said,), _ = run_in(
        "import json, time\n"
        "begin, used = time.monotonic(), time.process_time()\n"
        "while time.monotonic() < begin + 2: pass\n"
        "print(json.dumps({'cpu': (time.process_time() - used) / 2}))"
    )
    assert said["cpu"] < 0.6


@NEEDS_DOCKER
def test_more_cpus_than_the_machine_has_are_no_error(here, fleet_of):
    with here(cpus=64, memory="64m").up(fleet_of([1e6])) as net:
        assert net.present().all()


@NEEDS_DOCKER
def test_what_a_program_prints_is_in_the_log(net, run_in):
    said, ended = run_in("import sys; print('no json'); sys.exit('the reason')")
    assert said == []
    assert ended["ended"] == 1
    # They come as two streams, whose order the engine does not keep.
    lines = (net.inside.folder / "clients.log").read_text().splitlines()
    assert sorted(lines) == ["no json", "the reason"]


@NEEDS_DOCKER
def test_a_program_that_is_not_there_is_told(net, wait_until):
    heard = []
    programs = net.inside.run_clients(
        ["no-such-program"], lambda _: {}, 2, lambda row, said: heard.append((row, said))
    )
    programs.start([1])
    wait_until(lambda: any("ended" in said for _, said in heard))
    programs.close()
    row, said = heard[-1]
    assert row == 1
    assert said["ended"] != 0


# ---------------------------------------------------------------------- up and down


@NEEDS_DOCKER
def test_eight_containers_come_up_and_talk(here, fleet_of, connected):
    testbed = here(memory="64m", schedule=ConstantSchedule())
    with testbed.up(fleet_of(np.full(8, 20e6))) as net:
        with connected(net, 7) as (near, far):
            near.send(b"hello")
            assert far.recv(10) == b"hello"
        names = [net.inside.containers.name(row) for row in range(8)]
        engine = net.inside.containers.engine
        assert set(names) <= {each.name for each in engine.containers.list(ignore_removed=True)}


@NEEDS_DOCKER
def test_a_container_that_does_not_start_takes_the_others_with_it(
    here, fleet_of, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"a client's container does not start: .*memory"):
        here(memory="1m").up(fleet_of([1e6, 1e6]))  # the engine wants 6m at least
    assert cleanup.folders() == []


@NEEDS_DOCKER
def test_a_container_that_somebody_killed_is_told_and_can_be_replaced(
    here, fleet_of, clients_of, wait_until, connected
):
    heard = []
    testbed = here(memory="64m", schedule=ConstantSchedule())
    with testbed.up(fleet_of([20e6, 20e6])) as net:
        clients_of(net, lambda *said: heard.append(said))
        wait_until(lambda: sum("ready" in said for _, said in heard) == 2)
        parts = net.inside.containers
        parts.engine.api.kill(parts.name(1))
        wait_until(lambda: any(row == 1 and "ended" in said for row, said in heard))
        net.remove(1)
        net.add(1)
        with connected(net, 1) as (near, far):
            near.send(b"new")
            assert far.recv(10) == b"new"


@NEEDS_DOCKER
def test_cleanup_removes_containers_of_the_dead_and_only_those(net):
    engine = net.inside.containers.engine
    ghost = engine.containers.create(
        image.IMAGE,
        name="wb-ghost-0",
        labels={"workbench.testbed": "wb-x", "workbench.owner": "1:1"},
    )
    foreign = engine.containers.create(image.IMAGE, name="somebodys-own")
    try:
        outcomes = {each.folder: each.outcome for each in clean_containers()}
        left = {each.name for each in engine.containers.list(all=True, ignore_removed=True)}
        assert outcomes["container wb-ghost-0"] == "removed"
        mine = net.inside.containers.name(0)
        assert outcomes[f"container {mine}"] == f"left alone: process {os.getpid()} uses it"
        assert "container somebodys-own" not in outcomes
        assert {mine, "somebodys-own"} <= left
        assert "wb-ghost-0" not in left
    finally:
        foreign.remove(force=True)
        for each in engine.containers.list(all=True, filters={"name": "wb-ghost-0"}):
            each.remove(force=True)
    assert ghost.name == "wb-ghost-0"


# ---------------------------------------------------------------------- refused, with a reason


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpus": 0},
        {"memory": "much"},
        {"memory": "0g"},
        {"image": ""},
        {"loss": 2},
        {"privileged": 1},
    ],
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DockerTestbed(**wrong)


def test_without_an_engine_the_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(RuntimeError, match=r"no Docker engine answers: .*docker\.sock.*start it"):
        image.connect()
    assert "start it" in containers.why_not(image.IMAGE)
    assert clean_containers() == []


@NEEDS_DOCKER
def test_without_an_image_the_reason_is_told(here, fleet_of, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match="no image 'nobodys'; build it with make image"):
        here(image="nobodys").up(fleet_of([1e6]))
    assert cleanup.folders() == []


def test_without_root_the_reason_is_told(monkeypatch, fleet_of):
    monkeypatch.setattr(linux, "may_administer", lambda: False)
    with pytest.raises(RuntimeError, match="takes root; run the notebook as root"):
        DockerTestbed().up(fleet_of([1e6]))


def test_a_process_of_another_machine_is_not_taken_for_a_container():
    assert not containers._is_of(os.getpid(), "0" * 64)
    assert not containers._is_of(2**22 + 1, "0" * 64)


# ---------------------------------------------------------------------- the image


def test_the_image_holds_what_a_node_imports():
    """Import what a node does as a container does, and compare with the list of the image."""
    folder = Path(__file__).resolve().parents[2]
    code = (
        "import json, sys, types\n"
        "package = types.ModuleType('workbench'); package.__path__ = ['workbench']\n"
        "sys.modules['workbench'] = package\n"
        "import workbench.federation.client, workbench.federation.light_node\n"
        "import workbench.federation.share\n"
        "print(json.dumps([m.__file__ for n, m in sys.modules.items()"
        " if n.startswith('workbench.')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    lines = (folder / "environments" / "client-requirements.txt").read_text().splitlines()
    listed = {line.strip().replace("-", "_") for line in lines if not line.startswith("#")}
    imported = set()
    for path in json.loads(done.stdout):
        for line in Path(path).read_text().splitlines():
            words = line.split()
            # Only what is imported when the module is, not what a function or a checker wants.
            if len(words) > 1 and words[0] in {"import", "from"} and line[0] in "if":
                imported.add(words[1].rstrip(",").partition(".")[0])
    outside = imported - set(sys.stdlib_module_names) - {"workbench"}
    assert outside <= listed, outside - listed
    assert listed - outside <= {"cryptography"}  # loaded by the node itself
