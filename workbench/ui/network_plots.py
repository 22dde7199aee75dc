"""Figures of networks: tiers, schedules, transfers, and links over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from workbench.ui import style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from workbench.fleet import Fleet
    from workbench.testbed.base import Schedule
    from workbench.tiers import Tier

_CLASSES = ("low", "medium", "high")


def tier_ranges(tiers: Sequence[Tier]) -> go.Figure:
    """Show the range of link rates of every tier, on a logarithmic scale."""
    shown = style.figure("Which rates a tier has", "link rate (Mbit/s)", "tier")
    for number, kind in enumerate(_CLASSES):
        points = [
            (tier.name, float(rate) / 1e6)
            for tier in tiers
            if tier.tier_class == kind
            for rate in tier.rates_bps
        ]
        shown.add_trace(
            go.Scatter(
                x=[rate for _, rate in points],
                y=[name for name, _ in points],
                mode="markers",
                name=f"class {kind}",
                marker={"color": style.colour(number), "symbol": style.symbol(number), "size": 8},
                hovertemplate="tier %{y}: %{x:g} Mbit/s<extra></extra>",
            )
        )
    shown.update_xaxes(type="log")
    shown.update_yaxes(type="category", categoryarray=[tier.name for tier in tiers])
    return shown


def link_schedule(
    fleet: Fleet, schedule: Schedule, until_s: float, clients: Sequence[int | str]
) -> go.Figure:
    """Show how a schedule changes the links of some clients, from 0 to ``until_s``."""
    rows = [fleet.index(client) for client in clients]
    times, rates = [0.0], []
    while times[-1] < until_s:
        segment = schedule.segment(fleet, times[-1])
        rates.append(segment.down_bps[rows])
        times.append(min(segment.until_s, until_s))
    rates.append(rates[-1])
    shown = style.figure("How links change", "time (s)", "link rate (Mbit/s)")
    for number, row in enumerate(rows):
        shown.add_trace(
            go.Scatter(
                x=times,
                y=[each[number] / 1e6 for each in rates],
                mode="lines",
                line={
                    "shape": "hv",
                    "color": style.colour(number),
                    "dash": style.dash(number),
                },
                name=f"{fleet.names[row]} (tier {fleet.tiers[fleet.tier[row]].name})",
            )
        )
    return shown


def transfers(table: pd.DataFrame) -> go.Figure:
    """Show how long a message takes to each client: one set of bars for each column of seconds.

    ``table`` is indexed by client, slowest first or as one likes it; the longest bar of a set is
    how long everybody waits.
    """
    shown = style.figure("How long a message takes", "client", "seconds")
    for number, column in enumerate(table.columns):
        shown.add_trace(
            go.Bar(
                x=list(table.index),
                y=table[column],
                name=str(column),
                marker=style.bar(number),
                hovertemplate="%{x}: %{y:.2f} s<extra></extra>",
            )
        )
    shown.update_layout(barmode="group")
    return shown


def link_history(
    table: pd.DataFrame,
    clients: Sequence[str],
    direction: str = "down",
    marks: Mapping[str, float] | None = None,
) -> go.Figure:
    """Show requested and measured rate of some links over time, as `LinkRecorder` recorded them.

    ``marks`` are times in s to be named in the figure.
    """
    shown = style.figure("What the links carried", "time (s)", "Mbit/s")
    for number, client in enumerate(clients):
        part = table[table["client"] == client]
        for column, name, dash in (("requested", "asked for", "dash"), ("measured", "", "solid")):
            shown.add_trace(
                go.Scatter(
                    x=part["time_s"],
                    y=part[f"{column}_{direction}_bps"] / 1e6,
                    mode="lines" if column == "requested" else "lines+markers",
                    line={
                        "color": style.colour(number),
                        "dash": dash,
                        "shape": "hv" if column == "requested" else "linear",
                        "width": 1.5,
                    },
                    marker={"symbol": style.symbol(number), "size": 5},
                    name=f"{client} {name or 'measured'}",
                )
            )
    for name, time_s in (marks or {}).items():
        shown.add_vline(x=time_s, line={"color": "#000000", "dash": "dot", "width": 1})
        shown.add_annotation(
            x=time_s, y=1, yref="paper", text=name, showarrow=False, xanchor="left", yanchor="top"
        )
    highest = float(np.nanmax(table[f"requested_{direction}_bps"])) / 1e6 if len(table) else 1.0
    shown.update_yaxes(range=[0, highest * 1.25])
    return shown
