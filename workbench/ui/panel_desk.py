"""What the tabs of the control room share: the search, its present moment, lines for a person."""

from __future__ import annotations

import html
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import ipywidgets as widgets
import numpy as np
from pydantic import ValidationError

from workbench.search.loop import sizes_of_groups
from workbench.ui.panel_parts import WIDE
from workbench.ui.panel_run import FollowedRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from workbench.fleet import Fleet
    from workbench.search.run import Run
    from workbench.search.search import Search
    from workbench.testbed.base import Network


class Tab(Protocol):
    """One tab: a box to show, and what to do when something has changed."""

    title: str
    box: widgets.Widget

    def sync(self, changed: set[str]) -> None:
        """Let the controls say what has changed; at once, from the panel's own thread."""
        ...

    def draw(self, changed: set[str]) -> None:
        """Let figures and tables show what has changed; only while the tab is shown."""
        ...


class Desk:
    """What the tabs share: the search, its network, a line for errors and one for code.

    Attributes
    ----------
    search
        What the panel drives.
    path
        The run folder that Start uses.
    """

    def __init__(self, search: Search, path: Path) -> None:
        self.search = search
        self.path = path
        self.attached: Network | None = None
        self.message = widgets.HTML(layout=WIDE)
        self.code = widgets.HTML(layout=WIDE)
        self._followed = FollowedRun()
        self._reading = threading.Lock()

    @property
    def network(self) -> Network | None:
        """The network that is up: the search's, or the one that the panel was given."""
        return self.search.network or self.attached

    # ------------------------------------------------------------------ the present moment

    def run(self) -> Run | None:
        """Return the run in the folder as it stands now; None if there is none yet."""
        with self._reading:
            return self._followed.at(self.path)

    def fleet_now(self) -> tuple[Fleet, NDArray[np.bool_]]:
        """Return the fleet with the link rates of this moment, and who takes part."""
        network = self.network
        if network is None:
            fleet = self.search.fleet
            return fleet, np.ones(len(fleet), dtype=np.bool_)
        return network.fleet.with_rates(network.rates_bps()), network.present()

    def sizes_bytes(self) -> list[float]:
        """Return the bytes of the model that each group trains: now, or in the first iteration."""
        if self.search.session.running and (grouped := self._last_grouping()) is not None:
            return sizes_of_groups(grouped["sizes_bytes"], grouped["groups"])
        sizes = [float(one.cost.size_bytes) for one in self.search.first_candidates]
        groups = self.search.groups or len(sizes)
        return sizes_of_groups(sizes, groups)

    def bottleneck(self) -> int | None:
        """Return the row of the client that the present round waits for, by link and model size.

        None while no search runs, or if nobody can be waited for.
        """
        if not self.search.session.running or self.network is None:
            return None
        fleet, present = self.fleet_now()
        grouped = self._last_grouping()
        if grouped is None:
            size = np.full(len(fleet), float(self.search.initial_cost.size_bytes))
            group = np.zeros(len(fleet), dtype=np.int64)
        else:
            group = np.asarray(grouped["grouping"]["assignment"])
            size = np.asarray(self.sizes_bytes())[np.maximum(group, 0)]
        able = present & (group >= 0) & (fleet.rate_bps > 0)
        if not able.any():
            return None
        seconds = np.divide(size, fleet.rate_bps, out=np.zeros(len(fleet)), where=able)
        return int(np.argmax(seconds))

    def _last_grouping(self) -> dict[str, Any] | None:
        run = self.run()
        found = run.of("group") if run is not None else []
        return found[-1] if found else None

    # ------------------------------------------------------------------ lines for a person

    def show_code(self, code: str) -> None:
        """Show the line of code that does what a control just did."""
        self.code.value = f"<span>The same in code:</span> <code>{html.escape(code)}</code>"

    def complain(self, error: BaseException) -> None:
        """Show an error in words."""
        words = html.escape(in_words(error))
        self.message.value = f'<div role="alert" class="workbench-error">⚠ {words}</div>'

    @contextmanager
    def doing(self, code: str = "") -> Iterator[None]:
        """Do what a control asks for: show it as code, or the error in words."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever it is, a person has to read it
            self.complain(error)
        else:
            if code:
                self.show_code(code)
            self.message.value = ""


def in_words(error: BaseException) -> str:
    """Return an error as a sentence that names what is wrong and what is allowed."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])} is {one['input']!r}: {one['msg']}"
            if one["loc"]
            else str(one["msg"]).removeprefix("Value error, ")
            for one in error.errors()
        )
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text or type(error).__name__
