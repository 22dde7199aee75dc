"""What a CORE session has on this machine, written down so that it can be removed without CORE.

A daemon that is asked to delete its session removes it all. One that crashed has forgotten the
session, while nodes, links and containers go on; and one whose notebook was killed is told by
nobody. So a testbed writes down what is its own: processes with their start times, interfaces with
their numbers, containers by label. Whatever does not fit that exactly belongs to somebody else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from workbench.testbed import linux
from workbench.testbed.cleanup import Leftover
from workbench.testbed.core_client import CoreClient, CoreError
from workbench.testbed.core_session import MARK

PREFIX = "workbench-core-"
_RECORD = "record.json"
_STAMP = "workbench-testbed"
"""File in the session's directory that tells whose it is."""
_INTERFACE = re.compile(r"(?:veth|beth)\d+\.\d+\.([0-9a-f]+)|[bp]\.\d+\.([0-9a-f]+)")
"""CORE's names of the ends of links and of bridges; the session's number is at the end."""
_GONE_S = 5.0


@dataclass
class Record:
    """What a testbed has put up through CORE, and whose it is."""

    mark: str
    address: str
    session: int
    directory: str
    owner: list[int] = field(default_factory=list)
    """Number and start time of the notebook's process."""
    nodes: list[list[int]] = field(default_factory=list)
    """Number and start time of the first process of each node."""
    interfaces: dict[str, int] = field(default_factory=dict)
    """Kernel's number of each interface in the daemon's namespace, by name."""
    containers: bool = False

    @classmethod
    def of(
        cls, mark: str, address: str, session: int, directory: Path, *, containers: bool
    ) -> Record:
        """Begin a record for this process's testbed, and stamp the session's directory.

        Raises
        ------
        RuntimeError
            If the daemon is not on this machine.
        """
        owner = [os.getpid(), linux.start_time(os.getpid())]
        made = cls(mark, address, session, str(directory), owner, containers=containers)
        try:
            (directory / _STAMP).write_text(mark)
        except OSError as error:
            raise RuntimeError(
                f"the core-daemon at {address} keeps its session in {directory}, where this "
                f"process cannot write ({error.strerror}): it runs on another machine, in a "
                "container, or for another user; run the notebook beside it, as root"
            ) from error
        made.write()
        return made

    def note(self, processes: list[int]) -> None:
        """Note nodes by their first processes, and all interfaces of the session."""
        known = {tuple(each) for each in self.nodes}
        known |= {(process, linux.start_time(process)) for process in processes}
        self.nodes = [list(each) for each in sorted(known)]
        self.interfaces = {
            name: number
            for number, name in socket.if_nameindex()
            if session_of(name) == self.session
        }
        self.write()

    # ------------------------------------------------------------------ on disk

    @property
    def folder(self) -> Path:
        """Where this is written down."""
        return Path(tempfile.gettempdir()) / f"{PREFIX}{self.mark.removeprefix('wb-')}"

    def write(self) -> None:
        """Write it down, whole or not at all."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        scratch = self.folder / f".{_RECORD}"
        scratch.write_text(json.dumps(asdict(self)))
        scratch.replace(self.folder / _RECORD)

    def forget(self) -> None:
        """Remove what was written down: nothing of it is left."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def in_use(self) -> bool:
        """Whether the notebook that it belongs to is still there."""
        process, started = self.owner
        return linux.start_time(process) == started

    # ------------------------------------------------------------------ removal

    def remove(self) -> str:
        """Remove what is left of the session and say what that was; empty if nothing was."""
        told = []
        if self._delete_session():
            told.append(f"session {self.session} of CORE")
        if killed := self._kill_nodes():
            told.append(f"{killed} nodes")
        if self.containers and (removed := self._remove_containers()):
            told.append(f"{removed} containers")
        if removed := self._remove_interfaces():
            told.append(f"{removed} interfaces")
        directory = Path(self.directory)
        with suppress(OSError):
            if (directory / _STAMP).read_text() == self.mark:
                shutil.rmtree(directory, ignore_errors=True)
                told.append(str(directory))
        self.forget()
        return ", ".join(told)

    def _delete_session(self) -> bool:
        try:
            client = CoreClient(self.address, answer_s=10)
        except (CoreError, ImportError):
            return False
        try:
            if self.session not in client.sessions():
                return False
            found = client.session(self.session)
            if dict(found.metadata).get(MARK) != self.mark and not self._is_unstarted(found):
                return False
            return client.delete_session(self.session)
        except CoreError:
            return False
        finally:
            client.close()

    def _is_unstarted(self, session: object) -> bool:
        """Tell whether it is our session, that was created and has not been started."""
        with suppress(OSError):
            stamp = Path(self.directory) / _STAMP
            return not session.nodes and stamp.read_text() == self.mark  # type: ignore[attr-defined]
        return False

    def _kill_nodes(self) -> int:
        """Kill the nodes' first processes: with them go all others in there, and the links."""
        killed = []
        for process, started in self.nodes:
            if linux.start_time(process) == started:
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)
                    killed.append((process, started))
        end = time.monotonic() + _GONE_S
        while time.monotonic() < end and any(linux.start_time(p) == s for p, s in killed):
            time.sleep(0.02)
        return len(killed)

    def _remove_containers(self) -> int:
        from workbench.testbed.containers import remove_labelled  # noqa: PLC0415

        return remove_labelled(self.mark)

    def _remove_interfaces(self) -> int:
        from pyroute2 import IPRoute  # noqa: PLC0415  # only Linux has it
        from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

        there = {name: number for number, name in socket.if_nameindex()}
        ours = [number for name, number in self.interfaces.items() if there.get(name) == number]
        if not ours:
            return 0
        with IPRoute() as route:
            for number in ours:
                with suppress(NetlinkError):  # it went with its other end
                    route.link("del", index=number)
        return len(ours)


def session_of(interface: str) -> int:
    """Return the number of the session that an interface belongs to, by its name; 0 if to none."""
    found = _INTERFACE.fullmatch(interface)
    return int(found[1] or found[2], 16) if found else 0


def numbers_in_use() -> set[int]:
    """Return the numbers of sessions of which there are interfaces on this machine.

    Not all of these are known to the daemon: one that crashed has left its own.
    """
    return {session_of(name) for _, name in socket.if_nameindex()} - {0}


def read_record(folder: Path) -> Record | None:
    """Return what is written down in a folder, None if nothing is, or it is somebody else's."""
    with suppress(OSError, ValueError, TypeError):
        if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            return Record(**json.loads((folder / _RECORD).read_text()))
    return None


def clean_sessions() -> list[Leftover]:
    """Remove what sessions have left whose notebook is gone; those in use are left alone."""
    found = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        record = read_record(folder)
        if record is None:
            continue
        name = f"CORE session {record.session}"
        if record.in_use:
            outcome = f"left alone: process {record.owner[0]} uses it"
        else:
            outcome = f"removed: {record.remove() or 'nothing was left of it'}"
        found.append(Leftover(name, outcome))
    return found
