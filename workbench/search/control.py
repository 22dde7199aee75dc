"""Pausing and stopping a search from outside, between rounds."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Stopped(Exception):  # noqa: N818  # not an error: somebody asked for it
    """Raised inside a search that was asked to stop; what it had is kept."""


class Control:
    """Switches of one search; safe to use from any thread.

    Parameters
    ----------
    changed
        Called after each change of what the properties say.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._go = threading.Event()
        self._go.set()
        self._stop = threading.Event()
        self._changed = changed
        self._waiting = False

    @property
    def paused(self) -> bool:
        """Whether the search waits before its next round."""
        return not self._go.is_set()

    @property
    def waiting(self) -> bool:
        """Whether the search has come to that point and waits now."""
        return self._waiting

    @property
    def stopping(self) -> bool:
        """Whether the search ends before its next round."""
        return self._stop.is_set()

    def pause(self) -> None:
        """Wait before the next round."""
        self._go.clear()
        self._changed()

    def resume(self) -> None:
        """Go on."""
        self._go.set()
        self._changed()

    def stop(self) -> None:
        """End before the next round, also while paused."""
        self._stop.set()
        self._go.set()
        self._changed()

    def check(self) -> None:
        """Wait while paused; called by the search between rounds.

        Raises
        ------
        Stopped
            If the search is to stop.
        """
        if not self._go.is_set():
            self._waiting = True
            self._changed()
            self._go.wait()
            self._waiting = False
            self._changed()
        if self._stop.is_set():
            raise Stopped
