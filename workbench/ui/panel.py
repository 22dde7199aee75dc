"""The control room: one panel over a search, its fleet, its grouping and its network.

The panel drives the objects and owns nothing. Every control does what one line of code does, and
shows that line; what is done in code shows in the panel, because it listens to the same objects.
"""

from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from workbench.ui.panel_desk import Desk
from workbench.ui.panel_figure import Library
from workbench.ui.panel_fleet import FleetTab
from workbench.ui.panel_grouping import GroupingTab
from workbench.ui.panel_network import NetworkTab
from workbench.ui.panel_parts import STYLE, WIDE
from workbench.ui.panel_runs import RunsTab
from workbench.ui.panel_search import SearchTab

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workbench.search.search import Search
    from workbench.testbed.base import LinkChange, Network
    from workbench.ui.panel_desk import Tab

EVERYTHING = frozenset({"fleet", "grouping", "testbed", "status", "network", "links", "event"})
_GATHER_S = 0.1
_POLL_S = 1.0
_SHARE = 2.0


class Panel(widgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Controls of a search, for JupyterLab and the classic Notebook.

    Parameters
    ----------
    search
        What the controls drive. A search that runs already is shown where it stands.
    path
        The run folder that Start uses; a run that is there is shown, and gone on with.
    network
        A network that is up without a search, to be looked at and changed.

    Attributes
    ----------
    fleet, grouping, network, search, runs
        The tabs; each control of theirs is an attribute, such as ``panel.grouping.coeff``.

    Notes
    -----
    Jupyter hands on what a person does once no cell runs: start a search with the panel or with
    ``search.start()``, both of which leave the kernel free, rather than with ``search.run()``.
    """

    def __init__(
        self, search: Search, path: str | Path | None = None, *, network: Network | None = None
    ) -> None:
        self._refresher: Refresher | None = None
        chosen = path if path is not None else search.session.path or Path("runs/control_room")
        self.desk = Desk(search, Path(chosen))
        self.desk.attached = network
        self.fleet = FleetTab(self.desk)
        self.grouping = GroupingTab(self.desk)
        self.network = NetworkTab(self.desk)
        self.search = SearchTab(self.desk)
        self.runs = RunsTab(self.desk)
        self.pages: list[Tab] = [
            self.fleet, self.grouping, self.network, self.search, self.runs,
        ]  # fmt: skip
        self.tabs = widgets.Tab([page.box for page in self.pages], layout=WIDE)
        for number, page in enumerate(self.pages):
            self.tabs.set_title(number, page.title)
        super().__init__(
            [Library(), widgets.HTML(STYLE), self.desk.message, self.desk.code, self.tabs],
            layout=WIDE,
        )
        self.add_class("workbench-panel")
        self.refresh()
        refresher = self._refresher = Refresher(self)
        self.tabs.observe(lambda _: refresher.mark("shown"), "selected_index")

    def refresh(self) -> None:
        """Show everything as it is now; the panel does so by itself when something changes."""
        for page in self.pages:
            page.sync(set(EVERYTHING))
            page.draw(set(EVERYTHING))

    def watch(self, network: Network | None) -> None:
        """Show a network that was put up without the search; None ends that."""
        self.desk.attached = network
        if self._refresher is not None:
            self._refresher.mark("network")

    def close(self) -> None:
        """End the panel; the search goes on."""
        if self._refresher is not None:
            self._refresher.end()
        super().close()


class Refresher:
    """Hears what changes, and lets the tabs show it from a thread of its own.

    Whoever changes something does not wait for the figures, and many changes are shown as one.
    """

    def __init__(self, panel: Panel) -> None:
        self._panel = weakref.ref(panel)
        self._changed: set[str] = set()
        self._wake = threading.Condition()
        self._ended = False
        self._heard_network: Network | None = None
        self._end_links: Callable[[], None] = lambda: None
        search = panel.desk.search
        self._end_watching = search.session.watch(self.mark)
        self._listeners = search.listeners
        self._listeners.append(self._event)
        self._thread = threading.Thread(target=self._work, name="panel", daemon=True)
        self._thread.start()

    def mark(self, what: str) -> None:
        """Note that something has changed."""
        with self._wake:
            self._changed.add(what)
            self._wake.notify()

    def end(self) -> None:
        """Hear nothing any more; the thread ends."""
        self._end_watching()
        self._end_links()
        if self._event in self._listeners:
            self._listeners.remove(self._event)
        with self._wake:
            self._ended = True
            self._wake.notify()

    def _event(self, event: Mapping[str, Any]) -> None:
        del event
        self.mark("event")

    def _link_changed(self, change: LinkChange) -> None:
        del change
        self.mark("links")

    def _work(self) -> None:
        waiting: dict[int, set[str]] = {}
        while True:
            with self._wake:
                live = self._heard_network is not None
                if not self._changed and not self._ended:
                    self._wake.wait(_POLL_S if live else None)
                if self._ended:
                    return
                changed, self._changed = self._changed | {"links"}, set()
            panel = self._panel()
            if panel is None:
                return
            began = time.monotonic()
            self._hear(panel)
            for number, page in enumerate(panel.pages):
                stale = waiting.setdefault(number, set())
                stale |= changed
                try:
                    page.sync(changed)
                    if number == panel.tabs.selected_index:
                        page.draw(stale)
                        stale.clear()
                except Exception as error:  # noqa: BLE001  # the thread must live; a person reads it
                    panel.desk.complain(error)
            # Changes come in crowds, and whoever computes is to get most of the time.
            pause = _GATHER_S + _SHARE * (time.monotonic() - began)
            del panel, page
            with self._wake:
                self._wake.wait_for(lambda: self._ended or "shown" in self._changed, pause)

    def _hear(self, panel: Panel) -> None:
        """Listen to the network that is up now."""
        network = panel.desk.network
        if network is not self._heard_network:
            self._end_links()
            self._heard_network = network
            self._end_links = (
                network.on_change(self._link_changed) if network is not None else lambda: None
            )
