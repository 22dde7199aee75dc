"""What the tabs of the control room are made of: figures, tables, a desk that they share."""

from __future__ import annotations

import html
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import anywidget
import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pydantic import ValidationError

from workbench.search.loop import sizes_of_groups
from workbench.ui.panel_run import FollowedRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from workbench.fleet import Fleet
    from workbench.search.run import Run
    from workbench.search.search import Search
    from workbench.testbed.base import Network

WIDE = widgets.Layout(width="100%")
LABEL = {"description_width": "110px"}
_SHOWN_ROWS = 400


class Tab(Protocol):
    """One tab: a box to show, and what to do when something has changed."""

    title: str
    box: widgets.Widget

    def refresh(self, changed: set[str]) -> None:
        """Show what has changed; called from the panel's own thread."""
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

    def say(self, text: str) -> None:
        """Show a message that is no error."""
        self.message.value = f'<div role="status">{html.escape(text)}</div>'

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


class Controls:
    """Controls that act when a person moves them, and not when the panel does."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._setting = False

    def on(self, widget: widgets.Widget, act: Callable[[], None], trait: str = "value") -> None:
        """Call ``act`` when a person changes a control."""

        def changed(_: Mapping[str, Any]) -> None:
            # The lock first: while the panel's thread sets values, this is another thread.
            with self.lock:
                if not self._setting:
                    act()

        widget.observe(changed, trait)

    def set(self, widget: widgets.Widget, **traits: object) -> None:
        """Set what a control shows."""
        with self.lock:
            self._setting = True
            try:
                for name, value in traits.items():
                    if getattr(widget, name) != value:
                        setattr(widget, name, value)
            finally:
                self._setting = False


class Fit(anywidget.AnyWidget):
    """Tells figures that their place has another size, as when their tab is shown.

    A FigureWidget draws itself once, in whatever width it finds; plotly's ``responsive`` then
    follows the window only.
    """

    _esm = """
    let due = false;
    function render({ el }) {
      el.style.width = "100%";
      const watch = new ResizeObserver(() => {
        if (due || !el.clientWidth) return;
        due = true;
        requestAnimationFrame(() => {
          due = false;
          window.dispatchEvent(new Event("resize"));
        });
      });
      watch.observe(el);
      return () => watch.disconnect();
    }
    export default { render };
    """


class Plot:
    """A figure that stays in its place while what it shows changes."""

    def __init__(self, height: int = 360) -> None:
        self.widget = go.FigureWidget()
        self.widget.update_layout(autosize=True, height=height, template="plotly_white")
        config = self.widget._config  # noqa: SLF001  # there is no other way to set it
        self.widget._config = {**config, "responsive": True, "displaylogo": False}  # noqa: SLF001
        self._height = height
        self._layout: dict[str, Any] = {}
        self._lock = threading.Lock()
        place = widgets.Layout(width="100%", min_width="0", overflow="hidden")
        self.box = widgets.VBox([Fit(), self.widget], layout=place)

    def show(self, figure: go.Figure) -> None:
        """Show a figure; where it has the same traces as before, only their data are sent."""
        figure.update_layout(autosize=True, width=None, height=self._height)
        layout = figure.layout.to_plotly_json()
        del layout["template"]  # the widget has it, and it is large
        kinds = [trace.type for trace in figure.data]
        with self._lock, self.widget.batch_update():
            if [trace.type for trace in self.widget.data] == kinds:
                for shown, wanted in zip(self.widget.data, figure.data, strict=True):
                    shown.update(wanted.to_plotly_json(), overwrite=True)
            else:
                self.widget.data = []
                self.widget.add_traces(list(figure.data))
            if layout != self._layout:
                self.widget.layout.update(layout, overwrite=True)
                self._layout = layout

    def update(self, traces: Sequence[Mapping[str, Any]]) -> None:
        """Give the traces of the figure that is shown other data: quicker than a new figure."""
        with self._lock, self.widget.batch_update():
            for shown, wanted in zip(self.widget.data, traces, strict=True):
                shown.update(wanted, overwrite=True)


class Table:
    """A table beside a figure, with its own scroll bar."""

    def __init__(self, caption: str, height: str = "300px") -> None:
        self._caption = caption
        self.widget = widgets.HTML(layout=WIDE)
        self.box = widgets.Box(
            [self.widget],
            layout=widgets.Layout(width="100%", max_height=height, overflow="auto", min_width="0"),
        )
        self.show(pd.DataFrame())

    def show(self, table: pd.DataFrame, caption: str | None = None) -> None:
        """Show a table; of a very long one the beginning."""
        title = html.escape(self._caption if caption is None else caption)
        if table.empty:
            self.widget.value = f"<p><b>{title}</b>: nothing yet</p>"
            return
        shown = table.head(_SHOWN_ROWS).to_html(
            index=False, border=0, float_format=lambda value: f"{value:.4g}", na_rep="–"
        )
        shown = shown.replace("<thead>", f"<caption>{title}</caption><thead>", 1)
        more = len(table) - _SHOWN_ROWS
        self.widget.value = (
            '<div tabindex="0" class="workbench-table">'
            + shown
            + (f"<p>… and {more} more</p>" if more > 0 else "")
            + "</div>"
        )


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


def width(pixels: int) -> widgets.Layout:
    """Return a layout of this width, for one control: they must not share one."""
    return widgets.Layout(width=f"{pixels}px")


def note(text: str) -> widgets.HTML:
    """Return a remark beside a control, such as when it takes effect."""
    return widgets.HTML(f'<div class="workbench-note">{text}</div>', layout=WIDE)


def row(*children: widgets.Widget, widths: tuple[str, ...] = ()) -> widgets.Box:
    """Put widgets side by side, and below each other where there is no room."""
    if not widths:
        return widgets.HBox(
            list(children), layout=widgets.Layout(width="100%", flex_flow="row wrap")
        )
    return widgets.GridBox(
        list(children),
        layout=widgets.Layout(
            width="100%", grid_template_columns=" ".join(f"minmax(0, {w})" for w in widths)
        ),
    )


STYLE = """<style>
.workbench-error { color: #8a1f00; background: #fff1e8; border-left: 4px solid #D55E00;
  padding: 4px 10px; line-height: 1.4; white-space: pre-wrap; }
.workbench-note { color: #595959; font-size: 12px; line-height: 1.4; }
.workbench-table table { font-size: 12px; border-collapse: collapse; }
.workbench-table caption { text-align: left; white-space: nowrap; font-weight: bold; padding: 2px 6px; }
.workbench-table th, .workbench-table td { padding: 1px 8px; text-align: right;
  line-height: 1.35; white-space: nowrap; }
.workbench-table thead th { position: sticky; top: 0; background: #f2f2f2; }
.workbench-log { font: 12px/1.4 monospace; white-space: pre-wrap; margin: 0; }
</style>"""
