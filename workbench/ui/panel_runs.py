"""The control room's tab on runs: open them, compare them, export figures and tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets
import pandas as pd

from workbench.search.compare import compare
from workbench.search.run import Run
from workbench.ui import panel_export, run_plots, run_report
from workbench.ui.panel_figure import Plot
from workbench.ui.panel_parts import LABEL, WIDE, Controls, Table, note, row, width
from workbench.ui.panel_search import readable_frontier, readable_rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.ui.panel_desk import Desk

MEASURES = ("accuracy", "MMACs", "MB", "hours", "traffic GB")


class RunsTab:
    """Runs of a folder: look at one, put several side by side, take figures and tables away."""

    title = "Runs"

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._controls = Controls()
        self.folder = widgets.Text(
            description="Folder", value=str(desk.path.parent), continuous_update=False,
            layout=width(420), style=LABEL,
        )  # fmt: skip
        self.look = _button("Look again", "refresh", "See which runs the folder has now")
        self.runs = widgets.SelectMultiple(
            description="Runs", rows=6, layout=width(420), style=LABEL
        )
        self.open = _button("Open", "folder-open", "Show the selected run")
        self.compare = _button("Compare", "columns", "Put the selected runs side by side")
        self.report = _button("Report", "file", "Write each selected run as one HTML file")
        self.html = _button("Figures as HTML", "line-chart", "Write the selected runs' figures")
        self.png = _button("Figures as PNG", "image", "Write the selected runs' figures")
        self.csv = _button("Tables as CSV", "table", "Write the selected runs' tables")
        self._bind()
        self.said = widgets.HTML(layout=WIDE)
        self._first, self._second = Plot(height=400), Plot(height=400)
        self._first_table = Table("Iterations", height="400px")
        self._second_table = Table("Rounds", height="400px")
        self._settings = Table("Settings", height="300px")
        self._shown = widgets.VBox(
            [
                row(self._first.box, self._first_table.box, widths=("3fr", "2fr")),
                row(self._second.box, self._second_table.box, widths=("3fr", "2fr")),
                self._settings.box,
            ]
        )
        self._shown.layout.display = "none"
        buttons = widgets.VBox(
            [
                row(self.open, self.compare, self.report),
                row(self.html, self.png, self.csv),
                note(
                    "Select one run, or several with Ctrl or Shift and the arrow keys. What is "
                    "exported goes into the folder <code>export</code> of the run."
                ),
            ],
            layout=widgets.Layout(width="520px"),
        )
        self.box = widgets.VBox(
            [row(self.folder, self.look), row(self.runs, buttons), self.said, self._shown]
        )
        self._list()

    def _bind(self) -> None:
        self._controls.on(self.folder, self._look)
        self.look.on_click(lambda _: self._look())
        for button, act in (
            (self.open, self._open),
            (self.compare, self._compare),
            (self.report, self._write_reports),
            (self.html, lambda: self._export("figures", panel_export.export_html)),
            (self.png, lambda: self._export("figures", panel_export.export_png)),
            (self.csv, lambda: self._export("tables", panel_export.export_csv)),
        ):
            self._on_click(button, act)

    def _on_click(self, button: widgets.Button, act: Callable[[], str]) -> None:
        def clicked(_: widgets.Button) -> None:
            with self._desk.doing():
                if not self.runs.value:
                    raise ValueError("no run is selected; select one in the list")
                code = act()
                self._desk.show_code(code)

        button.on_click(clicked)

    def sync(self, changed: set[str]) -> None:
        """List the runs anew when a search has begun or ended."""
        if changed & {"status", "network"}:
            self._list()

    def draw(self, changed: set[str]) -> None:
        """Do nothing: what is shown was asked for, and stays."""

    def _look(self) -> None:
        with self._desk.doing():
            self._list()

    def _list(self) -> None:
        """Show which runs the folder has; those selected stay so."""
        with self._controls.lock:
            folder = Path(self.folder.value)
            found = sorted(path.parent for path in folder.glob("**/config.json"))
            options = tuple((str(path.relative_to(folder)), str(path)) for path in found)
            if options != self.runs.options:
                kept = tuple(run for run in self.runs.value if run in dict(options).values())
                self.runs.options = options
                self.runs.value = kept

    # ------------------------------------------------------------------ what the buttons do

    def _open(self) -> str:
        path = self.runs.value[0]
        run = Run(path)
        if run.frontier().empty:
            raise ValueError(f"run {path} has no result yet: its first iteration has not ended")
        self._first.show(run_plots.frontier(run))
        self._first_table.show(readable_frontier(run.frontier()), f"Iterations of {path}")
        self._second.show(run_plots.round_durations(run))
        self._second_table.show(readable_rounds(run), "Rounds")
        settings = run_report.tables(run)["settings"]
        settings["value"] = [
            f"{text[:80]}…" if len(text) > 100 else text for text in settings["value"]
        ]
        self._settings.show(settings, "Settings")
        self._shown.layout.display = ""
        self.said.value = f"<b>{path}</b>: {run_report.headline(run)}"
        return f"run = wb.Run({path!r}); run.frontier(); wb.plots.frontier(run)"

    def _compare(self) -> str:
        paths = list(self.runs.value)
        side_by_side = compare({str(Path(path).name): path for path in paths})
        table = side_by_side.table()
        measures = {name: table[name].tolist() for name in MEASURES}
        self._first.show(run_plots.compared(list(table.index), measures, "Runs side by side"))
        self._first_table.show(
            table.T.rename_axis("measure").reset_index().astype({"measure": str}), "Runs"
        )
        self._second.show(run_plots.round_durations(side_by_side.runs))
        rounds = {name: run.rounds()["duration_s"] for name, run in side_by_side.runs.items()}
        seconds = pd.DataFrame(rounds).rename_axis("round").reset_index()
        self._second_table.show(seconds.assign(round=seconds["round"] + 1), "Seconds of each round")
        settings = side_by_side.settings().rename_axis("setting").reset_index()
        self._settings.show(pd.DataFrame(settings.astype(str)), "Settings that differ")
        self._shown.layout.display = ""
        self.said.value = f"<b>{len(paths)} runs side by side</b>"
        return f"wb.compare({paths!r})"

    def _write_reports(self) -> str:
        written = [
            Run(path).report(Path(path) / "export" / "report.html") for path in self.runs.value
        ]
        self._tell(written)
        return f"wb.Run({self.runs.value[0]!r}).report({str(written[0])!r})"

    def _export(self, what: str, export: Callable[[Run, Path], list[Path]]) -> str:
        written = [
            path for run in self.runs.value for path in export(Run(run), Path(run) / "export")
        ]
        self._tell(written)
        run = f"wb.Run({self.runs.value[0]!r})"
        return (
            f"wb.plots.frontier({run}).write_html({str(written[0])!r})"
            if what == "figures"
            else f"{run}.frontier().to_csv({str(written[0])!r})"
        )

    def _tell(self, written: list[Path]) -> None:
        listed = "".join(f"<li><code>{path}</code></li>" for path in written)
        count = "1 file" if len(written) == 1 else f"{len(written)} files"
        self.said.value = f"<b>{count} written</b><ul>{listed}</ul>"


def _button(text: str, icon: str, tooltip: str) -> widgets.Button:
    return widgets.Button(description=text, icon=icon, tooltip=tooltip, layout=width(155))
