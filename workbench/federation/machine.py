"""Watches whether the machine, and not the network, sets the pace of a live run.

On a live testbed all clients share the cores of one machine, and all messages pass one SuperLink,
which is one Python process. Where either has no time left, a round lasts longer than its links
and its training would have it: that is told, not reported as the network's doing.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

import psutil

SUPERLINK_BPS = 0.8e9
"""What a SuperLink carries in total, measured on 2 cores, in bit/s."""

_SAMPLE_S = 0.5
_BUSY = 0.9
_WORTH_TELLING = 0.1
"""Share of the time from which on it is told that something was busy."""


@dataclass
class _Count:
    samples: int = 0
    superlink_busy: int = 0
    cores_busy: int = 0


class MachineWatch:
    """Samples the load of the cores and of one process, until it is closed."""

    def __init__(self, superlink: int) -> None:
        self._superlink = psutil.Process(superlink)
        self._count = _Count()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="wb-watch", daemon=True)
        self._thread.start()

    def limits(self) -> list[str]:
        """Return in words what was at its limit since this was asked last; empty if nothing was."""
        with self._lock:
            count, self._count = self._count, _Count()
        if not count.samples:
            return []
        told = []
        for busy, what in (
            (
                count.superlink_busy,
                "the SuperLink was busy all the time: fast links waited for it",
            ),
            (
                count.cores_busy,
                f"all {os.cpu_count()} cores were busy: training and messages shared them",
            ),
        ):
            if busy >= _WORTH_TELLING * count.samples:
                seconds = count.samples * _SAMPLE_S
                told.append(f"for {busy * _SAMPLE_S:.1f} of {seconds:.1f} s {what}")
        return told

    def close(self) -> None:
        """Stop watching; a second call does nothing."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        psutil.cpu_percent()
        before, then = self._used_s(), time.monotonic()
        while not self._closed.wait(_SAMPLE_S):
            used, now = self._used_s(), time.monotonic()
            share = (used - before) / (now - then)
            before, then = used, now
            with self._lock:
                self._count.samples += 1
                self._count.superlink_busy += share > _BUSY
                self._count.cores_busy += psutil.cpu_percent() > 100 * _BUSY

    def _used_s(self) -> float:
        try:
            times = self._superlink.cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system)


def too_much_for_superlink(total_bps: float) -> str:
    """Return what to expect if links of ``total_bps`` in all send at once; empty if it fits."""
    if total_bps <= SUPERLINK_BPS:
        return ""
    return (
        f"the links sum up to {total_bps / 1e9:.1f} Gbit/s, but one SuperLink carries about "
        f"{SUPERLINK_BPS / 1e9:.1f} Gbit/s: while many fast links send at once they are slower "
        "than asked for (rounds that wait for slow links are not affected)"
    )
