"""papermill's own engine with a progress bar that moves inside long cells too.

papermill counts cells; a search is one cell of minutes. Bars which a cell shows with
``tqdm.auto`` are widgets in a notebook, whose state the kernel sends here: the position of the
outermost one stands behind papermill's own bar.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nbformat import NotebookNode
    from papermill.engines import NotebookExecutionManager

ENGINE_NAME = "workbench"
KERNEL_START_S = 120
REFRESH_S = 0.2 if sys.stderr.isatty() else 30.0
"""A terminal overwrites the bar; a log gets a new line each time."""


def bar_position(widgets: Iterable[Mapping[str, Any]]) -> str:
    """Return ``done/total`` of the first progress widget that is not yet full, or nothing."""
    for state in widgets:
        if state.get("_model_name") == "FloatProgressModel" and state["value"] < state["max"]:
            return f"{state['value']:.0f}/{state['max']:.0f}"
    return ""


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    shown = ""
    shown_at = 0.0

    def handle_comm_msg(
        self, outs: list[NotebookNode], msg: dict[str, Any], cell_index: int
    ) -> None:
        super().handle_comm_msg(outs, msg, cell_index)
        position = bar_position(self.widget_state.values())
        is_due = not position or time.monotonic() - self.shown_at > REFRESH_S
        if self.nb_man.pbar is not None and position != self.shown and is_due:
            self.shown, self.shown_at = position, time.monotonic()
            self.nb_man.pbar.set_postfix_str(position)


class _Engine(NBClientEngine):  # type: ignore[misc]
    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **_: object
    ) -> None:
        client = _Client(
            nb_man, kernel_name=kernel_name, startup_timeout=KERNEL_START_S, log=logger
        )
        # The data of a figure alone: the report brings plotly.js once, JupyterLab has its own.
        environment = {**os.environ, "PLOTLY_RENDERER": "plotly_mimetype"}
        client.execute(env=environment)


papermill_engines.register(ENGINE_NAME, _Engine)
