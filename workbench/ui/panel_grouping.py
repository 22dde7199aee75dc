"""The control room's tab on the grouping: what COEFF and its kin do to groups and rounds."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import pandas as pd

from workbench.grouping.annealed import AnnealedGrouping
from workbench.grouping.balanced import BalancedGrouping
from workbench.grouping.baselines import NetworkAwareGrouping, RandomGrouping
from workbench.grouping.netdag import NetDAG
from workbench.grouping.sweep import COEFFS
from workbench.ui import grouping_plots, panel_plots, style, sweep_plots
from workbench.ui.panel_figure import Plot, legend_below
from workbench.ui.panel_parts import LABEL, Controls, Table, locked, note, row, width

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workbench.grouping.base import GroupingStrategy
    from workbench.grouping.result import Grouping
    from workbench.ui.panel_desk import Desk

STRATEGIES: dict[str, type[GroupingStrategy]] = {
    "NetDAG": NetDAG,
    "network-aware": NetworkAwareGrouping,
    "random": RandomGrouping,
    "balanced": BalancedGrouping,
    "annealed": AnnealedGrouping,
}
PARAMETERS = (
    "coeff", "max_iter", "metric", "max_slowdown", "proposals", "seed", "max_ratio",
)  # fmt: skip


class GroupingTab:
    """Strategy and its parameters; groups, distances and predicted rounds follow at once."""

    title = "Grouping"

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._controls = Controls()
        self._known: dict[GroupingStrategy, Grouping] = {}
        self._known_for: tuple[object, ...] = ()
        self._frame: tuple[object, ...] = ()
        self._make_controls()
        self._note = note("")
        self._groups = Plot(height=560)
        self._durations = Plot(height=320)
        self._trace = Plot(height=360)
        self._pareto = Plot(height=360)
        self._table = Table("Groups", height="240px")
        self._swaps = Table("Swaps", height="330px")
        self._points = Table("Other values of COEFF", height="330px")
        beside = widgets.VBox([self._table.box, self._durations.box])
        self.box = widgets.VBox(
            [
                row(self.strategy, self.coeff, self.max_iter),
                row(self.metric, self.limited, self.max_slowdown, self.max_ratio),
                row(self.proposals, self.seed),
                self._note,
                row(self._groups.box, beside, widths=("6fr", "5fr")),
                row(self._pareto.box, self._points.box, widths=("3fr", "2fr")),
                row(self._trace.box, self._swaps.box, widths=("3fr", "2fr")),
            ]
        )
        self.sync({"grouping", "status"})

    def _make_controls(self) -> None:
        self.strategy = widgets.Dropdown(
            description="Strategy", options=list(STRATEGIES), layout=width(270), style=LABEL
        )
        self.coeff = widgets.FloatSlider(
            description="COEFF", min=0.01, max=1, step=0.01, layout=width(420), style=LABEL
        )
        self.max_iter = widgets.IntSlider(
            description="MAX_ITER", min=0, max=50, layout=width(420), style=LABEL
        )
        self.metric = widgets.Dropdown(
            description="Metric", options=["l1", "chord"], layout=width(270), style=LABEL
        )
        self.limited = widgets.Checkbox(
            description="Limit the slowdown", indent=False, layout=width(170)
        )
        self.max_slowdown = widgets.FloatSlider(
            description="max_slowdown", min=1, max=5, step=0.05, layout=width(420), style=LABEL
        )
        self.seed = widgets.BoundedIntText(
            description="Seed", min=0, max=2**31 - 1, layout=width(270), style=LABEL
        )
        self.proposals = widgets.BoundedIntText(
            description="Proposals", min=0, max=10_000_000, step=10_000, layout=width(270),
            style=LABEL,
        )  # fmt: skip
        self.max_ratio = widgets.FloatSlider(
            description="max_ratio", min=1, max=3, step=0.05, layout=width(420), style=LABEL
        )
        for name in ("strategy", "limited", *PARAMETERS):
            self._controls.on(getattr(self, name), self._apply)

    def _chosen(self) -> GroupingStrategy:
        """Return the strategy that the controls say; what has no control stays as it is."""
        kind = STRATEGIES.get(self.strategy.value)
        now = self._desk.search.grouping
        if kind is None:
            return now
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # dataclasses
        if type(now) is not kind:
            # Another strategy begins with its own defaults, and what both have stays.
            return kind(**{name: getattr(now, name) for name in names if hasattr(now, name)})
        settings: dict[str, Any] = {
            name: getattr(self, name).value for name in names if name in PARAMETERS
        }
        for name, value in settings.items():
            if isinstance(value, float):
                settings[name] = round(value, 4)
        if "max_slowdown" in settings and not self.limited.value:
            settings["max_slowdown"] = None
        return replace(now, **settings)  # type: ignore[type-var]

    def _apply(self) -> None:
        search = self._desk.search
        with self._desk.doing():
            if (chosen := self._chosen()) == search.grouping:
                return  # a browser may send back what it was given
            search.grouping = chosen
            self._desk.show_code(f"search.grouping = wb.{search.grouping!r}")
            self._show_controls(search.grouping)
            self._show_groups()

    # ------------------------------------------------------------------ what is shown

    @locked
    def sync(self, changed: set[str]) -> None:
        """Show the strategy, and when a change takes effect."""
        if not changed & {"grouping", "status"}:
            return
        search = self._desk.search
        with self._controls.lock:
            self._show_controls(search.grouping)
        self._note.value = note(
            "A change takes effect at the next iteration and is written into the run's events. "
            "Shown is what it would do at the link rates of this moment."
            if search.session.running
            else "Moving a control groups the clients at once; nothing is trained."
        ).value

    def draw(self, changed: set[str]) -> None:
        """Show what the strategy would do to the fleet as it is now."""
        if changed & {"grouping", "fleet", "status", "network", "links", "event"}:
            with self._controls.lock:
                self._show_groups()

    def _show_controls(self, strategy: GroupingStrategy) -> None:
        names = [name for name, kind in STRATEGIES.items() if type(strategy) is kind]
        set_ = self._controls.set
        if not names:
            set_(self.strategy, options=[*STRATEGIES, type(strategy).__name__])
        set_(self.strategy, value=names[0] if names else type(strategy).__name__)
        settings = strategy.settings()
        if "max_slowdown" in settings:
            set_(self.limited, value=settings["max_slowdown"] is not None)
        for name in PARAMETERS:
            control = getattr(self, name)
            if settings.get(name) is not None:
                set_(control, value=settings[name])
            there = name in settings and (name != "max_slowdown" or self.limited.value)
            control.layout.display = "" if there else "none"
        self.limited.layout.display = "" if "max_slowdown" in settings else "none"

    def _show_groups(self) -> None:
        """Group the clients, and show it beside what other strategies would do."""
        strategy = self._desk.search.grouping
        sizes = self._desk.sizes_bytes()
        group = self._grouper(sizes)
        grouping = group(strategy)
        shown = {self.strategy.value: grouping}
        for name, other in (
            ("network-aware", NetworkAwareGrouping()),
            ("random", RandomGrouping()),
        ):
            shown.setdefault(name, group(other))
        pair = {name: shown[name] for name in list(shown)[:2]}
        basis = strategy if isinstance(strategy, NetDAG) else NetDAG()
        points, tables = _points(shown, {c: group(replace(basis, coeff=c)) for c in COEFFS}, sizes)
        traced = grouping.emd_trace is not None
        # Other data in the same figures are quick to show; other axes or names need new figures.
        frame = (tuple(shown), len(sizes), grouping.tiers, basis.metric, traced)
        if frame == self._frame:
            self._groups.update([t for one in grouping_plots.bubbles_of(pair) for t in one])
            self._durations.update(panel_plots.duration_bars(shown, sizes))
            self._pareto.update(_with_star(sweep_plots.pareto_points(tables)))
            if traced:
                self._trace.update(grouping_plots.emd_lines(grouping))
        else:
            self._frame = frame
            figure = grouping_plots.groups(pair)
            figure.update_xaxes(title_text="group")
            figure.update_layout(
                title=None, margin={"t": 60},
                legend={"orientation": "h", "y": 1.06, "yanchor": "bottom", "x": 0},
            )  # fmt: skip
            self._groups.show(figure)
            self._durations.show(legend_below(panel_plots.durations(shown, sizes)))
            figure = sweep_plots.pareto(tables)
            figure.update_layout(title_text="Alike groups or short rounds?")
            figure.data[-1].update(_with_star(sweep_plots.pareto_points(tables))[-1])
            self._pareto.show(figure)
            if traced:
                self._trace.show(grouping_plots.emd_trace(grouping))
            for box in (self._trace.box, self._swaps.box):
                box.layout.display = "" if traced else "none"
        found = grouping.table()
        table = pd.DataFrame(
            {
                "group": found["group"],
                "clients": found["clients"],
                "samples": found["samples"],
                "EMD": grouping.emd(),
                "moved in": found["swapped_in"],
                "slowest": found["slowest_mbit_s"],
                "seconds": grouping.round_duration_s(sizes),
            }
        )
        mean, swaps = float(grouping.emd().mean()), len(grouping.swaps)
        self._table.show(table, f"Groups: mean EMD {mean:.4f}, {swaps} swaps")
        self._swaps.show(_swap_table(grouping))
        self._points.show(
            points.rename(columns={"coeff": "COEFF", "emd": "mean EMD", "duration_s": "seconds"})
        )

    def _grouper(self, sizes: list[float]) -> Callable[[GroupingStrategy], Grouping]:
        """Return a function that groups the fleet of this moment, each strategy once."""
        fleet, present = self._desk.fleet_now()
        key = (fleet.label_counts.tobytes(), fleet.rate_bps.tobytes(), fleet.tier.tobytes(),
               present.tobytes(), tuple(sizes))  # fmt: skip
        if key != self._known_for:
            self._known_for, self._known = key, {}

        def group(strategy: GroupingStrategy) -> Grouping:
            if strategy not in self._known:
                self._known[strategy] = strategy.group(
                    fleet, len(sizes), sizes_bytes=sizes, available=present
                )
            return self._known[strategy]

        return group


def _points(
    shown: Mapping[str, Grouping], by_coeff: Mapping[float, Grouping], sizes: list[float]
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return where groupings lie between alike groups and short rounds, the present one last."""
    points = pd.DataFrame(
        {"coeff": coeff, **_merit(other, sizes), "swaps": len(other.swaps)}
        for coeff, other in by_coeff.items()
    )
    (name, now), *others = shown.items()
    tables = {"NetDAG, COEFF 0.1 to 1": points}
    tables |= {other: pd.DataFrame([_merit(grouping, sizes)]) for other, grouping in others}
    tables[f"now: {name}"] = pd.DataFrame([_merit(now, sizes)])
    return points, tables


def _merit(grouping: Grouping, sizes: list[float]) -> dict[str, float]:
    return {
        "emd": float(grouping.emd().mean()),
        "duration_s": float(grouping.round_duration_s(sizes).max()),
    }


def _with_star(traces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let the last trace, where one is now, stand out."""
    traces[-1]["marker"] |= {"symbol": "star", "size": 16, "color": style.colour(3)}
    return traces


def _swap_table(grouping: Grouping) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "swap": number,
            "iteration": swap.iteration + 1,
            "client": swap.client,
            "from": swap.group,
            "to": swap.neighbour,
            "for": swap.partner if swap.partner >= 0 else "nobody",
            "mean EMD": swap.mean_emd,
        }
        for number, swap in enumerate(grouping.swaps, start=1)
    )
