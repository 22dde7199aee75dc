"""The client of CORE's API: the bytes on the wire, each call, and daemons that misbehave."""

from __future__ import annotations

import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

from workbench import forking
from workbench.fleet import Fleet
from workbench.scenario import Scenario
from workbench.testbed import core, core_remains
from workbench.testbed.addresses import Delay
from workbench.testbed.core_client import (
    CoreClient,
    CoreError,
    CoreLostError,
    CoreVersionError,
)
from workbench.testbed.core_session import CoreSession, Heard
from workbench.testbed.core_wire import NodeType, SessionState, message

from .played_core import PlayedCore, deleted, edited, ended

# What CORE 9.2.1's own classes write; every field of every message that is used here is set.
WRITTEN_BY_CORE = [
    (
        "Node",
        (
            "080312026331180f220250432a0f0d0000c03f15000020401d000060403a01694203696d675201615201627002"
            "a201022f78aa0106636c69656e74"
        ),
        {
            "id": 3,
            "name": "c1",
            "type": NodeType.DOCKER,
            "model": "PC",
            "position": message("Position")(x=1.5, y=2.5, z=3.5),
            "icon": "i",
            "image": "img",
            "services": ["a", "b"],
            "canvas": 2,
            "compose": "/x",
            "compose_name": "client",
        },
    ),
    (
        "Link",
        (
            "080310011801221e08071204657468301a016d220831302e302e302e31281032033a3a3138402a020809321508"
            "012d000020403080d0acf30e4005480650015808"
        ),
        {
            "node1_id": 3,
            "node2_id": 1,
            "type": 1,
            "iface1": message("Interface")(
                id=7, name="eth0", mac="m", ip4="10.0.0.1", ip4_mask=16, ip6="::1", ip6_mask=64
            ),
            "iface2": message("Interface")(id=9),
            "options": message("LinkOptions")(
                jitter=1,
                loss=2.5,
                bandwidth=4_000_000_000,
                delay=5,
                dup=6,
                unidirectional=True,
                buffer=8,
            ),
        },
    ),
    (
        "Session",
        "080410041a020801220208022a022f6432017552060a016b1201765a022f66620b0a016f120612016e1a0177",
        {
            "id": 4,
            "state": SessionState.RUNTIME,
            "nodes": [message("Node")(id=1)],
            "links": [message("Link")(node1_id=2)],
            "dir": "/d",
            "user": "u",
            "metadata": {"k": "v"},
            "file": "/f",
            "options": {"o": message("ConfigOption")(name="n", value="w")},
        },
    ),
    (
        "GetSessionsResponse",
        "0a0c0801100218032201662a0164",
        {"sessions": [message("SessionSummary")(id=1, state=2, nodes=3, file="f", dir="d")]},
    ),
    ("StartSessionRequest", "0a0208011001", {"session": {"id": 1}, "definition": True}),
    ("StartSessionResponse", "0801120165", {"result": True, "exceptions": ["e"]}),
    ("AddNodeRequest", "0801120208021a0173", {"session_id": 1, "node": {"id": 2}, "source": "s"}),
    ("DeleteNodeRequest", "080110021a0173", {"session_id": 1, "node_id": 2, "source": "s"}),
    (
        "NodeCommandRequest",
        "080110021a016320012801",
        {"session_id": 1, "node_id": 2, "command": "c", "wait": True, "shell": True},
    ),
    ("NodeCommandResponse", "0a016f1002", {"output": "o", "return_code": 2}),
    (
        "AddLinkRequest",
        "0801120208011a0173",
        {"session_id": 1, "link": {"node1_id": 1}, "source": "s"},
    ),
    (
        "AddLinkResponse",
        "0801120208011a020802",
        {"result": True, "iface1": {"id": 1}, "iface2": {"id": 2}},
    ),
    (
        "EditLinkRequest",
        "08011002180320042805320230063a0173",
        {
            "session_id": 1,
            "node1_id": 2,
            "node2_id": 3,
            "iface1_id": 4,
            "iface2_id": 5,
            "options": {"bandwidth": 6},
            "source": "s",
        },
    ),
    (
        "LinkedRequest",
        "080110021803200428053001",
        {
            "session_id": 1,
            "node1_id": 2,
            "node2_id": 3,
            "iface1_id": 4,
            "iface2_id": 5,
            "linked": True,
        },
    ),
    ("OpenXmlRequest", "0a016410011a0166", {"data": "d", "start": True, "file": "f"}),
    ("SaveXmlResponse", "0a0178", {"data": b"x"}),
    ("EventsRequest", "0801120400010204", {"session_id": 1, "events": [0, 1, 2, 4]}),
    (
        "Event",
        "0a0f080110061a016e2201642d0000c03f3802420173",
        {
            "session_event": {"node_id": 1, "event": 6, "name": "n", "data": "d", "time": 1.5},
            "session_id": 2,
            "source": "s",
        },
    ),
    (
        "Event",
        "12060a02080310023802",
        {"node_event": {"node": {"id": 3}, "message_type": 2}, "session_id": 2},
    ),
    (
        "Event",
        "1a060801120208033802",
        {"link_event": {"message_type": 1, "link": {"node1_id": 3}}, "session_id": 2},
    ),
]


@pytest.mark.parametrize(("name", "written", "fields"), WRITTEN_BY_CORE)
def test_messages_are_cores_byte_for_byte(name, written, fields):
    made = message(name)(**fields)
    assert made.SerializeToString(deterministic=True).hex() == written
    assert message(name).FromString(bytes.fromhex(written)) == made


@pytest.fixture(scope="module", autouse=True)
def _grpc(missing):
    if reason := forking.why_no_grpc():
        missing("namespaces", reason)


@pytest.fixture
def daemon(tmp_path):
    played = PlayedCore(tmp_path)
    yield played
    played.close()


@pytest.fixture
def client(daemon):
    made = CoreClient(daemon.address, answer_s=5)
    yield made
    made.close()


def session_of(client, clients=3, **settings):
    rates = np.full(clients, 8e6)
    fleet = Fleet.from_label_counts(np.ones((clients, 4), dtype=int), rate_bps=rates, seed=1)
    scenario = core.CoreTestbed(**settings.pop("testbed", {})).arrange(fleet)
    settings = {"mark": "wb-test", "delay": Delay()} | settings
    return CoreSession(client, scenario, **settings)


# ---------------------------------------------------------------------- a session's life


def test_a_session_is_made_of_switch_server_and_clients(daemon, client):
    made = session_of(client)
    assert not made.started
    made.start()
    assert made.started
    (session,) = daemon.sessions.values()
    assert session.state == SessionState.RUNTIME
    assert session.metadata["workbench-testbed"] == "wb-test"
    kinds = {node.id: node.type for node in session.nodes}
    assert kinds == {1: NodeType.SWITCH, **dict.fromkeys((2, 3, 4, 5), NodeType.DEFAULT)}
    ports = [link.iface2.id for link in session.links]
    assert len(set(ports)) == 4, "each link has an interface of its own on the switch"
    for link in session.links:
        assert link.node2_id == 1
        assert link.iface1.ip4.startswith("198.18.")
        assert (link.iface1.ip4_mask, link.iface1.name) == (16, "eth0")
        assert not link.options.bandwidth
    made.delete()
    assert daemon.sessions == {}


def test_docker_nodes_come_from_a_compose_file_and_have_names_of_their_own(daemon, client):
    made = session_of(client, testbed={"node": "docker", "image": "some"}, compose="/tmp/c.yaml")
    made.start()
    (session,) = daemon.sessions.values()
    clients = [node for node in session.nodes if node.type == NodeType.DOCKER]
    assert [node.id for node in clients] == [3, 4, 5]
    for node in clients:
        assert (node.image, node.compose, node.compose_name) == ("some", "/tmp/c.yaml", "client")
        assert node.name.startswith("wb-test-")
    before = made.name(3)
    made.remove(0)
    made.add(0)
    assert made.name(3) == f"{before}-1", "CORE would append to the old compose file"


def test_a_client_that_comes_back_gets_an_interface_that_was_never_used(daemon, client):
    made = session_of(client)
    made.start()
    ports = {made.port(row) for row in range(3)}
    for _ in range(3):
        made.remove(1)
        assert len(daemon.sessions[1].nodes) == 4
        made.add(1)
        assert made.port(1) not in ports
        ports.add(made.port(1))
        assert len(made.port(1)) < 15, "the kernel's limit for names"
    made.set_rates({1: (3e6, 3e6)})


def test_a_number_that_a_crashed_daemon_has_left_is_passed_over(daemon, client):
    (daemon.folder / "pycore.1").mkdir()
    made = session_of(client)
    assert made.number == 2
    assert made.port(0) == "veth1.3.2"
    assert session_of(client, avoid={3, 4}).number == 5


@pytest.mark.parametrize(
    ("interface", "session"),
    [
        ("b.1.1", 1),
        ("p.12.ff", 255),
        ("veth1.57.2", 2),
        ("beth3.0.a", 10),
        ("eth0", 0),
        ("veth1a2b3c4", 0),
        ("br-0.1.1", 0),
        ("bond0.100", 0),
        ("b.x.1", 0),
    ],
)
def test_interfaces_of_sessions_are_told_from_others(interface, session):
    assert core_remains.session_of(interface) == session


# ---------------------------------------------------------------------- rates


def shown(daemon, row):
    """Return the options that the daemon has for a client: (down, up)."""
    known = daemon.options[1]
    return known[1, 3 + row], known[3 + row, 0]


def test_rates_are_set_in_either_direction_with_all_options(daemon, client):
    made = session_of(client, delay=Delay(0.02, 0.001, 0.05))
    made.start()
    made.set_rates(dict.fromkeys(range(3), (8000000.0, 8000000.0)))
    made.set_rates({0: (4e6, None), 1: (None, 2e6), 2: (0.0, 5e6)})
    found = [tuple(each.bandwidth for each in shown(daemon, row)) for row in range(3)]
    assert found == [(4e6, 8e6), (8e6, 2e6), (0, 5e6)]
    for row in range(3):
        for each in shown(daemon, row):
            assert (each.delay, each.jitter) == (20_000, 1_000)
            assert each.loss == pytest.approx(100 if each is shown(daemon, 2)[0] else 5)
            assert each.buffer >= 20
    edits = [request for method, request in daemon.calls if method == "EditLink"]
    assert len(edits) == 3 + 1 + 1 + 2, "one call where both directions are the same"


def test_edits_are_made_several_at_once(daemon, client):
    made = session_of(client, clients=16)
    made.start()
    busy, most, lock = 0, 0, threading.Lock()

    def slowly(_, __):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.05)
        with lock:
            busy -= 1

    daemon.faults["EditLink"] = slowly
    made.set_rates(dict.fromkeys(range(16), (1000000.0, 1000000.0)))
    assert most == 8


def test_an_edit_that_failed_once_is_really_made(daemon, client):
    made = session_of(client)
    made.start()
    made.set_rates({0: (8e6, 8e6)})
    daemon.netem = False  # CORE notes what is asked, and then fails to do it
    failed = []

    def heal(request, _):
        failed.append(request)
        daemon.netem = len(failed) > 1

    daemon.faults["EditLink"] = heal
    made.set_rates({0: (4e6, 4e6)})
    assert [each.bandwidth for each in shown(daemon, 0)] == [4e6, 4e6]
    buffers = [request.options.buffer for request in failed]
    assert buffers == [34, 35, 34], "the same once more would have been taken for done"


def test_a_kernel_without_netem_is_told_with_the_clients_name(daemon, client):
    daemon.netem = False
    made = session_of(client)
    made.start()
    with pytest.raises(CoreError, match=r"the link of client-0: .*netem"):
        made.set_rates({0: (4e6, 4e6)})


def test_what_is_read_back_must_be_what_was_set(daemon, client):
    made = session_of(client)
    made.start()
    daemon.faults["EditLink"] = lambda *_: message("EditLinkResponse")(result=True)
    with pytest.raises(CoreError, match=r"client-2 \(up\) is not what it was set to: 5e\+06"):
        made.set_rates({2: (5e6, 5e6)})


# ---------------------------------------------------------------------- what others do


@pytest.fixture
def heard(client):
    made = session_of(client)
    made.start()
    told = []
    end = made.watch(
        Heard(
            lambda reason: told.append(("lost", reason)),
            lambda row: told.append(("removed", row)),
            lambda *edit: told.append(("edited", *edit)),
        )
    )
    yield made, told
    end()


def test_what_others_do_is_told_and_what_we_do_is_not(daemon, heard, wait_until):
    made, told = heard
    wait_until(lambda: daemon._listeners)
    made.set_rates({0: (1e6, 1e6)})
    (session,) = daemon.sessions.values()
    link = message("Link")()
    link.CopyFrom(next(each for each in session.links if each.node1_id == 4))
    daemon.tell(**deleted(5))
    daemon.tell(**edited(link, bandwidth=3_000_000))
    daemon.tell(**edited(link, bandwidth=2_000_000, unidirectional=True))
    link.node1_id, link.node2_id = link.node2_id, link.node1_id
    daemon.tell(**edited(link, loss=100, unidirectional=True))
    daemon.tell(**(deleted(4) | {"source": "workbench"}))
    daemon.tell(**ended())
    wait_until(lambda: len(told) >= 5)
    assert told[:4] == [
        ("removed", 2),
        ("edited", 1, None, 3e6),
        ("edited", 1, "up", 2e6),
        ("edited", 1, "down", 0.0),
    ]
    assert told[4] == ("lost", "somebody has ended session 1 of CORE")


def test_a_daemon_that_dies_is_told(daemon, heard, wait_until):
    _, told = heard
    wait_until(lambda: daemon._listeners)
    daemon.crash()
    wait_until(lambda: told)
    kind, reason = told[0]
    assert kind == "lost"
    assert "the stream of events has ended" in reason or "does not answer" in reason


# ---------------------------------------------------------------------- daemons that misbehave


def test_nobody_at_the_address_is_told(tmp_path):
    gone = PlayedCore(tmp_path)
    gone.crash()
    with pytest.raises(CoreLostError, match=rf"{gone.address} does not answer.*start it"):
        CoreClient(gone.address, answer_s=5)
    assert "start it" in core.why_not(gone.address) or "root" in core.why_not(gone.address)


def test_another_system_is_told(monkeypatch):
    monkeypatch.setattr(core.sys, "platform", "darwin")
    assert core.why_not().startswith("CORE needs Linux, and this is darwin; use SimulatedTestbed")


def test_another_version_is_told(daemon):
    handlers = daemon.service
    for method in ("GetServiceDefaults", "GetSessions"):
        daemon.service = lambda details, gone=method: (
            None if details.method.endswith(gone) else handlers(details)
        )
        with pytest.raises(CoreVersionError, match=rf"does not understand {method}.*CORE 9\.2\.1"):
            CoreClient(daemon.address, answer_s=5)


def test_something_else_at_the_address_is_told():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(CoreVersionError, match="speaks the API of CORE"):
            CoreClient(f"127.0.0.1:{port}", answer_s=5)
    finally:
        server.stop(0).wait()


def test_a_daemon_that_hangs_is_told(daemon):
    made = CoreClient(daemon.address, answer_s=0.3)
    release = threading.Event()
    daemon.faults["GetSession"] = lambda *_: release.wait(10) and None
    with pytest.raises(CoreLostError, match="accepted GetSession, but did not answer in time"):
        made.session(1)
    release.set()
    made.close()


def test_a_daemon_that_was_restarted_is_told(daemon, client):
    made = session_of(client)
    made.start()
    daemon.sessions.clear()
    with pytest.raises(CoreLostError, match=r"does not know the session.*restarted"):
        made.set_rates({0: (1e6, 1e6)})
    with pytest.raises(CoreLostError, match="restarted"):
        made.remove(0)


def test_a_session_that_does_not_start_is_told(daemon, client):
    made = session_of(client)
    daemon.faults["StartSession"] = lambda *_: message("StartSessionResponse")(
        result=False, exceptions=["no such image: x", "no space"]
    )
    with pytest.raises(CoreError, match="could not start the session: no such image: x; no space"):
        made.start()


def test_a_running_session_is_not_started_again(daemon, client):
    made = session_of(client)
    made.start()
    with pytest.raises(CoreError, match="would wipe it"):
        made.start()
    assert len(daemon.sessions[1].nodes) == 5


def test_a_link_can_be_parted_and_joined(daemon, client):
    made = session_of(client)
    made.start()
    (session,) = daemon.sessions.values()
    for joined in (False, True):
        client.link(1, session.links[1], joined=joined)
        method, request = daemon.calls[-1]
        assert method == "Linked"
        assert (request.node1_id, request.node2_id, request.iface2_id) == (3, 1, 3)
        assert request.linked is joined


def test_what_a_command_says_comes_back_or_is_the_error(client):
    made = session_of(client)
    made.start()
    assert client.command(1, 3, "hostname") == "ran hostname\n"
    with pytest.raises(CoreError, match="'false' failed on node 3: ran false"):
        client.command(1, 3, "false")


# ---------------------------------------------------------------------- what a session is made of


def test_a_session_file_of_somebody_else_is_laid_out_as_it_is(tmp_path):
    fleet = Fleet.from_label_counts(np.ones((3, 4), dtype=int), seed=1)
    path = Scenario.of(fleet, "docker", "their:1").write(tmp_path / "their.xml")
    opened = core.CoreTestbed.open(path, address="there:1")
    assert (opened.node, opened.image, opened.address) == ("docker", "their:1", "there:1")
    arranged = opened.arrange(Fleet.from_scenario(path))
    assert [arranged.topology.node(n).kind for n in arranged.clients] == ["docker"] * 3
    assert arranged.topology.node(arranged.server).kind == "node"
    with pytest.raises(ValueError, match="with 3 clients, but the fleet has 2"):
        opened.arrange(Fleet.from_label_counts(np.ones((2, 4), dtype=int), seed=1))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('type="SWITCH"', 'type="WIRELESS_LAN"', "is a wireless_lan"),
        ('ip4="198.18.0.1" ip4_mask="16"', "", "server has no IPv4 address"),
        ('node1="4" node2="1"', 'node1="4" node2="2"', "does not hang at a switch or hub"),
    ],
)
def test_a_session_file_that_cannot_be_put_up_is_refused(tmp_path, old, new, reason):
    fleet = Fleet.from_label_counts(np.ones((3, 4), dtype=int), seed=1)
    path = Scenario.of(fleet).write(tmp_path / "x.xml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=reason):
        core.CoreTestbed.open(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "localhost"},
        {"node": "podman"},
        {"memory": "much"},
        {"cpus": 0},
        {"shaping": "htb"},
        {"loss": 1},
        {"colour": "red"},
    ],
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        core.CoreTestbed(**wrong)
