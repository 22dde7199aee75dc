"""A deployment: a stock SuperLink with TLS and node authentication, and stock SuperNodes."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import workbench as wb
from workbench.federation import deployed
from workbench.federation.client import make_client_app
from workbench.federation.dispatch import RoundLimits
from workbench.federation.engines import open_engine
from workbench.federation.joined import JoinedEngine, register_node
from workbench.federation.live_grid import SuperLinkLostError
from workbench.federation.nodes import discover
from workbench.federation.payload import flatten
from workbench.federation.records import Group, Job
from workbench.federation.rounds import RoundDriver, RoundKey
from workbench.federation.strategies import FedAvg
from workbench.pruning import codec
from workbench.testbed.joined import SuperLinkTestbed

NODES = 2
PROGRAMS = Path(sys.executable).parent
PROJECT = Path(wb.__file__).parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_certificates(folder: Path) -> None:
    """Write ca.crt, and server.crt with server.key for 127.0.0.1, signed by it."""
    now = dt.datetime.now(dt.UTC)

    def make(name, key, issuer, issuer_key, *, authority):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            local = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([local]), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = serialization.Encoding.PEM
    root = make("test authority", authority, "test authority", authority, authority=True)
    signed = make("127.0.0.1", server, "test authority", authority, authority=False)
    (folder / "ca.crt").write_bytes(root.public_bytes(pem))
    (folder / "server.crt").write_bytes(signed.public_bytes(pem))
    (folder / "server.key").write_bytes(
        server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def write_key(path: Path) -> bytes:
    """Write a node's private key as OpenSSH has it; return its public key as PEM."""
    key = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@contextmanager
def running(folder: Path, name: str, *command: str):
    """Run a program with its output in a file; end it and its children."""
    home = folder / f"{name}-home"
    home.mkdir(exist_ok=True)
    environment = os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONPATH": str(PROJECT),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
    }
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [str(PROGRAMS / command[0]), *command[1:]],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def node_command(folder: Path, testbed: SuperLinkTestbed, number: int, config: str) -> list[str]:
    return [
        "flower-supernode",
        "--superlink",
        testbed.address,
        "--root-certificates",
        testbed.certificates,
        "--auth-supernode-private-key",
        str(folder / f"key-{number}"),
        "--port",
        str(free_port()),
        "--max-retries",
        "2",
        "--node-config",
        config,
    ]


@pytest.fixture(scope="module")
def superlink(tmp_path_factory):
    """A stock SuperLink on loopback with TLS and node authentication: (its folder, testbed)."""
    folder = tmp_path_factory.mktemp("superlink")
    write_certificates(folder)
    port = free_port()
    command = ["flower-superlink", "--isolation", "process", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--enable-supernode-auth"]
    command += ["--disable-runtime-dependency-installation"]
    for option, name in (("certfile", "server.crt"), ("keyfile", "server.key")):
        command += [f"--ssl-{option}", str(folder / name)]
    command += ["--ssl-ca-certfile", str(folder / "ca.crt")]
    with running(folder, "superlink", *command) as process:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "superlink.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
        yield folder, SuperLinkTestbed(f"127.0.0.1:{port}", str(folder / "ca.crt"))


@pytest.fixture(scope="module")
def fleet(digits):
    return wb.Fleet.dirichlet(digits, clients=NODES, alpha=1.0, seed=2)


def test_stock_nodes_train_the_same_as_clients_in_this_process(superlink, digits, fleet, tmp_path):
    folder, testbed = superlink
    shares = deployed.write_shares(digits, fleet, tmp_path)
    torch.manual_seed(0)
    pixels = int(np.prod(digits.input_shape))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(pixels, 10))
    job = Job(0, codec.describe(model, digits.input_shape), flatten(model), 10 * pixels)
    everyone = [Group(0, np.arange(NODES))]
    key = RoundKey(iteration=1, round=1, rounds=1, seed=5)
    strategy = FedAvg(rounds=1, local_epochs=1, batch_size=32, learning_rate=0.1)
    limits = RoundLimits(deadline_s=200)
    outcomes = []
    with ExitStack() as nodes:
        for number, share in enumerate(shares):
            register_node(testbed, write_key(folder / f"key-{number}"))
            command = node_command(folder, testbed, number, share["node_config"])
            nodes.enter_context(running(folder, f"node-{number}", *command))
        for each in (testbed, wb.SimulatedTestbed()):
            with (
                each.up(fleet) as network,
                open_engine(network, make_client_app(digits, fleet)) as engine,
            ):
                known = discover(engine.grid, NODES, timeout_s=200)
                driver = RoundDriver(engine.grid, engine.time, known, limits)
                outcomes += driver.train([job], everyone, strategy, key, test=True)
    stock, simulated = outcomes
    assert [(each.status, each.reason) for each in stock.clients] == [("ok", "")] * NODES
    assert stock.accuracy == simulated.accuracy
    np.testing.assert_allclose(stock.weights["float32"], simulated.weights["float32"], atol=1e-6)


def test_a_node_with_an_unknown_key_is_turned_away(superlink):
    folder, testbed = superlink
    write_key(folder / "key-9")  # and nobody registers it
    command = node_command(folder, testbed, 9, "partition-id=0 num-partitions=1")
    with running(folder, "stranger", *command) as stranger:
        assert stranger.wait(120) != 0
    said = (folder / "stranger.log").read_text()
    assert "SuperNode ID" not in said
    assert "SuperNode" in said
    with JoinedEngine(testbed.up(wb.Fleet.from_label_counts([[1]]))) as engine:
        strangers = set(engine.grid.get_node_ids())
    assert strangers == set()


def test_a_superlink_that_is_not_trusted_is_refused(superlink, tmp_path):
    _, testbed = superlink
    write_certificates(tmp_path)  # another authority
    fleet = wb.Fleet.from_label_counts([[1]])
    for stranger in (
        SuperLinkTestbed(testbed.address, str(tmp_path / "ca.crt")),
        SuperLinkTestbed(testbed.address),
    ):
        with pytest.raises(SuperLinkLostError, match="its certificate is not trusted here"):
            JoinedEngine(stranger.up(fleet)).__enter__()


def test_nobody_there_is_a_clear_error():
    testbed = SuperLinkTestbed(f"127.0.0.1:{free_port()}", insecure=True)
    network = testbed.up(wb.Fleet.from_label_counts([[1]]))
    with pytest.raises(SuperLinkLostError, match=r"no connection to the SuperLink at 127.0.0.1"):
        JoinedEngine(network).__enter__()


def test_what_cannot_be_controlled_is_refused():
    fleet = wb.Fleet.from_label_counts([[1, 2], [3, 4]], rate_bps=[5e6, 7e6])
    with SuperLinkTestbed("superlink.example:9092").up(fleet) as network:
        np.testing.assert_array_equal(network.rates_bps(), [5e6, 7e6])
        assert network.links()["measured_up_bps"].isna().all()
        assert network.present().all()
        for control in (
            lambda: network.set_rate(0, 1e6),
            lambda: network.cut(0),
            lambda: network.heal(0),
            lambda: network.remove(0),
            lambda: network.follow(wb.TierSchedule()),
        ):
            with pytest.raises(RuntimeError, match="that this testbed does not control"):
                control()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"address": "superlink.example"}, "address"),
        ({"address": "https://superlink.example:9092"}, "address"),
        ({"address": "a:1", "insecure": True, "certificates": "ca.crt"}, "certificates"),
        ({"address": "a:1", "token": "x"}, "token"),
    ],
)
def test_wrong_values_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        SuperLinkTestbed(**settings)


def test_a_certificate_file_that_is_missing_is_named(tmp_path):
    testbed = SuperLinkTestbed("a:1", certificates=str(tmp_path / "none.crt"))
    with pytest.raises(FileNotFoundError, match=r"none\.crt"):
        testbed.up(wb.Fleet.from_label_counts([[1]]))
