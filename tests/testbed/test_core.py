"""The CORE testbed on a daemon that is played, which makes real nodes, and then lets us down."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.federation.live_app import make_app
from tests.search.small import fleet as small_fleet
from tests.search.small import small_search
from workbench import forking
from workbench.__main__ import main
from workbench.federation.dispatch import RoundLimits
from workbench.federation.engines import live_engine
from workbench.federation.live_grid import SuperLinkLostError
from workbench.federation.strategies import FedAvg
from workbench.fleet import Fleet
from workbench.pruning.netadapt import NetAdapt
from workbench.scenario import Scenario
from workbench.search.policies import SearchPolicy
from workbench.search.run import Run
from workbench.testbed import containers, core, core_enclosure, core_remains, linux
from workbench.testbed.core import CoreTestbed
from workbench.testbed.core_client import CoreLostError
from workbench.testbed.core_remains import Record
from workbench.testbed.enclosure import NetworkLostError
from workbench.testbed.image import IMAGE
from workbench.testbed.schedules import ConstantSchedule
from workbench.testbed.simulated import SimulatedTestbed

from .played_core import PlayedCore, deleted, edited, run

pytestmark = pytest.mark.namespaces


@pytest.fixture(scope="module", autouse=True)
def machine(missing):
    """Ask for a machine on which nodes can be made as CORE makes them."""
    if reason := forking.why_no_grpc():
        missing("namespaces", reason)
    tools = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if not linux.may_administer() or tools:
        missing("namespaces", f"not root, or without {tools}")
    if core_enclosure.FIREWALL.exists() and shutil.which("iptables"):
        command = ["iptables", "-S", "FORWARD"]
        rules = subprocess.run(command, capture_output=True, text=True, check=False)
        if "-P FORWARD DROP" in rules.stdout:
            missing("namespaces", "this machine's firewall drops frames on bridges")


@pytest.fixture
def play(tmp_path):
    """Return a function that starts a daemon; what it has left is removed."""
    played = []

    def start(port=0):
        folder = tmp_path / f"daemon-{len(played)}"
        folder.mkdir()
        played.append(PlayedCore(folder, nodes=True, port=port))
        return played[-1]

    yield start
    for each in played:
        each.close()
    assert [interfaces(each) for each in played] == [set()] * len(played)


def interfaces(daemon) -> set[str]:
    """Return what there is of all sessions of a daemon, known to it or not."""
    names = {name for _, name in socket.if_nameindex()}
    return {name for name in names if core_remains.session_of(name) in daemon.numbers}


def core_on(daemon, **settings):
    return CoreTestbed(daemon.address, schedule=ConstantSchedule(), **settings)


def talks(net, connected, client):
    with connected(net, client) as (near, far):
        near.send(b"hello")
        return far.recv(10) == b"hello"


# ---------------------------------------------------------------------- while all is well


def test_a_session_comes_up_does_what_a_testbed_does_and_goes(
    play, fleet_of, connected, wait_until
):
    daemon = play()
    with core_on(daemon, shaping="buckets").up(fleet_of([20e6, 8e6, 5e6])) as net:
        (number,) = daemon.numbers
        end = f".{number:x}"
        assert net.shaping == "token buckets: token buckets were asked for"
        assert talks(net, connected, 1)
        net.set_rate(1, 2e6, "up")
        assert net.rates_bps("up").tolist() == [20e6, 2e6, 5e6]
        ports = {f"veth1.{port}{end}" for port in (2, 3, 4, 5)}
        assert interfaces(daemon) == {f"b.1{end}", *ports}
        assert "rate 8Mbit" in queue_of(f"veth1.4{end}")
        net.remove(1)
        wait_until(lambda: f"veth1.4{end}" not in interfaces(daemon))
        net.add(1)
        assert talks(net, connected, 1)
        assert "rate 8Mbit" in queue_of(f"veth1.6{end}")
        assert net.rates_bps("up").tolist() == [20e6, 2e6, 5e6]
    assert daemon.sessions == {}
    wait_until(lambda: interfaces(daemon) == set())
    assert not any(record.mark == net.inside.mark for record in records())


def queue_of(interface):
    command = ["tc", "qdisc", "show", "dev", interface]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def records() -> list[Record]:
    folders = Path(core_remains.tempfile.gettempdir()).glob(f"{core_remains.PREFIX}*")
    return [record for folder in folders if (record := core_remains.read_record(folder))]


def test_nodes_answer_messages_over_the_servers_node(play, fleet_of):
    testbed = core_on(play(), shaping="buckets")
    with (
        testbed.up(fleet_of([50e6, 50e6])) as net,
        live_engine(
            net, make_app(), [{"partition-id": row, "clients": 2} for row in range(2)]
        ) as live,
    ):
        assert live.alive.all()
        assert sorted(live.grid.get_node_ids()) == sorted(live.node_ids)


def test_what_is_done_in_core_gui_is_done_to_the_network(play, fleet_of, wait_until):
    daemon = play()
    with core_on(daemon, shaping="buckets").up(fleet_of([20e6, 20e6, 20e6])) as net:
        wait_until(lambda: daemon._listeners)
        (session,) = daemon.sessions.values()
        link = next(each for each in session.links if each.node1_id == 4)
        daemon.tell(**edited(link, bandwidth=3_000_000))
        wait_until(lambda: net.rates_bps()[1] == 3e6)
        daemon.tell(**edited(link, loss=100))
        wait_until(lambda: net.rates_bps()[1] == 0)
        daemon.tell(**deleted(5))
        wait_until(lambda: net.present().tolist() == [True, True, False])


def test_a_scenario_is_put_up_as_it_is(play, tmp_path):
    fleet = Fleet.from_label_counts(np.ones((2, 4), dtype=int), seed=1)
    path = Scenario.of(fleet).write(tmp_path / "x.xml")
    path.write_text(path.read_text().replace("198.18.", "10.77."))
    daemon = play()
    opened = CoreTestbed.open(path, address=daemon.address, shaping="buckets")
    with opened.up(Fleet.from_scenario(path)) as net:
        assert net.inside.address() == "10.77.0.1"
        names = {node.name for node in next(iter(daemon.sessions.values())).nodes}
        assert {node.name for node in Scenario.read(path).topology.nodes} == names


# ---------------------------------------------------------------------- refused, with a reason


def test_no_daemon_is_a_clear_error(play, fleet_of):
    daemon = play()
    daemon.crash()
    with pytest.raises(CoreLostError, match=rf"{daemon.address} does not answer.*start it"):
        core_on(daemon).up(fleet_of([1e6]))


def test_a_daemon_on_another_machine_is_a_clear_error(play, fleet_of):
    daemon = play()

    def elsewhere(request, _):
        answer = daemon.do_create_session(request, None)
        answer.session.dir = "/nowhere/pycore.1"
        return answer

    daemon.faults["CreateSession"] = elsewhere
    with pytest.raises(RuntimeError, match=r"runs on another machine.*run the notebook beside it"):
        core_on(daemon).up(fleet_of([1e6]))
    assert daemon.sessions == {}


def test_a_session_that_does_not_start_leaves_nothing(play, fleet_of):
    daemon = play()
    known = records()

    def half(request, _):
        (session,) = daemon.sessions.values()
        for node in request.session.nodes:
            daemon._add_node(session, node)
        raise ValueError("half-way")

    daemon.faults["StartSession"] = half
    with pytest.raises(RuntimeError, match="half-way"):
        core_on(daemon, shaping="buckets").up(fleet_of([1e6]))
    assert daemon.sessions == {}
    assert interfaces(daemon) == set()
    assert {record.mark for record in records()} <= {record.mark for record in known}


def test_a_firewall_that_drops_frames_is_a_clear_error(play, fleet_of, monkeypatch, tmp_path):
    daemon = play()
    firewall = tmp_path / "on"
    firewall.write_text("1\n")
    monkeypatch.setattr(core_enclosure, "FIREWALL", firewall)
    testbed = core_on(daemon, shaping="buckets")
    with testbed.up(fleet_of([20e6])):
        pass  # here they pass

    def unplugged(request, _):
        answer = daemon.do_start_session(request, None)
        run(f"ip link set veth1.3.{request.session.id:x} nomaster")
        return answer

    daemon.faults["StartSession"] = unplugged
    with pytest.raises(RuntimeError, match=r"nothing passes its links: .*FORWARD ACCEPT"):
        testbed.up(fleet_of([20e6]))
    assert daemon.sessions == {}


def test_without_root_the_reason_is_told(monkeypatch, fleet_of):
    monkeypatch.setattr(linux, "may_administer", lambda: False)
    with pytest.raises(RuntimeError, match="run the notebook as root"):
        CoreTestbed(shaping="buckets").up(fleet_of([1e6]))
    assert "run the notebook as root" in core.why_not()


# ---------------------------------------------------------------------- when it breaks


def test_a_daemon_that_dies_is_told_and_what_it_leaves_is_removed(play, fleet_of, wait_until):
    daemon = play()
    net = core_on(daemon, shaping="buckets").up(fleet_of([20e6, 20e6]))
    with closing(net):
        wait_until(lambda: daemon._listeners)
        processes = [process.pid for process in daemon._processes.values()]
        daemon.crash()
        wait_until(lambda: net.inside.lost)
        with pytest.raises(NetworkLostError, match="the testbed is down: "):
            net.set_rate(0, 1e6)
        assert interfaces(daemon)
    assert interfaces(daemon) == set()
    assert not any(linux.start_time(process) for process in processes)
    assert not list(daemon.folder.iterdir())


def settings_of(clients):
    return {
        "fleet": small_fleet(clients).with_rates(np.full(clients, 50e6)),
        "training": FedAvg(rounds=1, local_epochs=1, batch_size=6),
        "limits": RoundLimits(deadline_s=60),
        "netadapt": NetAdapt(
            step=0.1, budget=0.4, iterations=1, conv_multiple=1, linear_multiple=1
        ),
        "policy": SearchPolicy(pretrain_rounds=1),
    }


def test_a_run_whose_daemon_dies_can_be_resumed(play, tmp_path):
    daemon = play()

    def search(on):
        return small_search(**settings_of(6), testbed=core_on(on, shaping="buckets"))

    def crash_after_the_first_round():
        events = tmp_path / "run" / "events.jsonl"
        while not (events.exists() and '"round"' in events.read_text()):
            time.sleep(0.01)
        daemon.crash()

    first = search(daemon)
    threading.Thread(target=crash_after_the_first_round, daemon=True).start()
    with pytest.raises((SuperLinkLostError, NetworkLostError), match=r"stream of events|answer"):
        first.run(tmp_path / "run", progress=False)
    assert not Run(tmp_path / "run").finished
    done = len(Run(tmp_path / "run").rounds())
    again = search(play(daemon.port)).run(tmp_path / "run", progress=False)
    assert again.finished
    assert len(again.rounds()) > done >= 1
    assert again.failures().empty


# ---------------------------------------------------------------------- the real one


@pytest.mark.core
def test_docker_nodes_of_a_real_daemon_learn_what_a_simulation_learns(missing, tmp_path):
    address = os.environ.get("WORKBENCH_CORE", "")
    reason = core.why_not(address) if address else "WORKBENCH_CORE names no core-daemon"
    if reason:
        missing("core", reason)
    if reason := containers.why_not(IMAGE):
        missing("docker", reason)
    testbed = CoreTestbed(address, node="docker", memory="2g", schedule=ConstantSchedule())
    runs = [
        small_search(**settings_of(3), testbed=each).run(tmp_path / name, progress=False)
        for name, each in (("core", testbed), ("here", SimulatedTestbed()))
    ]
    assert all(run.finished for run in runs)
    assert runs[0].failures().empty
    real, simulated = (run.frontier()["accuracy"] for run in runs)
    np.testing.assert_array_equal(real, simulated)


# ---------------------------------------------------------------------- notebooks that are killed

UP = """
import signal, sys, time, types

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started this may ignore it
package = types.ModuleType("workbench")  # without all that the public API loads
package.__path__ = ["workbench"]
sys.modules["workbench"] = package
import numpy as np
from workbench.fleet import Fleet
from workbench.testbed.core import CoreTestbed
from workbench.testbed.schedules import ConstantSchedule

fleet = Fleet.from_label_counts(np.ones((2, 4), dtype=int), rate_bps=np.full(2, 2e7), seed=1)
testbed = CoreTestbed(sys.argv[1], schedule=ConstantSchedule(), shaping="buckets")
with testbed.up(fleet) as net:
    net.inside.spawn(["sleep", "1000"], client=1)
    print(net.inside.mark, flush=True)
    time.sleep(100)
"""


@pytest.fixture
def notebook():
    """Return a function that puts a testbed up in a process of its own: (process, mark)."""
    started = []

    def put_up(daemon):
        made = subprocess.Popen(
            [sys.executable, "-c", UP, daemon.address],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        started.append(made)
        return made, made.stdout.readline().strip()

    yield put_up
    for each in started:
        each.kill()
        each.communicate()


def named(mark):
    return [p for p in linux.processes() if linux.process_name(p).startswith(mark)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_session_outlives_its_notebook(play, notebook, wait_until, number):
    daemon = play()
    process, mark = notebook(daemon)
    assert len(daemon.sessions) == 1
    assert interfaces(daemon)
    process.send_signal(number)
    process.wait(20)
    wait_until(lambda: daemon.sessions == {}, 20)
    wait_until(lambda: named(mark) == [], 20)
    assert interfaces(daemon) == set()
    wait_until(lambda: mark not in {record.mark for record in records()}, 20)


def test_cleanup_removes_what_nobody_else_could_and_only_that(
    play, notebook, fleet_of, connected, wait_until, capsys
):
    daemon, other = play(), play()
    with core_on(other, shaping="buckets").up(fleet_of([20e6])) as mine:
        process, mark = notebook(daemon)
        (number,), (own,) = daemon.numbers, other.numbers
        assert number != own, "interfaces of two sessions of one number would have the same names"
        foreign = f"b.99.{number:x}"
        run(f"ip link add {foreign} type bridge")
        try:
            theirs = [made.pid for made in daemon._processes.values()]
            assert len(theirs) == 3
            daemon.crash()
            for each in named(mark):
                os.kill(each, signal.SIGKILL)  # the guard, too
            process.kill()
            process.wait()
            assert main(["cleanup"]) == 0
            told = capsys.readouterr().out
            assert f"CORE session {number}: removed: 3 nodes" in told
            assert f"CORE session {own}: left alone: process {os.getpid()} uses it" in told
            wait_until(lambda: not any(linux.start_time(each) for each in theirs))
            assert interfaces(daemon) == {foreign}
            assert not list(daemon.folder.iterdir())
            assert talks(mine, connected, 0)
        finally:
            run(f"ip link del {foreign}")
