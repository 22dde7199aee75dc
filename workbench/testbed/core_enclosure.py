"""The ways into the nodes of a CORE session: sockets, programs and processes of one's own.

The daemon is told of nodes and links by its API. Into the nodes it is the same way as on a
namespace testbed: a keeper on this machine holds their namespaces and opens sockets there, so
that the notebook reaches the SuperLink in the server's node while nothing listens on the host.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.testbed import core_guard, linux
from workbench.testbed.addresses import Delay
from workbench.testbed.container_enclosure import ContainerEnclosure
from workbench.testbed.core_client import CoreClient, CoreError, CoreLostError
from workbench.testbed.core_containers import CoreContainers
from workbench.testbed.core_remains import Record, numbers_in_use
from workbench.testbed.core_session import CoreSession
from workbench.testbed.enclosure import NetworkLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from workbench.scenario import Scenario
    from workbench.testbed.channel import Channel
    from workbench.testbed.containers import Limits
    from workbench.testbed.core_session import Heard
    from workbench.testbed.keeper import Settings

FIREWALL = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
"""Whether frames on bridges, such as CORE's switches, pass the machine's firewall."""
_ATTEMPTS = 6
NEEDS_ROOT = (
    "the nodes of a core-daemon belong to root, and sockets are opened in them; run the notebook "
    "as root, on the daemon's machine"
)


class CoreEnclosure(ContainerEnclosure):
    """A CORE session and its nodes; clients are given by their row, the server by None.

    Parameters
    ----------
    address
        ``host:port`` of the daemon.
    scenario
        The session's nodes and links.
    delay
        What every link adds to its rate; only where CORE shapes.
    core_shapes
        Whether CORE limits the links, by the kernel's netem; if not, they get the token buckets
        of the other live testbeds.
    limits
        What Docker nodes may use; None where clients are plain nodes.

    Attributes
    ----------
    session
        The session, as CORE knows it.
    """

    interface = "eth0"
    containers: CoreContainers

    def __init__(
        self,
        address: str,
        scenario: Scenario,
        delay: Delay,
        *,
        core_shapes: bool,
        limits: Limits | None,
    ) -> None:
        if not linux.may_administer():
            raise RuntimeError(NEEDS_ROOT)
        self._client = CoreClient(address)
        self._scenario = scenario
        self._core_shapes = core_shapes
        self._end_watch: Callable[[], None] = lambda: None
        self._ending = threading.Lock()
        self.in_containers = limits is not None
        try:
            super().__init__(Delay(), rootless=False)
        except BaseException:
            self._client.close()
            raise
        try:
            self._begin(delay, limits)
        except BaseException:
            self.close()
            raise

    def _begin(self, delay: Delay, limits: Limits | None) -> None:
        compose = ""
        if limits is not None:
            self.containers = CoreContainers(
                limits,
                self.mark,
                self.folder,
                name=lambda row: self.session.name(self._scenario.clients[row]),
                node=lambda row: self._scenario.clients[row],
            )
            compose = str(self.containers.compose)
        self.session = CoreSession(
            self._client,
            self._scenario,
            mark=self.mark,
            delay=delay,
            compose=compose,
            avoid=numbers_in_use(),
        )
        self._record = Record.of(
            self.mark,
            self._client.address,
            self.session.number,
            self.session.directory,
            containers=self.in_containers,
        )
        self._guard = core_guard.start(self._record.folder, f"{self.mark}-guard")

    def _fork_keeper(self, settings: Settings) -> tuple[Channel, int]:
        from workbench.testbed.core_keeper import CoreKeeper  # noqa: PLC0415  # only Linux has it
        from workbench.testbed.keeper import fork_keeper  # noqa: PLC0415

        return fork_keeper(settings, CoreKeeper)

    # ------------------------------------------------------------------ what can be asked

    def ask(self, **question: object) -> tuple[Any, list[int]]:
        """Ask the keeper to do something; see `Enclosure.ask`."""
        if self.lost and self._process:
            raise NetworkLostError(f"the testbed is down: {self.lost}")
        return super().ask(**question)

    def join(
        self,
        clients: Mapping[int, str],
        down_bps: NDArray[np.float64],
        up_bps: NDArray[np.float64],
    ) -> None:
        """Put up the session with its clients, or put clients back; rates are (N,) in bit/s."""
        for row in clients:
            if self.in_containers:
                self.containers.prepare(row)
        if not self.session.started:
            self.session.start()
            server = self._first_process(self._scenario.server)
            self._record.note([server])
            self.ask(do="server", process=server, ports=os.getpid())
        else:
            for row in clients:
                self.session.add(row)
        processes = {row: self._client_process(row) for row in clients}
        self._record.note(list(processes.values()))
        for row, process in processes.items():
            self.ask(
                do="adopt",
                row=row,
                process=process,
                inner=self.session.inner(self._scenario.clients[row]),
                port=self.session.port(row),
                down_bps=None if self._core_shapes else float(down_bps[row]),
                up_bps=None if self._core_shapes else float(up_bps[row]),
            )
        if self._core_shapes:
            self.session.set_rates(
                {row: (float(down_bps[row]), float(up_bps[row])) for row in clients}
            )
        self._check_firewall([row for row in clients if down_bps[row] and up_bps[row]])

    def leave(self, client: int) -> None:
        """Take a client's node away, with its link and its processes."""
        super().leave(client)
        self.session.remove(client)

    def set_rates(self, rates: Sequence[tuple[int, float | None, float | None]]) -> None:
        """Set link rates: (row, down, up) in bit/s; None leaves a direction as it is."""
        if not self._core_shapes:
            super().set_rates(rates)
            return
        if self.lost:
            raise NetworkLostError(f"the testbed is down: {self.lost}")
        try:
            self.session.set_rates({row: (down, up) for row, down, up in rates})
        except CoreLostError as error:
            raise NetworkLostError(f"the testbed is down: {error}") from error

    def address(self, client: int | None = None) -> str:
        """Return the IPv4 address of a client or the server."""
        node = self._scenario.server if client is None else self._scenario.clients[client]
        return self._scenario.link_of(node).one.ip4

    def watch(self, heard: Heard) -> None:
        """Tell what others do to the session, from now on."""
        self._end_watch = self.session.watch(heard)

    def close(self) -> None:
        """End every process inside and delete the session; a second call does nothing."""
        if not self._process:
            return
        with self._ending:
            self._end_watch()
            super().close()
            if hasattr(self, "session"):
                self._delete()
            if hasattr(self, "containers"):
                self.containers.close()
            self._client.close()

    def _delete(self) -> None:
        with suppress(CoreError):
            self.session.delete()
        if hasattr(self, "_record"):
            self._record.remove()  # what a daemon that is gone, or that failed, has left
        if hasattr(self, "_guard"):
            self._guard.kill()
            self._guard.wait()

    def _check_firewall(self, clients: Sequence[int]) -> None:
        """Send something over a link, where frames on bridges pass the machine's firewall."""
        if not clients or not FIREWALL.exists() or FIREWALL.read_text().strip() != "1":
            return
        kind = socket.SOCK_DGRAM
        with self.socket(None, kind=kind) as server, self.socket(clients[0], kind=kind) as client:
            server.bind((self.address(), 0))
            server.settimeout(0.5)
            for _ in range(_ATTEMPTS):
                client.sendto(b"hello", server.getsockname())
                with suppress(TimeoutError):
                    server.recv(16)
                    return
        raise RuntimeError(
            "the session is up, but nothing passes its links: this machine's firewall drops frames "
            "on bridges, as Docker sets it up to; run iptables -P FORWARD ACCEPT, or "
            "sysctl net.bridge.bridge-nf-call-iptables=0"
        )

    # ------------------------------------------------------------------ nodes' processes

    def _client_process(self, row: int) -> int:
        if self.in_containers:
            return self.containers.find(row)
        return self._first_process(self._scenario.clients[row])

    def _first_process(self, node: int) -> int:
        """Return the number of the process that CORE has started a plain node with."""
        path = self.session.directory / f"{self.session.name(node)}.pid"
        try:
            process = int(path.read_text())
            other = linux.namespace_id("net", process) != linux.namespace_id()
        except (OSError, ValueError) as error:
            raise CoreError(
                f"CORE has started {self.session.name(node)}, but {path} does not lead to its "
                f"process: {error}"
            ) from error
        if not other:
            raise CoreError(f"process {process} of {path} is in the host's network, not in a node")
        return process
