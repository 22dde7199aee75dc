"""The live engine: messages over real links, nodes that fail, a SuperLink that nobody can reach."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import closing, nullcontext
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.proto.control_pb2 import ListRunsRequest

from workbench.federation import flower, wire
from workbench.federation.engines import live_engine
from workbench.federation.live_grid import SuperLinkLostError
from workbench.federation.superlink import PORT, LiveEngine
from workbench.fleet import Fleet
from workbench.testbed import linux
from workbench.testbed.namespaces import NamespaceTestbed
from workbench.testbed.schedules import ConstantSchedule

from .live_app import make_app

FAST = 200e6


def fleet_of(rates_bps) -> Fleet:
    rates = np.asarray(rates_bps, dtype=float)
    return Fleet.from_label_counts(np.ones((len(rates), 4), dtype=int), rate_bps=rates, seed=1)


def configs(clients: int) -> list[dict]:
    return [{"partition-id": row, "clients": clients} for row in range(clients)]


def weights_of(megabytes: float, seed: int = 0) -> ArrayRecord:
    numbers = np.random.default_rng(seed).random(int(megabytes * 250_000), dtype=np.float32)
    return ArrayRecord({"float32": Array(numbers)})


def send(live, rows, weights, *, sleep_s=0.0, fail=False, ttl=120.0) -> dict[str, int]:
    """Send a message to clients; return the row by message id."""
    config = ConfigRecord({"sleep_s": float(sleep_s), "fail": fail})
    messages = [
        Message(
            RecordDict({"config": config, "weights": weights}),
            live.node_ids[row],
            "train",
            ttl=ttl,
        )
        for row in rows
    ]
    return dict(zip(live.grid.push_messages(messages), rows, strict=True))


def collect(live, sent, wanted=None, timeout_s=30.0) -> dict[int, Message]:
    """Wait for replies; return them by row."""
    end = time.monotonic() + timeout_s
    replies: dict[int, Message] = {}
    while len(replies) < (len(sent) if wanted is None else wanted):
        assert time.monotonic() < end, f"{len(replies)} of {len(sent)} replies in {timeout_s} s"
        for reply in live.grid.pull_messages(list(sent)):
            replies[sent[reply.metadata.reply_to_message_id]] = reply
        time.sleep(0.005)
    return replies


@pytest.fixture(scope="module")
def live(live_testbed):
    """Four clients, the last one behind a slow link."""
    fleet = fleet_of([FAST, FAST, FAST, 4e6])
    with (
        live_testbed().up(fleet) as net,
        live_engine(net, make_app(), configs(4)) as engine,
    ):
        engine.net = net
        yield engine


@pytest.fixture(autouse=True)
def whole(request):
    """Leave the shared engine as it was found: all nodes there, all links healed."""
    yield
    if "live" in request.fixturenames:
        engine = request.getfixturevalue("live")
        for row in range(4):
            engine.net.heal(row)
            engine.restart(row)


# ---------------------------------------------------------------------- messages


def test_every_client_answers_for_itself(live):
    weights = weights_of(0.1)
    for count in (1, 2):
        replies = collect(live, send(live, range(4), weights))
        for row, reply in replies.items():
            sent = weights["float32"].numpy()
            np.testing.assert_array_equal(
                reply.content["weights"]["float32"].numpy(), sent + np.float32(row + 1)
            )
            assert dict(reply.content["metrics"]) == {"row": row, "count": count, "clients": 4}
            assert reply.metadata.src_node_id == live.node_ids[row]
    assert sorted(live.grid.get_node_ids()) == sorted(live.node_ids)
    assert live.alive.all()


def test_large_messages_arrive_whole(live):
    weights = weights_of(12, seed=3)  # Flower cuts arrays into pieces of 5 MB
    (reply,) = collect(live, send(live, [1], weights)).values()
    np.testing.assert_array_equal(
        reply.content["weights"]["float32"].numpy(), weights["float32"].numpy() + np.float32(2)
    )


def test_a_slow_client_holds_up_nobody(live):
    slow = send(live, [3], weights_of(1, seed=4))  # 4 s on its link
    begin = time.monotonic()
    for seed in range(2):
        collect(live, send(live, range(3), weights_of(0.2, seed=seed)), timeout_s=3.5)
    assert live.grid.pull_messages(list(slow)) == []
    (reply,) = collect(live, slow).values()
    assert not reply.has_error()
    assert time.monotonic() - begin > 3.9


def test_messages_pass_the_links(live):
    before = live.net.carried_bytes("down"), live.net.carried_bytes("up")
    collect(live, send(live, [0, 2], weights_of(1, seed=5)))
    for way, old in zip(("down", "up"), before, strict=True):
        carried = live.net.carried_bytes(way) - old
        assert (carried[[0, 2]] > 1_000_000).all()
        assert (carried[[0, 2]] < 1_150_000).all()
        assert (carried[[1, 3]] < 20_000).all()


def test_an_app_that_raises_is_an_answer(live):
    replies = collect(live, send(live, [0], weights_of(0.1), fail=True))
    assert replies[0].error.code == flower.RAISED
    assert "ZeroDivisionError: client 0 was told to fail" in replies[0].error.reason
    assert not collect(live, send(live, [0], weights_of(0.1)))[0].has_error()


def test_send_and_receive_returns_what_is_there_in_time(live):
    config = ConfigRecord({"sleep_s": 0.0, "fail": False})
    content = RecordDict({"config": config, "weights": weights_of(1.5, seed=6)})
    messages = [Message(content, live.node_ids[row], "train", ttl=60) for row in (0, 3)]
    replies = live.grid.send_and_receive(messages, timeout=2.0)
    assert [reply.metadata.src_node_id for reply in replies] == [live.node_ids[0]]


def test_a_message_expires_with_its_time(live):
    live.net.cut(2)
    sent = send(live, [2], weights_of(0.1), ttl=3)
    (reply,) = collect(live, sent, timeout_s=20).values()
    assert reply.has_error()
    assert "no reply in its time" in reply.error.reason


# ---------------------------------------------------------------------- faults


def test_a_client_killed_in_training_is_told_at_once_and_can_come_back(live):
    node = live.node_ids[1]
    sent = send(live, range(3), weights_of(0.1, seed=7), sleep_s=3)
    time.sleep(1)
    os.kill(int(live.processes[1]), signal.SIGKILL)
    (reply,) = collect(live, {each: row for each, row in sent.items() if row == 1}).values()
    assert "the process of client-1 ended with status -9" in reply.error.reason
    assert live.alive.tolist() == [True, False, True, True]
    # Whoever writes to it hears so at once.
    again = collect(live, send(live, [1], weights_of(0.1, seed=8)), timeout_s=3)
    assert "ended with status -9" in again[1].error.reason
    others = collect(live, {each: row for each, row in sent.items() if row != 1})
    assert all(not other.has_error() for other in others.values())
    live.restart("client-1")
    assert live.node_ids[1] == node
    assert not collect(live, send(live, [1], weights_of(0.1, seed=9)))[1].has_error()


def test_a_client_killed_in_its_upload_is_told_at_once(live):
    sent = send(live, [3], weights_of(1, seed=10))
    wait_for_bytes(live, 3, "up", 200_000)
    os.kill(int(live.processes[3]), signal.SIGKILL)
    (reply,) = collect(live, sent, timeout_s=5).values()
    assert "the process of client-3 ended" in reply.error.reason


def wait_for_bytes(live, row, way, size):
    before = live.net.carried_bytes(way)[row]
    end = time.monotonic() + 20
    while live.net.carried_bytes(way)[row] - before < size:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_cut_that_is_healed_costs_only_time(live, way):
    weights = weights_of(0.6, seed=11)
    sent = send(live, [3], weights)
    wait_for_bytes(live, 3, way, 200_000)
    live.net.cut("client-3")
    time.sleep(5)
    assert live.grid.pull_messages(list(sent)) == []
    live.net.heal("client-3")
    (reply,) = collect(live, sent, timeout_s=30).values()
    np.testing.assert_array_equal(
        reply.content["weights"]["float32"].numpy(), weights["float32"].numpy() + np.float32(4)
    )


def test_a_cut_for_good_leaves_the_others_alone(live):
    live.net.cut("client-2")
    sent = send(live, range(3), weights_of(0.2, seed=12))
    replies = collect(live, sent, wanted=2, timeout_s=15)
    assert sorted(replies) == [0, 1]
    live.grid.cancel(list(sent))


def test_a_client_that_is_removed_is_lost_and_comes_back_with_its_link(live):
    node = live.node_ids[0]
    sent = send(live, [0], weights_of(0.1, seed=13), sleep_s=5)
    time.sleep(0.5)
    live.net.remove("client-0")
    (reply,) = collect(live, sent, timeout_s=5).values()
    assert reply.has_error()
    live.net.add("client-0")
    end = time.monotonic() + 20
    while not live.alive[0]:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert live.node_ids[0] == node
    assert not collect(live, send(live, [0], weights_of(0.1, seed=14)))[0].has_error()


def test_a_killed_superlink_is_a_clear_error(live_testbed):
    with live_testbed().up(fleet_of([FAST, FAST])) as net:
        with live_engine(net, make_app(), configs(2)) as engine:
            sent = send(engine, [0, 1], weights_of(0.1), sleep_s=2)
            os.kill(engine.superlink.process, signal.SIGKILL)
            with pytest.raises(SuperLinkLostError, match="its process has ended"):
                collect(engine, sent, timeout_s=30)
            with pytest.raises(SuperLinkLostError):
                send(engine, [0], weights_of(0.1))
        # The network is still good for another engine.
        with live_engine(net, make_app(), configs(2)) as engine:
            assert len(collect(engine, send(engine, [0, 1], weights_of(0.1)))) == 2


@pytest.mark.namespaces
@pytest.mark.usefixtures("live_machine")
def test_a_node_that_cannot_start_is_a_clear_error():
    def broken(*_):
        raise ImportError("no such library")

    class Broken(LiveEngine):
        _run_node = broken

    with NamespaceTestbed(schedule=ConstantSchedule()).up(fleet_of([FAST, FAST])) as net:
        before = set(psutil.pids())
        with pytest.raises(RuntimeError, match=r"(?s)nodes did not join.*no such library"):
            Broken(net, make_app()).__enter__()
        ours = [p for p in set(psutil.pids()) - before if "wb-" in linux.process_name(p)]
        assert ours == []


# ---------------------------------------------------------------------- who gets in


def test_nobody_on_the_host_reaches_the_superlink(live):
    process = psutil.Process(live.superlink.process)
    network = linux.namespace_id("net", process.pid)
    assert network != linux.namespace_id()
    # It listens, but in the server's namespace alone.
    listening = listeners(Path(f"/proc/{process.pid}/net/tcp"))
    assert (address_in_proc(live.net.inside.address()), PORT) in listening
    for table in ("tcp", "tcp6"):
        assert PORT not in {port for _, port in listeners(Path(f"/proc/self/net/{table}"))}
    own = [each.address for entry in psutil.net_if_addrs().values() for each in entry]
    for address in [each for each in own if each.count(".") == 3]:
        with socket.socket() as stranger:
            stranger.settimeout(2)
            with pytest.raises(ConnectionRefusedError):
                stranger.connect((address, PORT))
    # Nor does its own address lead there: what answers inside is not found from outside.
    server = f"{live.net.inside.address()}:{PORT}"
    inside = wire.Door(server, insecure=True, open_socket=live.net.inside.socket)
    for door, answers in ((inside, True), (wire.Door(server, insecure=True), False)):
        for kind, asked in (
            (wire.ControlHttpClient, lambda client: client.ListRuns(ListRunsRequest())),
            (wire.RuntimeHttpClient, lambda client: client.AcquireTask(wire.AcquireTaskRequest())),
        ):
            client = door.client(kind, [wire.Versions("flwr-cli")])
            client._client.timeout = 10 if answers else 1
            with closing(client), nullcontext() if answers else pytest.raises(httpx.HTTPError):
                asked(client)


def listeners(table: Path) -> set[tuple[str, int]]:
    found = set()
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            address, port = fields[1].split(":")
            found.add((address, int(port, 16)))
    return found


def address_in_proc(address: str) -> str:
    return "".join(f"{int(part):02X}" for part in reversed(address.split(".")))


def test_two_engines_of_one_process_do_not_mix(live_testbed):
    testbed = live_testbed()
    with (
        testbed.up(fleet_of([FAST, FAST])) as one_net,
        live_engine(one_net, make_app(), configs(2)) as one,
        testbed.up(fleet_of([FAST])) as other_net,
        live_engine(other_net, make_app(), configs(1)) as other,
    ):
        assert one.grid.run.run_id != other.grid.run.run_id
        first = send(one, [0, 1], weights_of(0.1))
        second = send(other, [0], weights_of(0.1))
        assert len(collect(one, first)) == 2
        assert len(collect(other, second)) == 1


@pytest.mark.namespaces
@pytest.mark.usefixtures("live_machine")
def test_it_runs_inside_a_user_namespace(missing):
    from workbench.testbed import probe

    if reason := probe.why_no_namespaces(rootless=True):
        missing("user-namespaces", reason)
    testbed = NamespaceTestbed(schedule=ConstantSchedule(), rootless=True)
    with testbed.up(fleet_of([FAST, FAST])) as net, LiveEngine(net, make_app(), configs(2)) as live:
        assert len(collect(live, send(live, [0, 1], weights_of(0.1)))) == 2


@pytest.mark.namespaces
@pytest.mark.usefixtures("live_machine")
def test_another_flower_is_refused(monkeypatch):
    monkeypatch.setattr(flower, "version", lambda _: "1.42.0")
    with (
        NamespaceTestbed(schedule=ConstantSchedule()).up(fleet_of([FAST])) as net,
        pytest.raises(RuntimeError, match=r"flwr 1\.42\.0 is installed.*1\.41\.\* only"),
    ):
        LiveEngine(net, make_app()).__enter__()


@pytest.mark.namespaces
@pytest.mark.usefixtures("live_machine")
def test_node_configs_must_fit_the_fleet():
    with (
        NamespaceTestbed(schedule=ConstantSchedule()).up(fleet_of([FAST])) as net,
        pytest.raises(ValueError, match="node_configs has 2 entries, not 1"),
    ):
        LiveEngine(net, make_app(), configs(2))
