"""A search while it runs: its thread, its network, where it stands, what is changed meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

from workbench.search.control import Control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from workbench.search.run import Run
    from workbench.testbed.base import Network

Status = Literal[
    "ready", "starting", "running", "pausing", "paused", "stopping", "stopped", "finished", "failed"
]


class Session:
    """What a search shares with whoever watches it; safe to use from any thread.

    Attributes
    ----------
    path
        The run folder of the present or last run; None before the first.
    network
        The network that is up while the search runs, or None.
    error
        What the last run ended with, or None.
    rounds_done, rounds_total
        Progress; the search may need fewer than the total.
    changes
        Settings that were assigned while the search runs and are not yet in force: (name, value).
    """

    def __init__(self) -> None:
        self.control = Control()
        self.path: Path | None = None
        self.network: Network | None = None
        self.error: BaseException | None = None
        self.rounds_done = 0
        self.rounds_total = 0
        self.changes: deque[tuple[str, Any]] = deque()
        self._ended: Literal["ready", "stopped", "finished", "failed"] = "ready"
        self._running = False
        self._lock = threading.Lock()
        self._watchers: list[Callable[[str], None]] = []
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ where it stands

    @property
    def running(self) -> bool:
        """Whether the search runs, paused or not."""
        return self._running

    @property
    def status(self) -> Status:
        """Where the search stands, in one word."""
        if not self._running:
            return self._ended
        if self.control.stopping:
            return "stopping"
        if not self.rounds_total:
            return "starting"
        if self.control.paused:
            return "paused" if self.control.waiting else "pausing"
        return "running"

    # ------------------------------------------------------------------ beginning and end

    def begin(self, path: Path) -> None:
        """Note that a run begins.

        Raises
        ------
        RuntimeError
            If one is running already.
        """
        with self._lock:
            if self._running:
                raise RuntimeError(f"the search is running already, in {self.path}")
            self._running = True
        self.control = Control(lambda: self.tell("status"))
        self.path, self.error = path, None
        self.rounds_done = self.rounds_total = 0
        self.changes.clear()
        self.tell("status")

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Note how the block ends that runs the search; Ctrl-C counts as stopping."""
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.network = None
            self.error = error
            interrupted = self.control.stopping or isinstance(error, KeyboardInterrupt)
            self._ended = "stopped" if interrupted else "failed" if error else "finished"
            self._running = False
            self.tell("status")

    @contextmanager
    def on(self, network: Network, rounds_done: int, rounds_total: int) -> Iterator[None]:
        """Note on which network the block runs, and how far the search has come before."""
        self.rounds_done, self.rounds_total = rounds_done, rounds_total
        self.network = network
        self.tell("network")
        try:
            yield
        finally:
            self.network = None
            self.tell("network")

    # ------------------------------------------------------------------ in the background

    def spawn(self, run: Callable[[], Run]) -> None:
        """Run in a thread that does not keep the program alive: what is killed can be resumed."""

        def work() -> None:
            # The error is kept in the session: a thread has nobody to raise it to.
            with suppress(BaseException), self.ending():
                run()

        self._thread = threading.Thread(target=work, name="search", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None) -> Path:
        """Wait for the thread; return the run folder, or raise what the search raised."""
        if self._thread is None or self.path is None:
            raise RuntimeError("the search was not started; call start(path) first")
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"the search in {self.path} still runs after {timeout_s} s")
        if self.error is not None:
            raise self.error
        return self.path

    # ------------------------------------------------------------------ who watches

    def watch(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call ``callback`` with what has changed; the returned function ends that.

        What changes is ``status``, ``network``, or the name of a setting of the search. The call
        comes from the thread that changed it, which waits: do no work in it.
        """
        self._watchers.append(callback)

        def end() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return end

    def tell(self, what: str) -> None:
        """Tell the watchers."""
        for watcher in list(self._watchers):
            watcher(what)
