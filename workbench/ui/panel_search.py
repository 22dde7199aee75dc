"""The control room's tab on the search: start, pause, resume, stop; what it finds as it runs."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets
import pandas as pd

from workbench.ui import run_plots, style
from workbench.ui.panel_figure import Plot, legend_below
from workbench.ui.panel_parts import LABEL, WIDE, Controls, Table, locked, row
from workbench.ui.panel_run import sentence

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.search.run import Run
    from workbench.ui.panel_desk import Desk

_LOG_LINES = 300
STATUS = {
    "ready": "ready to start",
    "starting": "starting: the network comes up",
    "running": "running",
    "pausing": "pausing after this round",
    "paused": "paused",
    "stopping": "stopping after this round",
    "stopped": "stopped; Start goes on from there",
    "finished": "finished",
    "failed": "failed; Start goes on from the last complete round",
}


class SearchTab:
    """Start, pause, resume and stop a search, and watch what it finds."""

    title = "Search"

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._controls = Controls()
        self.path = widgets.Text(
            description="Run folder", value=str(desk.path), continuous_update=False,
            layout=widgets.Layout(width="420px"), style=LABEL,
        )  # fmt: skip
        self.start = _button("Start", "play", "Run the search, or go on with the run in the folder")
        self.pause = _button("Pause", "pause", "Wait before the next round")
        self.resume = _button("Resume", "forward", "Go on after a pause")
        self.stop = _button("Stop", "stop", "End before the next round; what was found is kept")
        self.progress = widgets.IntProgress(
            description="Rounds", min=0, max=1, layout=widgets.Layout(width="420px"), style=LABEL
        )
        self.state = widgets.HTML()
        self._began: tuple[float, int] | None = None
        self._bind()
        self._frontier = Plot(height=380)
        self._rounds = Plot(height=300)
        self._traffic = Plot(height=300)
        self._found = Table("Iterations", height="330px")
        self._round_table = Table("Rounds", height="280px")
        self._failures = Table("Late, failed or away", height="220px")
        self.log = widgets.HTML(layout=WIDE)
        self._figures = widgets.VBox(
            [
                row(self._frontier.box, self._found.box, widths=("3fr", "2fr")),
                row(
                    self._rounds.box, self._traffic.box, self._round_table.box,
                    widths=("5fr", "5fr", "6fr"),
                ),
            ]
        )  # fmt: skip
        self._last = row(self._failures.box, self._log_box(), widths=("2fr", "3fr"))
        self.box = widgets.VBox(
            [
                row(self.path, self.start, self.pause, self.resume, self.stop),
                row(self.progress, self.state),
                self._figures,
                self._last,
            ]
        )
        self.sync({"status"})

    def _log_box(self) -> widgets.Widget:
        layout = widgets.Layout(height="220px", overflow="auto", border="1px solid #ddd")
        return widgets.VBox(
            [widgets.HTML("<b>Log</b>, newest first"), widgets.Box([self.log], layout=layout)]
        )

    def _bind(self) -> None:
        search = self._desk.search
        self._controls.on(self.path, self._choose_path)

        def start(_: widgets.Button) -> None:
            with self._desk.doing(f"search.start({self.path.value!r})"):
                search.start(self.path.value)

        self.start.on_click(start)
        for button, name in (
            (self.pause, "pause"), (self.resume, "resume"), (self.stop, "stop"),
        ):  # fmt: skip

            def clicked(_: widgets.Button, name: str = name) -> None:
                with self._desk.doing(f"search.{name}()"):
                    getattr(search, name)()

            button.on_click(clicked)

    def _choose_path(self) -> None:
        with self._desk.doing():
            self._desk.path = Path(self.path.value)
            self.sync({"status"})
            self.draw({"status"})

    # ------------------------------------------------------------------ what is shown

    @locked
    def sync(self, changed: set[str]) -> None:
        """Show where the search stands, and what can be done with it."""
        if not changed & {"status", "network", "event"}:
            return
        session = self._desk.search.session
        if "status" in changed and session.error is not None:
            self._desk.complain(session.error)
        if session.running and session.path is not None:
            self._controls.set(self.path, value=str(session.path))
            self._desk.path = session.path
        status = session.status
        running = session.running
        set_ = self._controls.set
        set_(self.path, disabled=running)
        set_(self.start, disabled=running)
        set_(self.pause, disabled=status not in {"running", "starting"})
        set_(self.resume, disabled=status not in {"paused", "pausing"})
        set_(self.stop, disabled=not running or status == "stopping")
        done, total = session.rounds_done, session.rounds_total
        words = STATUS[status]
        if not running and session.path != self._desk.path:
            words, done, total = self._of_folder()
        set_(self.progress, max=max(total, done, 1))
        set_(self.progress, value=done, bar_style="success" if status == "finished" else "")
        count = f"{done} of at most {total} rounds" if total else f"{done} rounds"
        left = self._time_left(done, total) if status == "running" else ""
        self.state.value = f"<b>{html.escape(words)}</b>, {count}{left}"

    def _of_folder(self) -> tuple[str, int, int]:
        """Say what the chosen folder holds, if this search has not run in it."""
        run = self._desk.run()
        if run is None:
            return STATUS["ready"], 0, 0
        done = int(run.checkpoint.get("rounds_done", 0))
        if run.finished:
            return "this folder holds a finished run", done, done
        return "this folder holds a run that can go on: Start does so", done, 0

    def _time_left(self, done: int, total: int) -> str:
        """Estimate from the rounds that were done since the start, by the clock of the wall."""
        now = time.monotonic()
        if self._began is None or done < self._began[1]:
            self._began = (now, done)
        since, first = self._began
        if done <= first:
            return ""
        seconds = (now - since) / (done - first) * (total - done)
        return f", about {_duration(seconds)} left"

    def draw(self, changed: set[str]) -> None:
        """Show what the run holds by now."""
        if not changed & {"status", "event"}:
            return
        run = self._desk.run()
        for box in (self._figures, self._last):
            box.layout.display = "none" if run is None else ""
        if run is None:
            return
        lines = [html.escape(sentence(event)) for event in run.events[-_LOG_LINES:]]
        self.log.value = f'<pre class="workbench-log">{chr(10).join(reversed(lines))}</pre>'
        frontier, rounds = run.frontier(), run.rounds()
        self._frontier.show(run_plots.frontier(run))
        self._found.show(readable_frontier(frontier))
        self._rounds.show(legend_below(run_plots.round_durations(run)))
        self._round_table.show(readable_rounds(run))
        self._traffic.show(legend_below(run_plots.traffic(run) if len(rounds) else _nothing()))
        failures = run.failures()
        if not failures.empty:
            failures = failures.assign(client=[run.fleet.names[n] for n in failures["client"]])
            failures = failures[["client", "iteration", "round", "status", "reason"]]
        self._failures.show(failures.iloc[::-1])


def _nothing() -> go.Figure:
    return style.figure("Traffic of all clients, summed up", "iteration", "megabytes")


def readable_frontier(frontier: pd.DataFrame) -> pd.DataFrame:
    """Return the iterations of a run in the units that a person reads."""
    return pd.DataFrame(
        {
            "iteration": frontier["iteration"],
            "pruned": frontier["block"].replace("", "–"),
            "accuracy": frontier["accuracy"],
            "MMACs": frontier["macs"] / 1e6,
            "MB": frontier["size_bytes"] / 1e6,
            "seconds": frontier["duration_s"],
        }
    )


def readable_rounds(run: Run) -> pd.DataFrame:
    """Return the rounds of a run with what they carried down and up, the last one first."""
    rounds = run.rounds()
    carried = [
        [sum(event["clients"].get(name, ())) / 1e6 for name in ("bytes_down", "bytes_up")]
        for event in run.of("round")
    ]
    return pd.DataFrame(
        {
            "iter.": rounds["iteration"],
            "round": rounds["round"],
            "seconds": rounds["duration_s"],
            "replies": rounds["replies"],
            "MB ↓": [down for down, _ in carried],
            "MB ↑": [up for _, up in carried],
            "dropped": rounds["dropped"],
            "lost": rounds["lost"],
        }
    ).iloc[::-1]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _button(text: str, icon: str, tooltip: str) -> widgets.Button:
    return widgets.Button(
        description=text, icon=icon, tooltip=tooltip, layout=widgets.Layout(width="105px")
    )
