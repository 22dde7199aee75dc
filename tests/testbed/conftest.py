"""What the tests of live networks share: small fleets, connections, patience."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest

from workbench.fleet import Fleet
from workbench.testbed.nursery import ClientProcesses


@pytest.fixture(scope="session")
def fleet_of() -> Callable[..., Fleet]:
    """Return a function that makes a fleet with the given link rates."""

    def make(rates_bps) -> Fleet:
        rates = np.asarray(rates_bps, dtype=float)
        counts = np.ones((len(rates), 4), dtype=int)
        return Fleet.from_label_counts(counts, rate_bps=rates, seed=1)

    return make


@pytest.fixture(scope="session")
def connected() -> Callable[..., Iterator]:
    """Return a context manager that gives (client's end, server's end) of a TCP connection."""

    @contextmanager
    def connect(net, client, port=7000):
        with closing(net.inside.socket()) as listener, closing(net.inside.socket(client)) as near:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((net.inside.address(), port))
            listener.listen()
            near.settimeout(10)
            near.connect((net.inside.address(), port))
            far, _ = listener.accept()
            far.settimeout(10)
            with closing(far):
                yield near, far

    return connect


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Return a function that waits until something is true, and fails if it takes too long."""

    def wait(true: Callable[[], object], timeout_s: float = 10.0) -> None:
        end = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.01)

    return wait


ECHO = """
import json, sys
row = json.loads(sys.stdin.readline())["row"]
print(json.dumps({"ready": row}), flush=True)
for line in sys.stdin:
    print(json.dumps({"answer": [row, json.loads(line)]}), flush=True)
"""
"""What `echo` does, for clients that have none of this process's memory."""


def echo(row, channel):
    channel.send({"ready": row})
    while True:
        message, _ = channel.receive()
        channel.send({"answer": [row, message]})


@pytest.fixture(scope="session")
def clients_of() -> Callable[..., ClientProcesses]:
    """Return a function that starts a process for each client, which answers what it is told."""

    def start(net, heard) -> ClientProcesses:
        clients = len(net.fleet)
        if net.inside.in_containers:
            command = ["python3", "-c", ECHO]
            made = net.inside.run_clients(command, lambda row: {"row": row}, clients, heard)
        else:
            made = net.inside.fork_clients(echo, clients, heard)
        made.start(range(clients))
        return made

    return start
