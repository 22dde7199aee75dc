"""Figures of a session of the CORE emulator: where its nodes stand, and how long rounds lasted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from workbench.ui import style

if TYPE_CHECKING:
    import pandas as pd

    from workbench.scenario import Scenario

_CLASSES = ("low", "medium", "high")


def session(scenario: Scenario) -> go.Figure:
    """Show a session as core-gui does: server and switch in the middle, clients at their places."""
    shown = style.figure(f"Session {scenario.source or 'of the fleet'}", "", "", height=560)
    places = {node.number: (node.x, node.y) for node in scenario.topology.nodes}
    wires: tuple[list[float | None], list[float | None]] = ([], [])
    for link in scenario.topology.links:
        for axis in (0, 1):
            ends = (places[link.one.node][axis], places[link.other.node][axis])
            wires[axis].extend([*ends, None])
    shown.add_trace(
        go.Scatter(
            x=wires[0],
            y=wires[1],
            mode="lines",
            line={"color": "#bbbbbb", "width": 1},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for number, kind in enumerate(_CLASSES):
        rows = [
            row
            for row in range(len(scenario))
            if scenario.tiers[scenario.tier[row]].tier_class == kind
        ]
        shown.add_trace(
            go.Scatter(
                x=[places[scenario.clients[row]][0] for row in rows],
                y=[places[scenario.clients[row]][1] for row in rows],
                mode="markers+text" if len(scenario) <= 30 else "markers",
                name=f"{kind} tier",
                marker={"color": style.colour(number), "symbol": style.symbol(number), "size": 14},
                text=[scenario.names[row] for row in rows],
                textposition="bottom center",
                customdata=[
                    [scenario.tiers[scenario.tier[row]].name, scenario.rate_bps[row] / 1e6]
                    for row in rows
                ],
                hovertemplate="%{text}, tier %{customdata[0]}: %{customdata[1]:g} Mbit/s"
                "<extra></extra>",
            )
        )
    others = [node for node in scenario.topology.nodes if node.number not in scenario.clients]
    shown.add_trace(
        go.Scatter(
            x=[node.x for node in others],
            y=[node.y for node in others],
            mode="markers+text",
            name="server and switch",
            marker={"color": "#000000", "symbol": "star", "size": 16},
            text=[node.name for node in others],
            textposition="top center",
            hovertemplate="%{text}<extra></extra>",
        )
    )
    shown.update_xaxes(visible=False)
    shown.update_yaxes(visible=False, autorange="reversed", scaleanchor="x")
    return shown


def rounds_beside(rounds: pd.DataFrame) -> go.Figure:
    """Show how long each round lasted on each testbed, and what the simulation had said.

    Parameters
    ----------
    rounds
        Columns testbed, round (counted over the whole run), measured_s, predicted_s.
    """
    shown = style.figure("The same rounds on different testbeds", "round", "duration, s")
    for number, (name, part) in enumerate(rounds.groupby("testbed", sort=False)):
        shown.add_trace(
            go.Scatter(
                x=part["round"],
                y=part["measured_s"],
                mode="lines+markers",
                name=str(name),
                line={"color": style.colour(number), "dash": style.dash(number)},
                marker={"symbol": style.symbol(number), "size": 9},
                hovertemplate=f"{name}, round %{{x}}: %{{y:.2f}} s<extra></extra>",
            )
        )
        shown.add_trace(
            go.Scatter(
                x=part["round"],
                y=part["predicted_s"],
                mode="markers",
                name=f"{name}, predicted",
                marker={"color": style.colour(number), "symbol": "line-ew-open", "size": 18},
                hovertemplate=f"{name}, predicted: %{{y:.2f}} s<extra></extra>",
            )
        )
    shown.update_xaxes(dtick=1)
    shown.update_yaxes(rangemode="tozero")
    return shown
