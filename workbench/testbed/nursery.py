"""Client processes of a live testbed: one Python function, run once for each client.

Starting Python and importing torch for every client would take minutes and gigabytes. Here the
notebook's process is forked once, with all that it has loaded; that child, the nursery, is forked
again for every client, inside the client's network namespace. Memory is shared until it is
written to. The function may be a closure over anything, because nothing is sent.

The nursery tells what the clients say and how they end, and passes on what they are told. It ends
with the notebook's process, and its children with the keeper.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np

from workbench.testbed import linux
from workbench.testbed.channel import Channel, ChannelClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

Run: TypeAlias = "Callable[[int, Channel], None]"
"""What a client does: given its row and a channel, on which it may speak and is spoken to."""

_POLITENESS = 5
"""Clients compute at a lower priority than what carries their messages."""


class ClientProcesses:
    """The running client processes, as seen from the notebook.

    Parameters
    ----------
    run
        What each client does; it is called in a process of its own.
    clients
        How many clients the fleet has.
    keeper
        A channel to the testbed's keeper, for the nursery alone.
    heard
        Called with the row and the message whenever a client says something, and with
        ``{"ended": status}`` (as `subprocess` tells it) when its process has ended. It is called
        on a thread of this object.
    """

    def __init__(
        self,
        run: Run,
        clients: int,
        keeper: Channel,
        heard: Callable[[int, dict[str, Any]], None],
        *,
        mark: str,
        log: str,
    ) -> None:
        self._processes: NDArray[np.int64] = np.zeros(clients, dtype=np.int64)
        self._heard = heard
        self._changed = threading.Condition()
        self._channel, far = Channel.pair()
        notebook = os.pidfd_open(os.getpid())
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._nursery = linux.fork()
        if self._nursery == 0:
            _be_nursery(run, _Ends(far, keeper, notebook, output), mark)
        for descriptor in (notebook, output):
            os.close(descriptor)
        far.forget()
        keeper.forget()
        self._listener = threading.Thread(target=self._listen, name=f"{mark}-hear", daemon=True)
        self._listener.start()

    # ------------------------------------------------------------------ what can be done

    def start(self, rows: Iterable[int]) -> None:
        """Start these clients' processes; returns at once."""
        self._channel.send({"start": [int(row) for row in rows]})

    def tell(self, rows: Iterable[int], message: object) -> None:
        """Pass a message on to these clients; those without a process miss it."""
        self._channel.send({"tell": [int(row) for row in rows], "message": message})

    def kill(self, client: int) -> None:
        """Kill a client's process; nothing happens when it has none."""
        self._channel.send({"kill": [int(client)]})

    def wait_ended(self, client: int, timeout_s: float) -> bool:
        """Wait until a client's process has ended; False if it still runs after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._processes[client], timeout_s)

    @property
    def processes(self) -> NDArray[np.int64]:
        """(N,) process number of each client, 0 where it has none."""
        with self._changed:
            return self._processes.copy()

    def close(self) -> None:
        """Kill all client processes and end the nursery; a second call does nothing."""
        if not self._nursery:
            return
        self._channel.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._nursery, 0)
        self._nursery = 0
        self._listener.join()
        self._channel.forget()

    # ------------------------------------------------------------------ what is heard

    def _listen(self) -> None:
        with contextlib.suppress(ChannelClosedError):
            while True:
                message, _ = self._channel.receive()
                row, said = message["row"], message["said"]
                with self._changed:
                    if "process" in said:
                        self._processes[row] = said["process"]
                    if "ended" in said:
                        self._processes[row] = 0
                    self._changed.notify_all()
                self._heard(row, said)
        with self._changed:
            lost = np.flatnonzero(self._processes)
            self._processes[:] = 0
            self._changed.notify_all()
        for row in lost:
            self._heard(int(row), {"ended": -int(signal.SIGKILL)})


# ---------------------------------------------------------------------- in the nursery


@dataclass(frozen=True)
class _Ends:
    """What the nursery keeps of the notebook's open descriptors."""

    channel: Channel
    keeper: Channel
    notebook: int
    output: int


def _be_nursery(run: Run, ends: _Ends, mark: str) -> NoReturn:
    try:
        kept = {ends.channel.fileno(), ends.keeper.fileno(), ends.notebook}
        linux.leave_parent_behind(kept, output=ends.output)
        linux.set_process_name(f"{mark}-nurse")
        linux.set_niceness(_POLITENESS)
        linux.allow_many_descriptors()
        _, namespaces = ends.keeper.request(do="processes")
        for namespace in namespaces:  # the user's comes first: it grants the right to the others
            linux.enter(namespace)
            os.close(namespace)
        _Nursery(run, ends, mark).serve()
    except BaseException:  # noqa: BLE001  # a forked child must end here
        traceback.print_exc()
    finally:
        os._exit(1)


class _Nursery:
    def __init__(self, run: Run, ends: _Ends, mark: str) -> None:
        self._run = run
        self._ends = ends
        self._mark = mark
        self._row_of: dict[int, int] = {}
        self._channels: dict[int, Channel] = {}
        self._rows: dict[int, int] = {}
        # A signal handler in Python runs late; a byte on a pipe wakes the poll at once.
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll = select.poll()
        for end in (ends.notebook, ends.channel, ends.keeper, self._woken):
            self._poll.register(end, select.POLLIN)

    def serve(self) -> NoReturn:
        """Serve until the notebook closes the channel, or it or the keeper ends."""
        with contextlib.suppress(ChannelClosedError):
            while True:
                for descriptor, _ in self._poll.poll():
                    if descriptor == self._woken:
                        os.read(self._woken, 4096)
                    elif descriptor == self._ends.channel.fileno():
                        self._obey()
                    elif descriptor in {self._ends.notebook, self._ends.keeper.fileno()}:
                        raise ChannelClosedError("the testbed was taken down")
                    elif descriptor in self._rows:
                        self._pass_on(self._rows[descriptor])
                self._reap()
        for process in self._row_of:
            os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        os._exit(0)

    def _obey(self) -> None:
        order, _ = self._ends.channel.receive()
        for row in order.get("start", []):
            try:
                self._start(row)
            except (OSError, RuntimeError) as error:
                self._say(row, {"failed": str(error), "ended": 1})
        for process, row in self._row_of.items():
            if row in order.get("kill", []):
                os.kill(process, signal.SIGKILL)
        for row in order.get("tell", []):
            if row in self._channels:
                with contextlib.suppress(ChannelClosedError):
                    self._channels[row].send(order["message"])

    def _start(self, row: int) -> None:
        _, (network,) = self._ends.keeper.request(do="network", where=row)
        linux.enter(network, linux.NEW_NETWORK)
        os.close(network)
        near, far = Channel.pair()
        process = os.fork()
        if process == 0:
            self._be_client(row, far)
        far.forget()
        self._row_of[process] = row
        self._channels[row] = near
        self._rows[near.fileno()] = row
        self._poll.register(near, select.POLLIN)
        self._say(row, {"process": process})

    def _be_client(self, row: int, channel: Channel) -> NoReturn:
        status = 1
        try:
            # All clients stay in the nursery's session: were each a session of its own, Linux
            # would give each as much time as it gives the SuperLink.
            linux.leave_parent_behind({channel.fileno()}, output=os.dup(1), new_session=False)
            linux.die_with_parent()
            linux.set_process_name(f"{self._mark}-{row}")
            self._run(row, channel)
            status = 0
        except BaseException:  # noqa: BLE001  # a forked child must end here
            traceback.print_exc()
        finally:
            os._exit(status)

    def _pass_on(self, row: int) -> None:
        channel = self._channels[row]
        try:
            message, _ = channel.receive()
        except ChannelClosedError:
            self._forget(row)
            return
        self._say(row, message)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                row = self._row_of.pop(found[0], None)
                if row is not None:
                    self._forget(row)
                    self._say(row, {"ended": os.waitstatus_to_exitcode(found[1])})

    def _forget(self, row: int) -> None:
        channel = self._channels.pop(row, None)
        if channel is not None:
            del self._rows[channel.fileno()]
            self._poll.unregister(channel)
            channel.forget()

    def _say(self, row: int, said: dict[str, Any]) -> None:
        self._ends.channel.send({"row": row, "said": said})
