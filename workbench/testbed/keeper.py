"""The process that keeps a live testbed's namespaces, and does in them what it is asked.

It is forked from the notebook and is the first process of a process namespace of its own. All
other processes of the testbed run in that namespace, and all network namespaces are held by its
descriptors and theirs alone. So when it ends, for whatever reason, the kernel ends them all, and
with the last of them bridges, links and namespaces are gone. It ends when the notebook says so,
and as soon as the notebook's process does not exist any more, be it by SIGKILL.

The layout: the keeper's own network namespace is the switch, with a bridge. The server and every
client have a network namespace of their own with one veth pair to the bridge. A client's pair has
a token bucket at either end.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from workbench.testbed import linux
from workbench.testbed.channel import Channel, ChannelClosedError
from workbench.testbed.shaping import Shaper
from workbench.testbed.wiring import Switch

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.testbed.addresses import Delay

_SETTLE_MS = 100
"""How often it is looked whether a link that became slower can have its smaller burst."""


@dataclass(frozen=True)
class Settings:
    """What a keeper is told when it is forked."""

    mark: str
    folder: str
    rootless: bool
    delay: Delay
    host_network: int
    """Number of the network namespace in which nothing may be touched."""


@dataclass
class Link:
    """A client's link, as its keeper sees it."""

    namespace: int
    down: int
    """Index of the port on the switch."""
    up: int
    """Index of the client's interface."""
    shaper: Shaper
    """For what the client sends."""


class Answer(NamedTuple):
    """What is sent back to who asked."""

    value: Any = None
    lasting: tuple[int, ...] = ()
    """Descriptors that are handed over and stay open here."""
    passing: tuple[int, ...] = ()
    """Descriptors that are handed over and closed here."""


def fork_keeper(settings: Settings, kind: type[Keeper] | None = None) -> tuple[Channel, int]:
    """Fork a keeper; return the channel to it and the process to wait for after closing it.

    Raises
    ------
    RuntimeError
        If the kernel does not allow what is needed; the message is its reason.
    """
    near, far = Channel.pair()
    notebook = os.pidfd_open(os.getpid())
    process = linux.fork()
    if process == 0:
        _be_forked(settings, far, notebook, kind or Keeper)
    os.close(notebook)
    far.forget()
    try:
        near.request(do="hello")
    except (ChannelClosedError, RuntimeError) as error:
        near.close()
        os.waitpid(process, 0)
        raise RuntimeError(str(error)) from error
    return near, process


def _be_forked(settings: Settings, channel: Channel, notebook: int, kind: type[Keeper]) -> NoReturn:
    """Be the keeper, or the process that waits for it."""
    try:
        linux.leave_parent_behind({channel.fileno(), notebook})
        linux.set_process_name(f"{settings.mark}-wait")
        if settings.rootless:
            linux.become_root_of_user_namespace()
        linux.unshare(linux.NEW_PROCESSES)
        # Only children of this process are inside the new process namespace.
        child = os.fork()
        if child:
            channel.forget()
            os.waitpid(child, 0)
            os._exit(0)
        linux.die_with_parent()
        linux.set_process_name(f"{settings.mark}-keep")
        linux.allow_many_descriptors()
        kind(settings, channel, notebook).serve()
    except BaseException as error:  # noqa: BLE001  # a forked child must end here, and say why
        with suppress(ChannelClosedError):
            channel.receive()
            channel.send({"error": str(error)})
    finally:
        os._exit(1)


class Keeper:
    """Does what it is asked, method by method; the names of those begin with ``do_``."""

    def __init__(self, settings: Settings, channel: Channel, notebook: int) -> None:
        self._settings = settings
        self._notebook = notebook
        self._main = channel
        self._channels = {channel.fileno(): channel}
        self._poll = select.poll()
        self._poll.register(notebook, select.POLLIN)
        self._poll.register(channel, select.POLLIN)
        self._links: dict[int, Link] = {}
        self._ended: dict[int, int] = {}

        self._home = linux.new_network()
        if linux.namespace_id() == settings.host_network:
            raise RuntimeError("still in the host's network namespace; nothing was touched")
        self._switch = Switch(settings.delay)
        self._shaper = Shaper(delayed=settings.delay.wanted)
        self._unsettled: set[Shaper] = set()
        self._server = self._new_namespace()
        self._switch.plug("server", self._server, self._home, host=1)

    # ------------------------------------------------------------------ the loop

    def serve(self) -> NoReturn:
        """Answer until the notebook closes its end, or ends."""
        while self._main.fileno() in self._channels:
            for descriptor, _ in self._poll.poll(_SETTLE_MS if self._unsettled else 1000):
                if descriptor == self._notebook:
                    self._end()
                self._serve_one(self._channels[descriptor])
            self._reap()
            self._unsettled = {shaper for shaper in self._unsettled if not shaper.settle()}
        self._end()

    def _serve_one(self, channel: Channel) -> None:
        answer = Answer()
        try:
            question, _ = channel.receive()
            action: Callable[..., Answer] = getattr(self, "do_" + question.pop("do"))
            try:
                answer = action(**question)
            except Exception as error:  # noqa: BLE001  # whoever asked is told, and we go on
                channel.send({"error": str(error)})
            else:
                channel.send({"value": answer.value}, [*answer.lasting, *answer.passing])
        except ChannelClosedError:
            self._poll.unregister(channel)
            del self._channels[channel.fileno()]
            channel.forget()
        for descriptor in answer.passing:
            os.close(descriptor)

    def _end(self) -> NoReturn:
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # every process of this namespace but the keeper
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        for _ in range(50):
            shutil.rmtree(self._settings.folder, ignore_errors=True)
            if not Path(self._settings.folder).exists():
                break
            time.sleep(0.02)  # a process that is just dying has written once more
        os._exit(0)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self._ended[found[0]] = os.waitstatus_to_exitcode(found[1])

    # ------------------------------------------------------------------ what can be asked

    def do_hello(self) -> Answer:
        """Tell that switch and server are in place."""
        return Answer()

    def do_add(
        self, row: int, name: str, down_bps: float, up_bps: float, process: int = 0
    ) -> Answer:
        """Give a client a link, and a namespace: a new one, or that of a container's process."""
        if row in self._links:
            raise ValueError(f"client {name} has a link already")
        namespace = self._new_namespace(process)
        try:
            port, inner = self._switch.plug(name, namespace, self._home, host=row + 2)
            self._shaper.set_rate(port, down_bps)
            with linux.inside(namespace, self._home):
                shaper = Shaper(delayed=self._settings.delay.wanted)
            shaper.set_rate(inner, up_bps)
        except BaseException:
            os.close(namespace)
            raise
        self._links[row] = Link(namespace, port, inner, shaper)
        return Answer()

    def do_remove(self, row: int) -> Answer:
        """Take a client's link and namespace away; its processes are killed."""
        self._kill_inside(self._namespace(row))
        link = self._links.pop(row)
        self._switch.unplug(link.down)
        self._shaper.forget(link.down)
        self._unsettled.discard(link.shaper)
        link.shaper.close()
        os.close(link.namespace)
        return Answer()

    def do_rates(self, rates: list[tuple[int, float | None, float | None]]) -> Answer:
        """Set link rates: (row, down, up) in bit/s; None leaves a direction as it is."""
        for row, down_bps, up_bps in rates:
            link = self._links[row]
            if down_bps is not None:
                self._shaper.set_rate(link.down, down_bps)
                self._unsettled.add(self._shaper)
            if up_bps is not None:
                link.shaper.set_rate(link.up, up_bps)
                self._unsettled.add(link.shaper)
        return Answer()

    def do_counters(self) -> Answer:
        """Return [row, down, up] of every link: bytes that its buckets let pass."""
        return Answer(
            [
                [row, self._shaper.passed_bytes(link.down), link.shaper.passed_bytes(link.up)]
                for row, link in self._links.items()
            ]
        )

    def do_socket(self, where: int | None, family: int, kind: int) -> Answer:
        """Hand over a new socket in a client's namespace, or (None) in the server's."""
        with linux.inside(self._namespace(where), self._home):
            opened = socket.socket(family, kind)
        return Answer(passing=(opened.detach(),))

    def do_processes(self) -> Answer:
        """Hand over the namespaces of users (only without root) and of processes, in this order."""
        kinds = ["user", "pid"] if self._settings.rootless else ["pid"]
        return Answer(kinds, passing=tuple(linux.open_namespace(kind) for kind in kinds))

    def do_network(self, where: int | None) -> Answer:
        """Hand over a client's network namespace, or (None) the server's."""
        return Answer(lasting=(self._namespace(where),))

    def do_channel(self) -> Answer:
        """Hand over a second channel, for another process that asks for itself."""
        near, far = Channel.pair()
        self._channels[near.fileno()] = near
        self._poll.register(near, select.POLLIN)
        return Answer(passing=(far.detach(),))

    def do_spawn(
        self,
        *,
        where: int | None,
        command: list[str],
        environment: dict[str, str],
        folder: str,
        output: str,
        niceness: int,
    ) -> Answer:
        """Start a program; its number here, and a descriptor that stands for it."""
        namespace = self._namespace(where)
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        child = os.fork()
        if child == 0:
            try:
                linux.enter(namespace, linux.NEW_NETWORK)
                linux.leave_parent_behind(set(), output=log)
                for number in (signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                linux.set_niceness(niceness)
                os.chdir(folder)
                os.execvpe(command[0], command, environment)  # noqa: S606  # no shell is wanted
            except BaseException as error:  # noqa: BLE001  # a forked child must end here
                os.write(2, f"{command[0]} could not be started: {error}\n".encode())
            finally:
                os._exit(127)
        os.close(log)
        return Answer(child, passing=(os.pidfd_open(child),))

    def do_ended(self, process: int) -> Answer:
        """Return how a started program ended, as `subprocess` tells it; None while it runs."""
        self._reap()
        return Answer(self._ended.get(process))

    # ------------------------------------------------------------------ helpers

    def _namespace(self, where: int | None) -> int:
        if where is None:
            return self._server
        if where not in self._links:
            raise LookupError(f"client {where} has no link: it was removed")
        return self._links[where].namespace

    def _new_namespace(self, process: int = 0) -> int:
        if process:
            namespace = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            linux.enter(namespace, linux.NEW_NETWORK)
        else:
            namespace = linux.new_network()
        try:
            self._switch.prepare(self._settings.host_network)
        finally:
            linux.enter(self._home, linux.NEW_NETWORK)
        return namespace

    def _kill_inside(self, namespace: int) -> None:
        network, processes = os.fstat(namespace).st_ino, linux.namespace_id("pid")
        for process in linux.processes():
            with suppress(OSError):
                if (
                    linux.namespace_id("net", process) == network
                    and linux.namespace_id("pid", process) == processes
                ):
                    os.kill(linux.innermost_number(process), signal.SIGKILL)
