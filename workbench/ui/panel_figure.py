"""FigureWidgets that share one plotly.js in the page, and fill the place that they are given.

A FigureWidget brings plotly.js along, 5 MB each, and anywidget gives each two seconds to load it:
a panel of a dozen figures takes 60 MB and, on a slow machine, loses some of them. Here one widget
carries it for all. A FigureWidget also draws itself once, in whatever width it finds, which is
none in a tab that is not shown; these follow the size of their place.
"""

from __future__ import annotations

import threading
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets as widgets
import plotly
import plotly.graph_objects as go
import traitlets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Library(anywidget.AnyWidget):
    """Carries the front end of plotly's FigureWidget; shows nothing.

    It also keeps plain keys in the panel from Jupyter, which would take an arrow key on a slider
    for the wish to fold the notebook's headings.
    """

    _esm = """
    function ours(event) {
      const place = event.target;
      if (!place.closest?.(".workbench-panel")) return;
      const plain = !event.ctrlKey && !event.metaKey && !event.altKey
        && event.key !== "Escape" && !(event.shiftKey && event.key === "Enter");
      place.toggleAttribute("data-lm-suppress-shortcuts", plain);
    }

    function render({ model }) {
      if (!globalThis.workbenchKeys) {
        globalThis.workbenchKeys = true;
        window.addEventListener("keydown", ours, true);
      }
      // A page needs it once, however many panels there are.
      globalThis.workbenchFigures ??= import(URL.createObjectURL(
        new Blob([model.get("text")], { type: "text/javascript" })));
    }
    export default { render };
    """

    text = traitlets.Unicode().tag(sync=True)
    """The JavaScript."""

    def __init__(self) -> None:
        super().__init__(text=_front_end())


@cache
def _front_end() -> str:
    path = Path(plotly.__file__).parent / "package_data" / "widgetbundle.js"
    return path.read_text(encoding="utf-8")


class Figure(go.FigureWidget):  # type: ignore[misc]  # plotly has no types
    """A FigureWidget without plotly.js of its own; a `Library` must be on the page."""

    def get_state(
        self, key: str | Iterable[str] | None = None, drop_defaults: bool = False
    ) -> dict[str, Any]:
        """Return the state of some traits; of all, as they are now, for a page loaded again.

        plotly keeps the figure of its first moment there, so that such a page would be empty.
        """
        if key is None and "_layout_obj" in self.__dict__:  # not while it is being made
            # Not assigned: that would send the whole figure to pages that have it.
            self._trait_values["_widget_data"] = deepcopy(self._data)
            self._trait_values["_widget_layout"] = deepcopy(self._layout_obj._props)  # noqa: SLF001
        state: dict[str, Any] = super().get_state(key, drop_defaults)
        return state

    _esm = """
    const NAMES = ["addTraces", "deleteTraces", "moveTraces", "restyle", "relayout", "update",
      "animate", "removeLayoutProps", "removeTraceProps"].map(name => `_py2js_${name}`);

    async function library() {
      while (!globalThis.workbenchFigures) await new Promise(go => setTimeout(go, 20));
      return globalThis.workbenchFigures;
    }

    export default () => {
      let ready;
      return {
        initialize({ model }) {
          // What is told before plotly is there is kept, and told again afterwards.
          const early = [];
          const keep = NAMES.map(name => [name, () => {
            const value = model.get(name);
            if (value !== null) early.push([name, value]);
          }]);
          keep.forEach(([name, heard]) => model.on(`change:${name}`, heard));
          ready = library().then(loaded => {
            const widget = loaded.default();
            keep.forEach(([name, heard]) => model.off(`change:${name}`, heard));
            widget.initialize({ model });
            early.forEach(([name, value]) => { model.set(name, value); model.set(name, null); });
            return widget;
          });
        },
        async render({ model, el }) {
          el.style.width = "100%";
          const inside = document.createElement("div");
          el.appendChild(inside);
          const end = (await ready).render({ model, el: inside });
          let due = false;
          const watch = new ResizeObserver(() => {
            if (due || !el.clientWidth) return;
            due = true;
            requestAnimationFrame(() => {
              due = false;
              window.dispatchEvent(new Event("resize"));  // plotly's "responsive" listens to it
            });
          });
          watch.observe(el);
          return () => { watch.disconnect(); end(); };
        },
      };
    };
    """


def legend_below(figure: go.Figure) -> go.Figure:
    """Put the legend of a narrow figure below it, where it can't lie on the title."""
    return figure.update_layout(
        margin={"t": 50, "b": 90},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.3, "yanchor": "top"},
    )


class Plot:
    """A figure that stays in its place while what it shows changes."""

    def __init__(self, height: int = 360) -> None:
        self.widget = Figure()
        self.widget.update_layout(autosize=True, height=height, template="plotly_white")
        config = self.widget._config  # noqa: SLF001  # there is no other way to set it
        self.widget._config = {**config, "responsive": True, "displaylogo": False}  # noqa: SLF001
        self._height = height
        self._layout: dict[str, Any] = {}
        self._lock = threading.Lock()
        place = widgets.Layout(
            width="100%", min_width="0", min_height=f"{height}px", overflow="hidden"
        )
        self.box = widgets.VBox([self.widget], layout=place)

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
