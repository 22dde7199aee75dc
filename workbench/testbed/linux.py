"""The few Linux calls that the live testbed needs and Python 3.11 does not offer.

Namespaces are held by open file descriptors, never by names: a namespace without a process and
without a descriptor is gone, so nothing can be left behind under ``/run/netns``.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

NEW_NETWORK = 0x40000000
NEW_USER = 0x10000000
NEW_PROCESSES = 0x20000000
_SET_PARENT_DEATH_SIGNAL = 1
_SET_NAME = 15
_ADMINISTER_NETWORK = 12
_ADMINISTER_SYSTEM = 21
_TRIM_THRESHOLD, _OWN_BLOCK_THRESHOLD, _POOLS = -1, -3, -8
_MEMORY_OPTIONS = {_TRIM_THRESHOLD: 1 << 20, _OWN_BLOCK_THRESHOLD: 1 << 20, _POOLS: 1}

_OLD_STREAMS: list[object] = []
"""Streams of the parent, kept in a forked child so that none is closed by being forgotten."""


def _call(name: str, *arguments: int | bytes) -> None:
    """Call a function of the C library; a result other than zero raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this process into new namespaces of the kinds in ``flags``."""
    _call("unshare", flags)


def enter(namespace: int, kind: int = 0) -> None:
    """Move this thread into the namespace behind a descriptor; ``kind`` 0 takes any."""
    _call("setns", namespace, kind)


@contextmanager
def inside(namespace: int, home: int) -> Iterator[None]:
    """Be in one network namespace for a while, then in ``home`` again."""
    enter(namespace, NEW_NETWORK)
    try:
        yield
    finally:
        enter(home, NEW_NETWORK)


def new_network() -> int:
    """Create a network namespace, move into it, and return a descriptor that keeps it."""
    unshare(NEW_NETWORK)
    return open_namespace("net")


def open_namespace(kind: str) -> int:
    """Return a descriptor of the namespace in which this thread is."""
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def namespace_id(kind: str = "net", process: int | str = "self") -> int:
    """Return the kernel's number of a process's namespace; equal numbers are one namespace."""
    return Path(f"/proc/{process}/ns/{kind}").stat().st_ino


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    _call("prctl", _SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)


def set_process_name(name: str) -> None:
    """Set what ``ps`` shows as the command, cut to 15 bytes: our mark on forked processes."""
    _call("prctl", _SET_NAME, name.encode()[:15], 0, 0, 0)


def process_name(process: int) -> str:
    """Return the name of a process, empty when there is none."""
    try:
        return Path(f"/proc/{process}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def processes() -> list[int]:
    """Return the numbers of all processes that can be seen."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def innermost_number(process: int) -> int:
    """Return a process's number in its own process namespace, given its number in ``/proc``."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    raise ProcessLookupError(f"there is no process {process}")


def start_time(process: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is none.

    Together with the number it tells a process from a later one with the same number.
    """
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0
    fields = status.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def may_administer() -> bool:
    """Tell whether this process may create network namespaces without a user namespace."""
    status = Path("/proc/self/status")  # only Linux has it
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("CapEff:"):
            capabilities = int(line.split()[1], 16)
            return all(capabilities >> bit & 1 for bit in (_ADMINISTER_NETWORK, _ADMINISTER_SYSTEM))
    return False


def become_root_of_user_namespace() -> None:
    """Move this single-threaded process into a user namespace of its own, as its root."""
    user, group = os.getuid(), os.getgid()
    unshare(NEW_USER)
    with suppress(FileNotFoundError):
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def allow_many_descriptors() -> None:
    """Raise the limit of open descriptors to what the machine allows this process."""
    import resource  # noqa: PLC0415  # not every system has it, and this module is read on all

    _, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))


def keep_memory_small() -> None:
    """Have this process give freed memory back at once, rather than keep it for later.

    The C library learns from every large block that is freed to keep the next ones, and one such
    pool a thread; with a process a client that is what fills the machine.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # the GNU library alone has it
        for option, value in _MEMORY_OPTIONS.items():
            library.mallopt(option, value)


def set_niceness(niceness: int) -> None:
    """Set the priority of this process, and of its session where the kernel schedules those.

    Below 0 it takes precedence, which only root may: for others nothing changes.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness))


def fork() -> int:
    """Fork, also from a process with threads: the child must only do what is safe then."""
    with warnings.catch_warnings():
        # From 3.12 on Python warns of locks that other threads held. Those of Python itself are
        # made anew in the child, and the children here use no thread of the parent.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def leave_parent_behind(
    keep: Collection[int], output: int | None = None, *, new_session: bool = True
) -> None:
    """In a forked child: drop everything of the parent but the descriptors to keep.

    Open sockets (a notebook's own, another testbed's) would otherwise live on in the child. A new
    session keeps Ctrl-C in a terminal the parent's business, and may be a unit of the scheduler.
    """
    # Objects of the parent must not be collected here: they would close descriptors by number.
    gc.freeze()
    if new_session:
        os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for standard in (1, 2):
        os.dup2(null if output is None else output, standard)
    kept = sorted({0, 1, 2, *keep})
    for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)
    # A notebook's own stream objects send text to sockets that are closed here.
    _OLD_STREAMS.extend([sys.stdin, sys.stdout, sys.stderr])
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in getattr(logger, "handlers", []):
            if isinstance(handler, logging.StreamHandler):
                _OLD_STREAMS.append(handler.stream)
                handler.stream = sys.stderr
