"""Controls of the tier table and of the schedule by which links change."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import ipywidgets as widgets

from workbench.testbed.docker import DockerTestbed
from workbench.testbed.namespaces import NamespaceTestbed
from workbench.testbed.replay import TraceSchedule
from workbench.testbed.schedules import ConstantSchedule, TierSchedule
from workbench.testbed.simulated import SimulatedTestbed
from workbench.testbed.traces import shipped_traces
from workbench.tiers import Tier
from workbench.ui.panel_parts import LABEL, Controls, locked, note, row, width

if TYPE_CHECKING:
    from workbench.testbed.base import Testbed
    from workbench.ui.panel_desk import Desk

TESTBEDS = {
    "simulated": SimulatedTestbed,
    "namespaces": NamespaceTestbed,
    "docker": DockerTestbed,
}
"""Those that need no more than a schedule; CORE needs an address, and is set in code."""
RULES = {
    "redrawn from the tier": "tiers",
    "kept at one rate": "constant",
    "led by a trace": "traces",
}


class ScheduleControls:
    """Which testbed, and when and how its links change."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._controls = Controls()
        self._other: Testbed | None = None
        self.testbed = widgets.Dropdown(
            description="Testbed", options=list(TESTBEDS), layout=width(270), style=LABEL
        )
        self.rule = widgets.Dropdown(
            description="Links are", options=RULES, layout=width(300), style=LABEL
        )
        self.period = widgets.BoundedFloatText(
            description="Period (s)", min=0.1, max=1e6, layout=width(270), style=LABEL
        )
        self.seed = widgets.BoundedIntText(
            description="Seed", min=0, max=2**31 - 1, layout=width(270), style=LABEL
        )
        self.trace = widgets.Dropdown(
            description="Trace", options=shipped_traces(), layout=width(270), style=LABEL
        )
        self._controls.on(self.testbed, self._apply_testbed)
        for control in (self.rule, self.period, self.seed, self.trace):
            self._controls.on(control, self._apply_schedule)
        self._note = note("")
        self.box = widgets.VBox(
            [row(self.testbed, self.rule, self.period, self.seed, self.trace), self._note]
        )

    def _apply_testbed(self) -> None:
        search = self._desk.search
        kind = TESTBEDS.get(self.testbed.value)
        if kind is None:
            # One that was made in code, of which the panel knows no more than its name.
            if self._other is not None:
                with self._desk.doing(f"search.testbed = {self._other!r}"):
                    search.testbed = self._other
            self.sync({"testbed"})
            return
        with self._desk.doing(
            f"search.testbed = wb.{kind.__name__}(schedule=search.testbed.schedule)"
        ):
            search.testbed = kind(schedule=search.testbed.schedule)  # type: ignore[attr-defined]
        self.sync({"testbed"})

    def _apply_schedule(self) -> None:
        search, network = self._desk.search, self._desk.attached
        rule = self.rule.value
        if rule == "tiers":
            made = f"TierSchedule(period_s={self.period.value:g}, seed={self.seed.value})"
        elif rule == "constant":
            made = "ConstantSchedule()"
        else:
            made = f"TraceSchedule(links=({self.trace.value!r},), stagger_s=10)"
        with self._desk.doing(
            f"search.testbed = dataclasses.replace(search.testbed, schedule=wb.{made})"
        ):
            schedule = (
                TierSchedule(period_s=self.period.value, seed=self.seed.value)
                if rule == "tiers"
                else ConstantSchedule()
                if rule == "constant"
                else TraceSchedule(links=(self.trace.value,), stagger_s=10)
            )
            search.testbed = replace(search.testbed, schedule=schedule)  # type: ignore[type-var]
            if network is not None:
                network.follow(schedule)
        self.sync({"testbed"})

    @locked
    def sync(self, changed: set[str]) -> None:
        """Show the testbed and the schedule as they are."""
        if not changed & {"testbed", "status"}:
            return
        testbed: Testbed = self._desk.search.testbed
        schedule = getattr(testbed, "schedule", None)
        names = [name for name, kind in TESTBEDS.items() if isinstance(testbed, kind)]
        running = self._desk.search.session.running
        set_ = self._controls.set
        if not names:
            self._other = testbed
            set_(self.testbed, options=[*TESTBEDS, type(testbed).__name__])
        set_(self.testbed, value=names[0] if names else type(testbed).__name__)
        set_(self.testbed, disabled=running)
        kind = getattr(schedule, "kind", "constant")
        set_(self.rule, value=kind, disabled=schedule is None)
        if isinstance(schedule, TierSchedule):
            set_(self.period, value=schedule.period_s)
            set_(self.seed, value=schedule.seed)
        for control, shown in (
            (self.period, kind == "tiers"),
            (self.seed, kind == "tiers"),
            (self.trace, kind == "traces"),
        ):
            control.layout.display = "" if shown else "none"
        self._note.value = note(
            "Another schedule takes effect at the next round and is written into the run's events. "
            "The testbed itself can be changed when the search is stopped."
            if running
            else "Takes effect when the search starts."
        ).value


class TierControls:
    """The tier table: lowest and highest rate and step of each tier, in Mbit/s."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._controls = Controls()
        self.fields: list[dict[str, widgets.BoundedFloatText]] = []
        self._grid = widgets.VBox()
        self._note = note("")
        title = widgets.HTML("<b>Tiers</b>: the rates that links of a tier may have, in Mbit/s")
        self.box = widgets.VBox([title, self._note, self._grid])
        self._shown: tuple[Tier, ...] = ()

    @locked
    def sync(self, changed: set[str]) -> None:
        """Show the fleet's tiers, and whether they can be changed now."""
        if not changed & {"fleet", "status"}:
            return
        tiers = self._desk.search.fleet.tiers
        if len(tiers) != len(self.fields):
            self._build(tiers)
        running = self._desk.search.session.running
        for tier, fields in zip(tiers, self.fields, strict=True):
            for name, field in fields.items():
                self._controls.set(field, value=getattr(tier, f"{name}_bps") / 1e6)
                self._controls.set(field, disabled=running)
        self._shown = tiers
        self._note.value = note(
            "A running search keeps its tiers; stop it to change them."
            if running
            else "A change draws the fleet's rates anew at once, from the same seed."
        ).value

    def _build(self, tiers: tuple[Tier, ...]) -> None:
        """Make one line of fields a tier, in columns as many as there is room for."""
        self.fields = []
        lines = []
        for number, tier in enumerate(tiers):
            fields = {}
            for name, text in (("low", "from"), ("high", "to"), ("step", "step")):
                field = widgets.BoundedFloatText(
                    description=text if name != "low" else f"Tier {tier.name}: from",
                    min=0.001, max=100_000,
                    style={"description_width": "92px" if name == "low" else "34px"},
                    layout=widgets.Layout(width="180px" if name == "low" else "122px"),
                )  # fmt: skip
                self._controls.on(field, partial(self._apply, number))
                fields[name] = field
            self.fields.append(fields)
            lines.append(widgets.HBox(list(fields.values()), layout=widgets.Layout(width="450px")))
        self._grid.children = [row(*lines)]

    def _apply(self, number: int) -> None:
        search = self._desk.search
        old = search.fleet.tiers[number]
        values = {f"{name}_bps": field.value * 1e6 for name, field in self.fields[number].items()}
        text = ", ".join(f"{name}={value:g}" for name, value in values.items())
        with self._desk.doing(
            f"tiers[{number}] = dataclasses.replace(tiers[{number}], {text}); "
            "search.fleet = search.fleet.with_tiers(tiers)"
        ):
            tiers = list(search.fleet.tiers)
            tiers[number] = Tier(name=old.name, tier_class=old.tier_class, **values)
            search.fleet = search.fleet.with_tiers(tiers)
