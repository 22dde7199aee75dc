"""The ways into a live testbed's namespaces: sockets, programs and processes of one's own.

Nothing leads in but an open file descriptor. A socket belongs for ever to the namespace in which
it was opened, whichever process holds it: so the keeper opens sockets inside and hands them over,
and the notebook speaks to the server as if it were there, while nothing listens on the host. It
works in the same way with root and without, and no byte is copied by a relay.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from workbench.testbed import addresses, cleanup, linux
from workbench.testbed.addresses import INNER
from workbench.testbed.channel import Channel, ChannelClosedError
from workbench.testbed.nursery import ClientProcesses
from workbench.testbed.programs import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from workbench.testbed.addresses import Delay
    from workbench.testbed.keeper import Settings
    from workbench.testbed.nursery import Run


class NetworkLostError(ConnectionError):
    """The testbed was taken down, or its keeper was killed."""


class _Closes(Protocol):
    def close(self) -> None: ...


class Enclosure:
    """Namespaces of a testbed that is up; clients are given by their row, the server by None.

    Attributes
    ----------
    folder
        For logs and other files of this testbed; removed with it.
    mark
        What the names of its processes begin with.
    interface
        Name of the link in a client's namespace.
    in_containers
        Whether clients are containers, in which nothing of this process's memory is found.
    lost
        Why the network is lost although nothing here has ended; empty while it is not.
    """

    interface = INNER
    in_containers = False
    lost = ""

    def __init__(self, delay: Delay, *, rootless: bool | None) -> None:
        if sys.platform != "linux":
            raise RuntimeError(
                f"the namespace testbed needs Linux, and this is {sys.platform}; use "
                "SimulatedTestbed() here, or run the notebook on a Linux machine"
            )
        # What follows needs libraries that only Linux has.
        from workbench.testbed.keeper import Settings  # noqa: PLC0415

        self._process = 0
        self._started: list[_Closes] = []
        number = secrets.token_hex(3)
        if rootless is None:
            rootless = not linux.may_administer()
        self.mark = f"wb-{number}"
        self.folder = cleanup.new_folder(number)
        settings = Settings(
            mark=self.mark,
            folder=str(self.folder),
            rootless=rootless,
            delay=delay,
            host_network=linux.namespace_id(),
        )
        try:
            cleanup.write_owner(self.folder, self.mark)
            self._keeper, self._process = self._fork_keeper(settings)
        except RuntimeError as error:
            cleanup.remove_folder(self.folder)
            raise RuntimeError(_why_not(str(error), rootless=rootless)) from error
        except BaseException:
            cleanup.remove_folder(self.folder)
            raise

    def _fork_keeper(self, settings: Settings) -> tuple[Channel, int]:
        from workbench.testbed.keeper import fork_keeper  # noqa: PLC0415

        return fork_keeper(settings)

    def ask(self, **question: object) -> tuple[Any, list[int]]:
        """Ask the keeper to do something; see `workbench.testbed.keeper`.

        Raises
        ------
        NetworkLostError
            If the testbed is down.
        RuntimeError
            If it could not be done; the message says why.
        """
        try:
            return self._keeper.request(**question)
        except ChannelClosedError as error:
            reason = "its keeper process was killed" if self._process else "it was closed"
            raise NetworkLostError(f"the testbed is down: {reason}") from error

    def join(
        self,
        clients: Mapping[int, str],
        down_bps: NDArray[np.float64],
        up_bps: NDArray[np.float64],
    ) -> None:
        """Give clients, names by row, their namespaces and links; rates are (N,) in bit/s."""
        for row, name in clients.items():
            rates = {"down_bps": float(down_bps[row]), "up_bps": float(up_bps[row])}
            self.ask(do="add", row=row, name=name, **rates)

    def leave(self, client: int) -> None:
        """Take a client's namespace, link and processes away."""
        self.ask(do="remove", row=client)

    def set_rates(self, rates: Sequence[tuple[int, float | None, float | None]]) -> None:
        """Set link rates: (row, down, up) in bit/s; None leaves a direction as it is."""
        self.ask(do="rates", rates=list(rates))

    def carried(self) -> list[list[int]]:
        """Return [row, down, up] of every link: bytes that it has let pass."""
        counters, _ = self.ask(do="counters")
        return list(counters)

    def address(self, client: int | None = None) -> str:
        """Return the IPv4 address of a client or the server."""
        return addresses.address(1 if client is None else client + 2)

    def socket(
        self,
        client: int | None = None,
        family: socket.AddressFamily = socket.AF_INET,
        kind: socket.SocketKind = socket.SOCK_STREAM,
    ) -> socket.socket:
        """Return a new socket that lives in a client's or the server's namespace.

        It is used like any other, from any thread of this process; what it sends and receives
        passes the testbed's links and nothing else.
        """
        _, (descriptor,) = self.ask(do="socket", where=client, family=int(family), kind=int(kind))
        return socket.socket(fileno=descriptor)

    def spawn(
        self,
        command: Sequence[str],
        client: int | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        log: str = "program.log",
        niceness: int = 0,
    ) -> Program:
        """Start a program in a client's or the server's namespace; it ends with the testbed.

        It runs in `folder` with this process's environment and ``environment``; its output goes
        to the file ``log`` there. A ``niceness`` below 0 gives it precedence, where root may.
        """
        output = self.folder / log
        number, (descriptor,) = self.ask(
            do="spawn",
            where=client,
            command=list(command),
            environment=dict(os.environ) | dict(environment or {}),
            folder=str(self.folder),
            output=str(output),
            niceness=niceness,
        )
        started = Program(self._keeper, number, descriptor, output)
        self._started.append(started)
        return started

    def fork_clients(
        self, run: Run, clients: int, heard: Callable[[int, dict[str, Any]], None]
    ) -> ClientProcesses:
        """Fork this process, ready to run ``run`` for each client; see `ClientProcesses`."""
        _, (descriptor,) = self.ask(do="channel")
        started = ClientProcesses(
            run,
            clients,
            Channel.from_descriptor(descriptor),
            heard,
            mark=self.mark,
            log=str(self.folder / "clients.log"),
        )
        self._started.append(started)
        return started

    def close(self) -> None:
        """End every process inside and remove the folder; a second call does nothing."""
        if not self._process:
            return
        process, self._process = self._process, 0
        for started in self._started:
            started.close()
        self._keeper.close()
        with suppress(ChildProcessError):
            os.waitpid(process, 0)
        cleanup.remove_folder(self.folder)


def _why_not(reason: str, *, rootless: bool) -> str:
    """Turn the kernel's reason into one that helps."""
    if "netem" in reason:
        return reason
    if rootless:
        remedy = (
            "run as root, or allow user namespaces (sysctl user.max_user_namespaces above 0; on "
            "Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0; in Docker --privileged)"
        )
    else:
        remedy = "in a container, start it with --cap-add SYS_ADMIN --cap-add NET_ADMIN"
    return f"the namespace testbed cannot be put up here: {reason}; {remedy}"
