"""A program that runs inside a live testbed, as seen from the notebook."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.testbed.channel import Channel


class Program:
    """A started program; it ends with the testbed at the latest.

    Attributes
    ----------
    process
        Its process number, as the notebook sees it.
    log
        The file that holds what it printed.
    """

    def __init__(self, keeper: Channel, number: int, descriptor: int, log: Path) -> None:
        self._keeper = keeper
        self._number = number
        self._descriptor = descriptor
        self.log = log
        self.process = _process_number(descriptor)

    @property
    def running(self) -> bool:
        """Tell whether it still runs."""
        return self._descriptor >= 0 and not select.select([self._descriptor], [], [], 0)[0]

    def wait(self, timeout_s: float) -> int:
        """Wait until it ends and return how, as `subprocess` tells it.

        Raises
        ------
        subprocess.TimeoutExpired
            If it still runs after ``timeout_s``.
        """
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            raise subprocess.TimeoutExpired(f"process {self.process}", timeout_s)
        status, _ = self._keeper.request(do="ended", process=self._number)
        return int(status)

    def kill(self) -> None:
        """Kill it; nothing happens when it has ended."""
        if self.running:
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def last_words(self, lines: int = 10) -> str:
        """Return the last lines that it printed."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def close(self) -> None:
        """Forget it; it goes on until the testbed is taken down."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _process_number(descriptor: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise ProcessLookupError("the program has ended already")
