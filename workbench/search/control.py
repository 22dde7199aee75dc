"""Pausing and stopping a search from outside, between rounds."""

from __future__ import annotations

import threading


class Stopped(Exception):  # noqa: N818  # not an error: somebody asked for it
    """Raised inside a search that was asked to stop; what it had is kept."""


class Control:
    """Switches of one search; safe to use from any thread."""

    def __init__(self) -> None:
        self._go = threading.Event()
        self._go.set()
        self._stop = threading.Event()

    @property
    def paused(self) -> bool:
        """Whether the search waits before its next round."""
        return not self._go.is_set()

    def pause(self) -> None:
        """Wait before the next round."""
        self._go.clear()

    def resume(self) -> None:
        """Go on."""
        self._go.set()

    def stop(self) -> None:
        """End before the next round, also while paused."""
        self._stop.set()
        self._go.set()

    def check(self) -> None:
        """Wait while paused; called by the search between rounds.

        Raises
        ------
        Stopped
            If the search is to stop.
        """
        self._go.wait()
        if self._stop.is_set():
            raise Stopped
