"""The control room's tab on runs: open them, compare them, export figures and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as widgets

if TYPE_CHECKING:
    from workbench.ui.panel_parts import Desk


class RunsTab:
    """Runs."""

    title = "Runs"

    def __init__(self, desk: Desk) -> None:
        self.box = widgets.VBox([])

    def refresh(self, changed: set[str]) -> None:
        pass
