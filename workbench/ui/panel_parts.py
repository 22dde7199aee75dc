"""What the tabs of the control room are made of: controls, tables, notes."""

from __future__ import annotations

import html
import math
import threading
from functools import wraps
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


WIDE = widgets.Layout(width="100%")
LABEL = {"description_width": "110px"}
_SHOWN_ROWS = 400


def locked(sync: Callable[[Any, set[str]], None]) -> Callable[[Any, set[str]], None]:
    """Let a tab read the objects and set its controls in one go.

    Otherwise the panel's thread could set a control to what was read before a person moved it.
    """

    @wraps(sync)
    def synced(tab: Any, changed: set[str]) -> None:  # noqa: ANN401  # any tab
        with tab._controls.lock:  # noqa: SLF001  # a part of the tab
            sync(tab, changed)

    return synced


class Controls:
    """Controls that act when a person moves them, and not when the panel does."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._setting = False
        self._known: dict[tuple[int, str], object] = {}

    def on(self, widget: widgets.Widget, act: Callable[[], None], trait: str = "value") -> None:
        """Call ``act`` when a person changes a control."""

        def changed(_: Mapping[str, Any]) -> None:
            # The lock first: while the panel's thread sets values, this is another thread.
            with self.lock:
                if not self._setting:
                    self._known[id(widget), trait] = getattr(widget, trait)
                    act()

        widget.observe(changed, trait)

    def set(self, widget: widgets.Widget, **traits: object) -> None:
        """Set what a control shows, if that is something else than when it was last set.

        A control that a person has just moved is left alone until that has been acted upon.
        """
        with self.lock:
            self._setting = True
            try:
                for name, value in traits.items():
                    key = (id(widget), name)
                    if key not in self._known or not _same(self._known[key], value):
                        self._known[key] = value
                        setattr(widget, name, value)
            finally:
                self._setting = False


def _same(one: object, other: object) -> bool:
    """Whether two values look the same: a slider says 0.8800000000000001 where 0.88 is meant.

    To send it the 0.88 would move it back, if a person has gone on in the meantime.
    """
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    return one == other


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
            width="100%",
            grid_gap="8px 16px",
            grid_template_columns=" ".join(f"minmax(0, {w})" for w in widths),
        ),
    )


STYLE = """<style>
.workbench-error { color: #8a1f00; background: #fff1e8; border-left: 4px solid #D55E00;
  padding: 4px 10px; line-height: 1.4; white-space: pre-wrap; }
.workbench-note { color: #595959; font-size: 12px; line-height: 1.4; }
.workbench-table table { font-size: 12px; border-collapse: collapse; }
.workbench-table caption { text-align: left; font-weight: bold; padding: 2px 6px;
  white-space: nowrap; }
.workbench-table th, .workbench-table td { padding: 1px 5px; text-align: right;
  line-height: 1.35; white-space: nowrap; }
.workbench-table td:last-child { white-space: normal; }
.workbench-table thead th { position: sticky; top: 0; background: #f2f2f2; }
.workbench-log { font: 12px/1.4 monospace; white-space: pre-wrap; margin: 0; }
</style>"""
