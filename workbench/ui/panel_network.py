"""The control room's tab on the network: tiers, schedule, and every link, live while it is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np
import pandas as pd

from workbench.ui import panel_plots
from workbench.ui.panel_figure import Plot
from workbench.ui.panel_parts import LABEL, Controls, Table, locked, note, row, width
from workbench.ui.panel_schedule import ScheduleControls, TierControls

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.testbed.base import Network
    from workbench.ui.panel_desk import Desk

_NOTHING_UP = (
    "No network is up: it comes up when the search starts. The rates below are those of the fleet. "
    "Without a search: <code>panel.watch(search.testbed.up(search.fleet))</code>."
)


class NetworkTab:
    """Tier table, schedule, and the links: rates, cuts, clients that leave and come back."""

    title = "Network"

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._controls = Controls()
        self.schedule = ScheduleControls(desk)
        self.tiers = TierControls(desk)
        self.client = widgets.Dropdown(description="Client", layout=width(260), style=LABEL)
        self.rate = widgets.BoundedFloatText(
            description="Rate (Mbit/s)",
            min=0.001,
            max=100_000,
            value=5,
            layout=width(260),
            style=LABEL,
        )
        self.set_rate = _button("Set rate", "Hold this client's link at the rate, both ways")
        self.cut = _button("Cut", "Nothing passes until the link is healed")
        self.heal = _button("Heal", "The link is what it would be without the cut")
        self.remove = _button("Remove client", "It takes part in nothing until it is added again")
        self.add = _button("Add client", "Put back a client that was removed")
        self.present = widgets.BoundedIntText(
            description="Taking part", min=1, max=1, layout=width(200),
            style=LABEL,
        )  # fmt: skip
        self._bind()
        self._note = note(_NOTHING_UP)
        self._plot = Plot(height=360)
        self._links = Table("Links", height="360px")
        self.box = widgets.VBox(
            [
                self.schedule.box,
                row(self.client, self.rate, self.set_rate, self.cut, self.heal),
                row(self.present, self.add, self.remove),
                self._note,
                row(self._plot.box, self._links.box, widths=("3fr", "2fr")),
                self.tiers.box,
            ]
        )
        self.sync({"fleet", "network", "testbed", "status"})

    def _bind(self) -> None:
        chosen = self.client

        def on(button: widgets.Button, code: str, act: Callable[[Network], None]) -> None:
            def clicked(_: widgets.Button) -> None:
                line = code.format(client=chosen.value, rate=self.rate.value * 1e6)
                with self._desk.doing(line):
                    act(self._up())

            button.on_click(clicked)

        on(
            self.set_rate,
            "search.network.set_rate({client!r}, {rate:g})",
            lambda net: net.set_rate(chosen.value, self.rate.value * 1e6),
        )
        on(self.cut, "search.network.cut({client!r})", lambda net: net.cut(chosen.value))
        on(self.heal, "search.network.heal({client!r})", lambda net: net.heal(chosen.value))
        on(self.remove, "search.network.remove({client!r})", lambda net: net.remove(chosen.value))
        on(self.add, "search.network.add({client!r})", lambda net: net.add(chosen.value))
        self._controls.on(self.present, self._keep)

    def _up(self) -> Network:
        network = self._desk.network
        if network is None:
            raise RuntimeError("no network is up; start the search first")
        return network

    def _keep(self) -> None:
        wanted = self.present.value
        with self._desk.doing(f"search.network.keep({wanted})"):
            self._up().keep(wanted)

    # ------------------------------------------------------------------ what is shown

    @locked
    def sync(self, changed: set[str]) -> None:
        """Show what can be done to the network now."""
        self.schedule.sync(changed)
        self.tiers.sync(changed)
        network = self._desk.network
        fleet = self._desk.search.fleet if network is None else network.fleet
        if changed & {"fleet", "network", "status"}:
            if self.client.options != fleet.names:
                self.client.options = fleet.names
                self.client.value = fleet.names[0]
            self._controls.set(self.present, max=len(fleet))
            for control in (
                self.set_rate, self.cut, self.heal, self.remove, self.add, self.present,
            ):  # fmt: skip
                self._controls.set(control, disabled=network is None)
            self._note.value = note(
                _NOTHING_UP
                if network is None
                else f"A {type(network).__name__} is up. What is done to a link takes effect at "
                "once, in the middle of a round too, and is written into the run's events."
            ).value
        if changed & {"fleet", "network", "links"}:
            there = int(self._desk.fleet_now()[1].sum())
            self._controls.set(self.present, value=max(1, there))

    def draw(self, changed: set[str]) -> None:
        """Show the links as they are now, and which of them the round waits for."""
        if not changed & {"fleet", "network", "links", "event"}:
            return
        table = links_table(self._desk)
        waited_for = self._desk.bottleneck()
        self._plot.show(panel_plots.links(table, waited_for))
        self._links.show(_readable(table, waited_for), _caption(table, waited_for))


def links_table(desk: Desk) -> pd.DataFrame:
    """Return the links of the network that is up, or what the fleet has before it is."""
    if desk.network is not None:
        return desk.network.links()
    fleet = desk.search.fleet
    return pd.DataFrame(
        {
            "client": list(fleet.names),
            "tier": [fleet.tiers[index].name for index in fleet.tier],
            "requested_down_bps": fleet.rate_bps,
            "requested_up_bps": fleet.rate_bps,
            "cut": np.zeros(len(fleet), dtype=bool),
            "present": np.ones(len(fleet), dtype=bool),
        }
    )


def _readable(table: pd.DataFrame, bottleneck: int | None) -> pd.DataFrame:
    """Return the links in Mbit/s: first those about which there is something to say."""
    shown = pd.DataFrame({"client": table["client"], "tier": table["tier"]})
    names = [
        "bottleneck" if row == bottleneck else "cut" if cut else "" if present else "removed"
        for row, (cut, present) in enumerate(zip(table["cut"], table["present"], strict=True))
    ]
    shown["state"] = names
    down, up = table["requested_down_bps"] / 1e6, table["requested_up_bps"] / 1e6
    shown["wanted"] = [
        f"{one:.4g}" if one == other else f"↓ {one:.4g} ↑ {other:.4g}"
        for one, other in zip(down, up, strict=True)
    ]
    for direction, arrow in (("down", "↓"), ("up", "↑")):
        if f"measured_{direction}_bps" in table:
            shown[f"measured {arrow}"] = table[f"measured_{direction}_bps"] / 1e6
    first = np.array([not name for name in names])
    return shown.iloc[np.lexsort((table["requested_down_bps"].to_numpy(), first))]


def _caption(table: pd.DataFrame, bottleneck: int | None) -> str:
    if bottleneck is None:
        return "Links (Mbit/s; ↓ to the client, ↑ from it)"
    return f"Links (Mbit/s); this round waits for {table['client'].iloc[bottleneck]}"


def _button(text: str, tooltip: str) -> widgets.Button:
    return widgets.Button(
        description=text, tooltip=tooltip, layout=widgets.Layout(width="auto", min_width="90px")
    )
