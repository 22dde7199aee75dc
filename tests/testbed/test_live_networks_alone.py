"""Live networks by themselves: nothing of the host is touched, nobody gets in, nothing is left."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from workbench.testbed import cleanup, image, linux, probe
from workbench.testbed.enclosure import NetworkLostError
from workbench.testbed.namespaces import NamespaceTestbed
from workbench.testbed.schedules import ConstantSchedule

CONSTANT = NamespaceTestbed(schedule=ConstantSchedule())


# ---------------------------------------------------------------------- alone in the world


def test_two_testbeds_do_not_disturb_each_other(live_testbed, fleet_of, connected):
    testbed = live_testbed()
    with testbed.up(fleet_of([20e6])) as one, testbed.up(fleet_of([20e6])) as other:
        assert one.inside.address() == other.inside.address()
        with connected(one, 0) as (near, far):
            with closing(other.inside.socket(0)) as stranger, pytest.raises(ConnectionRefusedError):
                stranger.connect((other.inside.address(), 7000))
            other.cut(0)
            near.send(b"fine")
            assert far.recv(100) == b"fine"
            other.close()
            near.send(b"still fine")
            assert far.recv(100) == b"still fine"


def seen_on_the_host(missing):
    """What an administrator sees of the host's network, without counters."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        missing("namespaces", "there is no ip or tc to look with")
    commands = [
        ["ip", "-oneline", "link"],
        ["ip", "-oneline", "address"],
        ["ip", "route"],
        ["ip", "netns", "list"],
        ["tc", "qdisc", "show"],
    ]
    shown = [subprocess.run(each, capture_output=True, check=True).stdout for each in commands]
    return shown, ports_of_ours()


def ports_of_ours():
    """Return the ports at which this process, its children or a testbed listens on the host."""
    ports = {}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, *_, inode = line.split()[:10]
            if state in {"0A", "07"}:
                ports[f"socket:[{inode}]"] = (table, address)
    ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    ours |= {each for each in linux.processes() if linux.process_name(each).startswith("wb-")}
    found = set()
    for process in ours:
        for descriptor in Path(f"/proc/{process}/fd").glob("*"):
            with suppress(OSError):
                found.add(ports.get(str(descriptor.readlink())))
    return found - {None}


def test_the_host_is_not_touched(live_testbed, fleet_of, connected, request, missing):
    if request.node.get_closest_marker("core"):
        pytest.skip("CORE keeps its switches in the host's own network")
    before = seen_on_the_host(missing)
    with live_testbed().up(fleet_of([20e6, 5e6])) as net, connected(net, 1):
        assert seen_on_the_host(missing) == before
        net.set_rate(0, 1e6)
        net.cut(1)
        assert seen_on_the_host(missing) == before
        assert net.inside.mark not in Path("/proc/net/unix").read_text()
    assert seen_on_the_host(missing) == before


# ---------------------------------------------------------------------- without root


@pytest.mark.namespaces
@pytest.mark.usefixtures("live_machine")
def test_it_works_inside_a_user_namespace(fleet_of, connected, missing):
    if reason := probe.why_no_namespaces(rootless=True):
        missing("user-namespaces", reason)
    testbed = NamespaceTestbed(schedule=ConstantSchedule(), rootless=True)
    with testbed.up(fleet_of([20e6, 2e6])) as net, connected(net, 1) as (near, far):
        near.send(b"hello")
        assert far.recv(100) == b"hello"
        net.set_rate(0, 3e6)
        keeper = net.inside.ask(do="processes")
        assert keeper[0] == ["user", "pid"]
        for descriptor in keeper[1]:
            os.close(descriptor)


@pytest.mark.namespaces
@pytest.mark.usefixtures("live_machine")
def test_an_ordinary_user_can_have_one(fleet_of, connected, wait_until, missing):
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        said = "nothing"
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            # A process that was root belongs to root until this is said; a user's own need not.
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
            said = probe.why_no_namespaces() or as_a_user(fleet_of, connected, wait_until)
        except BaseException as error:  # noqa: BLE001  # a forked child must end here
            said = repr(error)
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.waitpid(process, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    if "user namespaces" in said:
        missing("user-namespaces", said)
    assert said == "3 clients of user 65534 answered"


def as_a_user(fleet_of, connected, wait_until) -> str:
    answers = []

    def run(row, channel):
        channel.send({"row": row, "user": Path("/proc/self").stat().st_uid})
        channel.receive()

    with CONSTANT.up(fleet_of(np.full(3, 20e6))) as net, connected(net, 1) as (near, far):
        clients = net.inside.fork_clients(run, 3, lambda _, said: answers.append(said))
        clients.start(range(3))
        wait_until(lambda: sum("user" in said for said in answers) == 3)
        users = {user_of(int(number)) for number in clients.processes}
        near.send(b"hello")
        if far.recv(100) != b"hello":
            return "the link carries nothing"
        net.set_rate(0, 1e6)
        clients.close()
    return f"3 clients of user {users.pop()} answered"


def user_of(process: int) -> int:
    return Path(f"/proc/{process}").stat().st_uid


# ---------------------------------------------------------------------- when it breaks


def test_a_killed_keeper_is_told(live_testbed, fleet_of):
    net = live_testbed().up(fleet_of([20e6, 20e6]))
    folder = net.inside.folder
    keeper = [p for p in linux.processes() if linux.process_name(p) == f"{net.inside.mark}-keep"]
    os.kill(keeper[0], signal.SIGKILL)
    with pytest.raises(NetworkLostError, match="its keeper process was killed"):
        net.set_rate(0, 1e6)
    net.close()
    net.close()
    assert not folder.exists()
    with pytest.raises(NetworkLostError, match="it was closed"):
        net.set_rate(0, 2e6)


# ---------------------------------------------------------------------- nothing is left


def remains(mark: str) -> list[str]:
    """Return what is left of a testbed: processes, folders and containers that carry its mark."""
    names = [linux.process_name(process) for process in linux.processes()]
    number = mark.removeprefix("wb-")
    return [
        *(name for name in names if name.startswith(mark)),
        *(str(folder) for folder in cleanup.folders() if number in folder.name),
        *(name for name in container_names() if name.startswith(mark)),
    ]


def container_names() -> list[str]:
    try:
        engine = image.connect(timeout_s=20)
    except RuntimeError:
        return []
    try:
        return [each.name for each in engine.containers.list(all=True, ignore_removed=True)]
    finally:
        engine.close()


def inhabitants(mark: str) -> set[tuple[int, int]]:
    """Return all processes in the namespaces of a testbed that is up: (number, start time).

    Numbers of namespaces are used again at once, when others have testbeds up at the same time.
    """
    spaces: dict[int, set[int]] = {}
    for process in linux.processes():
        with suppress(OSError):
            spaces.setdefault(linux.namespace_id("net", process), set()).add(process)
    here = linux.namespace_id("net")
    named = {each for each in linux.processes() if linux.process_name(each).startswith(mark)}
    inside = [found for space, found in spaces.items() if space != here and found & named]
    return {(process, linux.start_time(process)) for found in inside for process in found}


def alive(processes: set[tuple[int, int]]) -> bool:
    """Tell whether any of these processes still runs."""
    return any(linux.start_time(process) == started for process, started in processes)


@pytest.fixture
def put_up_and(live_testbed, fleet_of, clients_of):
    """Return a function that puts a testbed up, with clients, and ends in a way of one's own."""

    def put_up(end):
        with live_testbed().up(fleet_of(np.full(3, 20e6))) as net:
            ready = []
            clients_of(net, lambda _, said: ready.append(said))
            net.inside.spawn(["sleep", "1000"], client=1)
            net.inside.spawn(["sleep", "1000"])
            while sum("ready" in said for said in ready) < 3:
                time.sleep(0.01)
            end(net)

    return put_up


@pytest.fixture
def forks(request):
    """Leave out what uses a testbed in a fork of this process, where that is not possible."""
    if request.node.get_closest_marker("core"):
        pytest.skip("gRPC cannot be used in a fork; test_core.py starts a process of its own")


def in_another_process(put_up_and):
    """Fork, put a testbed up there and let it be; return the process and the testbed's mark."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler if number == 2 else signal.SIG_DFL)

            def tell_and_end(net):
                os.write(write, net.inside.mark.encode() + b"\n")
                time.sleep(100)

            put_up_and(tell_and_end)
        except BaseException as error:  # noqa: BLE001  # a forked child must end here
            os._exit(3 if isinstance(error, KeyboardInterrupt) else 4)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        mark = pipe.readline().strip()
    return process, mark


def test_nothing_is_left_after_the_with_block(put_up_and):
    seen = []
    put_up_and(lambda net: seen.extend([net.inside.mark, inhabitants(net.inside.mark)]))
    mark, its = seen
    assert its
    assert remains(mark) == []
    assert not alive(its)


def test_nothing_is_left_after_an_exception(put_up_and):
    seen = []

    def fail(net):
        seen.extend([net.inside.mark, inhabitants(net.inside.mark)])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        put_up_and(fail)
    mark, its = seen
    assert its
    assert remains(mark) == []
    assert not alive(its)


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_a_signal(put_up_and, number, wait_until):
    process, mark = in_another_process(put_up_and)
    assert len(remains(mark)) >= 6  # two keepers, three clients, a folder
    its = inhabitants(mark)
    assert alive(its)
    os.kill(process, number)
    _, status = os.waitpid(process, 0)
    expected = 3 if number == signal.SIGINT else -number
    assert os.waitstatus_to_exitcode(status) == expected
    wait_until(lambda: remains(mark) == [])
    wait_until(lambda: not alive(its))


@pytest.mark.usefixtures("forks")
def test_cleanup_takes_down_what_hangs_and_nothing_else(
    live_testbed, put_up_and, fleet_of, connected, wait_until
):
    with live_testbed().up(fleet_of([20e6])) as mine:
        process, mark = in_another_process(put_up_and)
        for number in linux.processes():
            if linux.process_name(number).startswith(mark):
                os.kill(number, signal.SIGSTOP)  # the keeper notices nothing
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        time.sleep(0.3)
        assert len(remains(mark)) >= 3  # two keepers, a folder
        foreign = mine.inside.folder.parent / "workbench-testbed-notes.txt"
        foreign.write_text("somebody's own")
        try:
            outcomes = {each.folder: each.outcome for each in cleanup.cleanup()}
        finally:
            foreign.unlink()
        number = mark.removeprefix("wb-")
        removed = next(text for folder, text in outcomes.items() if number in folder)
        assert removed.startswith("removed, ")
        assert outcomes[str(mine.inside.folder)] == f"left alone: process {os.getpid()} uses it"
        assert str(foreign) not in outcomes
        wait_until(lambda: remains(mark) == [])
        with connected(mine, 0) as (near, far):
            near.send(b"not disturbed")
            assert far.recv(100) == b"not disturbed"


def test_cleanup_is_not_fooled_by_a_number_that_is_used_again():
    folder = cleanup.new_folder("c0ffee")
    owner = {"mark": "wb-c0ffee", "process": os.getpid(), "started": 1}
    (folder / "owner.json").write_text(json.dumps(owner))
    outcomes = {each.folder: each.outcome for each in cleanup.cleanup()}
    assert outcomes[str(folder)] == "removed, 0 processes killed"
    assert not folder.exists()
