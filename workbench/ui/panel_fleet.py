"""The control room's tab on the fleet: how many clients, how alike, who has what."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import pandas as pd

from workbench.fleet import Fleet
from workbench.ui import fleet_plots
from workbench.ui.panel_figure import Plot
from workbench.ui.panel_parts import LABEL, Controls, Table, locked, note, row, width

if TYPE_CHECKING:
    from workbench.ui.panel_desk import Desk

MOST_CLIENTS = 1000


class FleetTab:
    """Client count, α and seed of a fleet that was drawn; label distribution, tiers, links."""

    title = "Fleet"

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._controls = Controls()
        most = max(len(desk.search.fleet), min(MOST_CLIENTS, len(desk.search.dataset.labels) // 4))
        self.clients = widgets.IntSlider(
            description="Clients", min=1, max=most, layout=width(420), style=LABEL
        )
        self.alpha = widgets.FloatLogSlider(
            description="α (likeness)", min=-2, max=3, step=0.01, layout=width(420), style=LABEL,
            readout_format=".2f",
        )  # fmt: skip
        self.seed = widgets.BoundedIntText(
            description="Seed", min=0, max=2**31 - 1, layout=width(240),
            style=LABEL,
        )  # fmt: skip
        for control in (self.clients, self.alpha, self.seed):
            self._controls.on(control, self._apply)
        self._note = note("")
        self._plot = Plot(height=520)
        self._tiers = Table("Tiers", height="330px")
        self._clients = Table("Clients", height="260px")
        self.box = widgets.VBox(
            [
                row(self.clients, self.alpha, self.seed),
                self._note,
                row(
                    self._plot.box,
                    widgets.VBox([self._tiers.box, self._clients.box]),
                    widths=("3fr", "2fr"),
                ),
            ]
        )
        self.sync({"fleet", "status"})

    def _apply(self) -> None:
        search = self._desk.search
        made = search.fleet.settings
        drawn = made["method"] == "dirichlet"
        how: dict[str, Any] = {"clients": self.clients.value}
        if drawn:
            alpha = float(made["alpha"])
            how["alpha"] = round(self.alpha.value, 4) if self._differs(alpha) else alpha
        how["seed"] = self.seed.value
        if how == {"clients": len(search.fleet), **{n: made.get(n) for n in how if n in made}}:
            return
        defaults = Fleet.from_partition.__kwdefaults__ or {}
        for name in ("test_fraction", "validation_fraction"):
            if made.get(name) != defaults[name]:
                how[name] = made[name]
        method = "dirichlet" if drawn else "iid"
        shown = ", ".join(f"{name}={value}" for name, value in how.items())
        with self._desk.doing(
            f"search.fleet = wb.Fleet.{method}(search.dataset, {shown}, tiers=search.fleet.tiers)"
        ):
            make = Fleet.dirichlet if drawn else Fleet.iid
            search.fleet = make(search.dataset, tiers=search.fleet.tiers, **how)

    def _differs(self, alpha: float) -> bool:
        """Whether the slider, which has steps, stands elsewhere than at ``alpha``."""
        return bool(abs(math.log10(self.alpha.value / alpha)) > self.alpha.step / 2)

    @locked
    def sync(self, changed: set[str]) -> None:
        """Show how the fleet was made, and whether it can be changed now."""
        search = self._desk.search
        fleet = search.fleet
        method = fleet.settings.get("method")
        if changed & {"status", "fleet"}:
            running = search.session.running
            drawn = method in {"dirichlet", "iid"}
            for control in (self.clients, self.alpha, self.seed):
                self._controls.set(control, disabled=running or not drawn)
            self._controls.set(self.alpha, disabled=running or method != "dirichlet")
            self._note.value = note(
                "A running search keeps its fleet: stop it to draw another one, or take clients "
                "out in the tab Network."
                if running
                else "Takes effect at once; a search that is started uses the fleet shown here."
                if drawn
                else f"This fleet was made by {method}; give search.fleet another one in code."
            ).value
        if "fleet" not in changed:
            return
        self._controls.set(self.clients, max=max(self.clients.max, len(fleet)))
        self._controls.set(self.clients, value=len(fleet))
        if method == "dirichlet" and self._differs(alpha := float(fleet.settings["alpha"])):
            self._controls.set(self.alpha, value=alpha)
        self._controls.set(self.seed, value=int(fleet.settings.get("seed", 0)))

    def draw(self, changed: set[str]) -> None:
        """Show who has what."""
        if "fleet" not in changed:
            return
        search = self._desk.search
        fleet = search.fleet
        figure = fleet_plots.fleet(fleet, search.dataset.class_names)
        figure.update_layout(title=None, margin={"t": 30})
        self._plot.show(figure)
        self._tiers.show(_tier_table(fleet))
        self._clients.show(fleet.table().rename(columns={"rate_mbit_s": "Mbit/s"}))


def _tier_table(fleet: Fleet) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "tier": [tier.name for tier in fleet.tiers],
            "class": [tier.tier_class for tier in fleet.tiers],
            "Mbit/s": [f"{t.low_bps / 1e6:g}–{t.high_bps / 1e6:g}" for t in fleet.tiers],
            "step": [tier.step_bps / 1e6 for tier in fleet.tiers],
            "clients": [int((fleet.tier == n).sum()) for n in range(len(fleet.tiers))],
        }
    )
