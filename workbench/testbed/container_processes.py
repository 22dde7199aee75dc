"""Client processes inside containers: one program for each, spoken to over its input and output.

They offer what `workbench.testbed.nursery.ClientProcesses` offers for forked processes. A message
is one line of JSON; what a program prints on its error output goes to the testbed's log. The
streams are the Docker engine's: nothing of them passes the testbed's links, and the containers
get no way out of their network by them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from workbench.testbed.containers import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_OUTPUT, _ERRORS = 1, 2
_LONGEST_LINE = 1 << 20
_STARTED_AT_ONCE = 8
_SETTLE_S = 5.0


class Hosts(Protocol):
    """The containers in which programs run, by row."""

    @property
    def engine(self) -> Any:  # noqa: ANN401  # the Docker SDK has no types
        """The Docker engine's client."""

    @property
    def memory(self) -> str:
        """Each container's limit of memory, in words."""

    @property
    def name(self) -> Callable[[int], str]:
        """Returns the name of a client's container."""

    def kills(self, row: int) -> int:
        """Return how often the kernel killed something in a container for its memory limit."""


class ContainerProcesses:
    """The running client programs, as seen from the notebook.

    Parameters
    ----------
    command
        What runs in each container.
    greet
        Called with the row before a client's program is started; returns the first message to
        it.
    clients
        How many clients the fleet has.
    containers
        Where they run.
    heard
        Called with the row and the message whenever a client says something, and with
        ``{"ended": status, "reason": text}`` when its program has ended. It is called on
        threads of this object.
    log
        A file for what the programs print.
    """

    def __init__(
        self,
        command: Sequence[str],
        greet: Callable[[int], dict[str, Any]],
        clients: int,
        containers: Hosts,
        heard: Callable[[int, dict[str, Any]], None],
        *,
        log: Path,
    ) -> None:
        self._command = list(command)
        self._greet = greet
        self._containers = containers
        self._heard = heard
        self._log = log
        self._processes: NDArray[np.int64] = np.zeros(clients, dtype=np.int64)
        self._programs: dict[int, _Program] = {}
        self._changed = threading.Condition()
        self._starting = threading.Semaphore(_STARTED_AT_ONCE)
        self._closed = False

    # ------------------------------------------------------------------ what can be done

    def start(self, rows: Iterable[int]) -> None:
        """Start these clients' programs; returns at once."""
        for row in rows:
            program = _Program(int(row))
            with self._changed:
                self._programs[int(row)] = program
            threading.Thread(
                target=self._run, args=[program], name=f"wb-client-{row}", daemon=True
            ).start()

    def tell(self, rows: Iterable[int], message: object) -> None:
        """Pass a message on to these clients; those without a program miss it."""
        line = json.dumps(message).encode() + b"\n"
        with self._changed:
            programs = [self._programs.get(int(row)) for row in rows]
        for program in programs:
            if program is not None:
                program.tell(line)

    def kill(self, client: int) -> None:
        """Kill a client's program; nothing happens when it has none."""
        with self._changed:
            process = int(self._processes[client])
        if process:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def wait_ended(self, client: int, timeout_s: float) -> bool:
        """Wait until a client's program has ended; False if it still runs after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: client not in self._programs, timeout_s)

    @property
    def processes(self) -> NDArray[np.int64]:
        """(N,) process number of each client's program on the host, 0 where it has none."""
        with self._changed:
            return self._processes.copy()

    def close(self) -> None:
        """Kill all programs and wait for their end; a second call does nothing."""
        with self._changed:
            self._closed = True
            programs = list(self._programs.values())
        for row in np.flatnonzero(self.processes):
            self.kill(int(row))
        with self._changed:
            self._changed.wait_for(lambda: not self._programs, _SETTLE_S)
        for program in programs:
            program.close()

    # ------------------------------------------------------------------ one program's thread

    def _run(self, program: _Program) -> None:
        """Start a program, listen to it, and tell how it ended."""
        row = program.row
        kills = self._containers.kills(row)
        try:
            with self._starting:
                process = self._start(program)
        except Exception as error:  # noqa: BLE001  # whoever waits for the client is told
            self._end(program, {"ended": 1, "reason": f"could not be started: {error}"})
            return
        with self._changed:
            self._processes[row] = process
        self._heard(row, {"process": process})
        if self._closed:
            self.kill(row)
        for kind, line in program.listen():
            self._take_in(row, kind, line)
        said: dict[str, Any] = {"ended": self._status_of(program)}
        if self._containers.kills(row) > kills:
            said["reason"] = (
                f"was killed for using more than its limit of {self._containers.memory} of memory"
            )
        self._end(program, said)

    def _start(self, program: _Program) -> int:
        """Start a program and return its process number."""
        if self._closed:
            raise RuntimeError("the testbed is being taken down")
        api = self._containers.engine.api
        first = json.dumps(self._greet(program.row)).encode() + b"\n"
        name = self._containers.name(program.row)
        program.number = str(api.exec_create(name, self._command, stdin=True)["Id"])
        program.connect(hold(api.exec_start(program.number, socket=True)), first)
        end = time.monotonic() + _SETTLE_S
        while True:
            found = api.exec_inspect(program.number)
            if found["Pid"]:
                return int(found["Pid"])
            if found["ExitCode"] is not None or time.monotonic() > end:
                raise RuntimeError(f"it ended at once with status {found['ExitCode']}")
            time.sleep(0.01)

    def _take_in(self, row: int, kind: int, line: bytes) -> None:
        if kind == _OUTPUT:
            with suppress(ValueError):  # a client may print what it likes
                said = json.loads(line)
                if isinstance(said, dict):
                    self._heard(row, said)
                    return
        with self._log.open("ab") as log:
            log.write(line + b"\n")

    def _status_of(self, program: _Program) -> int:
        """Return how a program ended, as `subprocess` tells it; -9 with its container."""
        end = time.monotonic() + _SETTLE_S
        with suppress(Exception):  # the container was removed, or the engine is gone
            while time.monotonic() < end:
                found = self._containers.engine.api.exec_inspect(program.number)
                if not found["Running"]:
                    status = int(found["ExitCode"])
                    return 128 - status if status > 128 else status
                time.sleep(0.02)
        return -int(signal.SIGKILL)

    def _end(self, program: _Program, said: dict[str, Any]) -> None:
        program.close()
        with self._changed:
            if self._programs.get(program.row) is program:
                del self._programs[program.row]
                self._processes[program.row] = 0
            self._changed.notify_all()
        self._heard(program.row, said)


class _Program:
    """One running program and its streams, which the engine sends as frames in one."""

    def __init__(self, row: int) -> None:
        self.row = row
        self.number = ""
        self._stream: socket.socket | None = None
        self._lock = threading.Lock()
        self._early: list[bytes] = []

    def connect(self, stream: socket.socket, first: bytes) -> None:
        """Take the streams; send the first line, and what was said while it was started."""
        with self._lock:
            self._stream = stream
            stream.sendall(b"".join([first, *self._early]))

    def tell(self, line: bytes) -> None:
        """Send a line; one for a program that has just ended is lost."""
        with self._lock:
            if self._stream is None:
                self._early.append(line)
                return
            with suppress(OSError):
                self._stream.sendall(line)

    def listen(self) -> Iterator[tuple[int, bytes]]:
        """Yield what it says, (stream, line), until it ends."""
        parts = {_OUTPUT: b"", _ERRORS: b""}
        while header := self._read(8):
            kind, size = struct.unpack(">BxxxI", header)
            part = self._read(size)
            if kind not in parts:
                continue
            *lines, rest = (parts[kind] + part).split(b"\n")
            parts[kind] = rest if len(rest) <= _LONGEST_LINE else b""  # bounded, whatever it says
            for line in lines:
                yield kind, line

    def _read(self, size: int) -> bytes:
        """Read so many bytes; fewer than that, and none, at the end."""
        read = b""
        while self._stream is not None and len(read) < size:
            try:
                data = self._stream.recv(size - len(read))
            except OSError:
                return b""
            if not data:
                return b""
            read += data
        return read

    def close(self) -> None:
        """Close the streams, which ends `listen`; a second call does nothing."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)
            self._stream.close()
