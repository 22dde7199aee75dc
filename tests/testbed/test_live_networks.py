"""Live networks of every kind: what their links carry, and what their controls do."""

from __future__ import annotations

import itertools
import shutil
import socket
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from workbench.testbed import linux, probe
from workbench.testbed.base import Segment


@contextmanager
def busy(*directions):
    """Keep connections full: each is (sending socket, receiving socket)."""
    stop = threading.Event()

    def send(end):
        with suppress(OSError):
            while not stop.is_set():
                end.send(bytes(1 << 16))

    def receive(end):
        with suppress(OSError):
            while end.recv(1 << 20):
                pass

    threads = [threading.Thread(target=send, args=[one]) for one, _ in directions]
    threads += [threading.Thread(target=receive, args=[other]) for _, other in directions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for one, other in directions:
            for end in (one, other):
                with suppress(OSError):  # the other end came first
                    end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


# ---------------------------------------------------------------------- links


def rate_between(one, other):
    """Return bit/s between two marks (begin, bits, end): too few if reading them took long."""
    return (other[1] - one[1]) / (other[2] - one[0])


def test_links_carry_their_rate_in_each_direction(live_testbed, fleet_of, connected):
    rates = [2.5e6, 20e6, 100e6]
    down, up = np.array(rates), np.array(rates) * 0.8
    tables = {}
    with live_testbed().up(fleet_of(rates)) as net:
        for client, rate in enumerate(up):
            net.set_rate(client, rate, "up")
        whole, best = {}, {}
        for way in ("down", "up"):
            with (
                connected(net, 0, 7000) as first,
                connected(net, 1, 7001) as second,
                connected(net, 2, 7002) as third,
            ):
                pairs = [first, second, third]
                ends = pairs if way == "up" else [pair[::-1] for pair in pairs]
                with busy(*ends):
                    time.sleep(0.5)  # what the buckets had saved up is gone
                    marks = []
                    for _ in range(6):
                        begin = time.monotonic()
                        marks.append((begin, net.carried_bytes(way) * 8, time.monotonic()))
                        time.sleep(0.4)
                    tables[way] = net.links(window_s=1)
            whole[way] = rate_between(marks[0], marks[-1])
            best[way] = np.max([rate_between(*pair) for pair in itertools.pairwise(marks)], axis=0)
    for way, rate in (("down", down), ("up", up)):
        assert (whole[way] < 1.02 * rate).all(), whole
        assert (best[way] > 0.98 * rate).all(), best  # a busy machine cannot always send enough
        np.testing.assert_array_equal(tables[way][f"requested_{way}_bps"], rate)
        assert (tables[way][f"measured_{way}_bps"] > 0.3 * rate).all()
        assert (tables[way][f"measured_{way}_bps"] < 1.05 * rate).all()


def test_the_kernel_has_the_rates_that_were_asked_for(live_testbed, fleet_of, missing):
    if shutil.which("tc") is None:
        missing("namespaces", "there is no tc to read them with")
    with live_testbed().up(fleet_of(np.full(5, 8e6))) as net:
        net.set_rate("client-3", 5e6)
        net.set_rate(4, 3e6, "up")

        def shown(client):
            program = net.inside.spawn(
                ["tc", "qdisc", "show", "dev", net.inside.interface], client=client
            )
            assert program.wait(10) == 0
            words = program.log.read_text().splitlines()[-1].split()
            return words[words.index("rate") + 1]

        assert [shown(client) for client in (0, 3, 4)] == ["8Mbit", "5Mbit", "3Mbit"]
        np.testing.assert_array_equal(net.rates_bps("down"), [8e6, 8e6, 8e6, 5e6, 8e6])
        np.testing.assert_array_equal(net.rates_bps("up"), [8e6, 8e6, 8e6, 5e6, 3e6])


def test_a_rate_changes_in_mid_transfer(live_testbed, fleet_of, connected):
    with live_testbed().up(fleet_of([4e6])) as net, connected(net, 0) as (near, far):
        payload = bytes(1_500_000)  # 3 s at 4 Mbit/s
        begin = time.monotonic()
        sender = threading.Thread(target=near.sendall, args=[payload])
        sender.start()
        got = 0
        while got < 500_000:
            got += len(far.recv(1 << 16))
        net.set_rate(0, 40e6)
        while got < len(payload):
            got += len(far.recv(1 << 16))
        sender.join()
        # 1 s at the old rate and 0.2 s at the new one; all at the old one would take 3 s.
        assert 0.9 < time.monotonic() - begin < 2.5


class Steps:
    """A schedule that doubles the rate in each period."""

    def __init__(self, period_s):
        self.period_s = period_s

    def segment(self, fleet, time_s):
        period = int(time_s / self.period_s)
        rates = np.full(len(fleet), 1e6 * 2.0 ** min(period, 6))
        return Segment(rates, rates, (period + 1) * self.period_s)


def test_links_follow_a_schedule_and_tell(live_testbed, fleet_of, wait_until):
    told = []
    with live_testbed().up(fleet_of(np.full(3, 9e6))) as net:
        net.on_change(told.append)
        net.follow(Steps(0.2))
        wait_until(lambda: bool((net.rates_bps() == 64e6).all()))
        rates = sorted({change.down_bps for change in told})
        net.follow(None)
        net.set_rate(1, 7e6)
        np.testing.assert_array_equal(net.rates_bps(), [64e6, 7e6, 64e6])
    assert len(rates) >= 4
    assert {change.what for change in told} == {"rate"}
    assert told[-1].client == "client-1"


# ---------------------------------------------------------------------- cut, heal, remove, add


def test_nothing_passes_a_cut_link_until_it_is_healed(live_testbed, fleet_of, connected):
    told = []
    with live_testbed().up(fleet_of([20e6, 20e6])) as net, connected(net, 0) as (near, far):
        net.on_change(lambda change: told.append((change.what, change.client, change.down_bps)))
        near.send(b"before")
        assert far.recv(100) == b"before"
        net.cut("client-0")
        np.testing.assert_array_equal(net.rates_bps(), [0, 20e6])
        far.settimeout(0.7)
        for one, other in ((near, far), (far, near)):
            one.send(b"lost?")
            other.settimeout(0.7)
            with pytest.raises(TimeoutError):
                other.recv(100)
        assert net.present().all()
        net.heal("client-0")
        for end in (near, far):
            end.settimeout(20)
            assert end.recv(100) == b"lost?"  # TCP sends again what was lost
        assert told == [("cut", "client-0", 0.0), ("heal", "client-0", 20e6)]


@pytest.mark.parametrize("client", [0, None])
def test_connections_outlive_a_long_cut(live_testbed, fleet_of, client):
    """By Linux' own settings TCP gives up 8 s after a cut, or waits for minutes after it.

    An answer that a server sent just before the cut, and closed behind, is given up after 11 s.
    """
    with live_testbed().up(fleet_of([20e6])) as net:
        names = ["tcp_retries2", "tcp_orphan_retries", "tcp_rto_max_ms"]
        files = [f"/proc/sys/net/ipv4/{name}" for name in names]
        if not all(Path(each).exists() for each in files):
            pytest.skip(f"this kernel lacks some of {names}")
        program = net.inside.spawn(["cat", *files], client=client)
        assert program.wait(10) == 0
        retries, retries_of_closed, longest_ms = program.log.read_text().split()
        assert int(retries) * 500 > 120_000
        assert int(retries_of_closed) * 500 > 120_000
        assert int(longest_ms) <= 2000


def test_a_zero_in_one_direction_is_an_outage_of_that_direction(live_testbed, fleet_of):
    with (
        live_testbed().up(fleet_of([20e6])) as net,
        closing(net.inside.socket(None, kind=socket.SOCK_DGRAM)) as server,
        closing(net.inside.socket(0, kind=socket.SOCK_DGRAM)) as client,
    ):
        server.bind((net.inside.address(), 5000))
        client.bind((net.inside.address(0), 5000))
        for end in (server, client):
            end.settimeout(0.5)
        client.sendto(b"hello", (net.inside.address(), 5000))  # both know the way now
        assert server.recv(100) == b"hello"
        net.set_rate(0, 0, "up")
        client.sendto(b"up", (net.inside.address(), 5000))
        server.sendto(b"down", (net.inside.address(0), 5000))
        assert client.recv(100) == b"down"
        with pytest.raises(TimeoutError):
            server.recv(100)


def test_clients_come_and_go(live_testbed, fleet_of, connected, wait_until, clients_of):
    told = []

    with live_testbed().up(fleet_of(np.full(4, 20e6))) as net:
        net.on_change(lambda change: told.append((change.what, change.client)))
        heard = []
        clients = clients_of(net, lambda *said: heard.append(said))
        wait_until(lambda: bool((clients.processes > 0).all()))
        first = int(clients.processes[2])
        net.remove("client-2")
        assert clients.wait_ended(2, 10)
        assert linux.start_time(first) == 0
        assert net.present().tolist() == [True, True, False, True]
        with pytest.raises(RuntimeError, match="client 2 has no link"):
            net.inside.socket(2)
        net.remove("client-2")  # twice is once
        net.add("client-2")
        clients.start([2])
        clients.tell([0, 2], "again")
        wait_until(lambda: (2, {"answer": [2, "again"]}) in heard)
        with connected(net, 2) as (near, far):
            near.send(b"back")
            assert far.recv(100) == b"back"
        clients.close()
    assert (2, {"ended": -9}) in heard
    assert told == [("remove", "client-2"), ("add", "client-2")]


def test_wrong_values_are_refused(live_testbed, fleet_of):
    with live_testbed().up(fleet_of([20e6])) as net:
        with pytest.raises(ValueError, match="rate_bps is -1"):
            net.set_rate(0, -1)
        with pytest.raises(ValueError, match="8 to 3e"):
            net.set_rate(0, 1e12)
        with pytest.raises(KeyError, match="no client 'nobody'"):
            net.cut("nobody")
        np.testing.assert_array_equal(net.rates_bps(), [20e6])
    for wrong in ({"latency_s": -1}, {"loss": 1.5}, {"schedule": "often"}, {"speed": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            live_testbed(**wrong)


# ---------------------------------------------------------------------- delay and loss


def test_delay_is_there_or_refused_with_the_reason(live_testbed, fleet_of, connected):
    asked = live_testbed(latency_s=0.05)
    if reason := probe.why_no_delay():
        assert "netem" in reason
        with pytest.raises(RuntimeError, match=r"no netem.*set latency_s, jitter_s and loss to 0"):
            asked.up(fleet_of([20e6]))
        return
    with asked.up(fleet_of([20e6])) as net, connected(net, 0) as (near, far):
        begin = time.monotonic()
        near.send(b"there")
        far.recv(100)
        far.send(b"back")
        near.recv(100)
        assert 0.1 <= time.monotonic() - begin < 1
