"""Figures of a fleet: who has which classes, and how fast each link is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.ui import style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.fleet import Fleet


def fleet(fleet: Fleet, class_names: Sequence[str] | None = None) -> go.Figure:
    """Show each client's samples by class, and the rate of its link; slowest link on the left."""
    order = np.argsort(fleet.rate_bps, kind="stable")
    names = np.array(fleet.names)[order]
    places = np.arange(1, len(order) + 1)
    classes = list(class_names or (str(n) for n in range(fleet.label_counts.shape[1])))
    shown = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=[0.62, 0.38],
        vertical_spacing=0.06,
        subplot_titles=("Samples by class", "Link rate"),
    )
    shown.add_trace(
        go.Heatmap(
            x=places,
            y=classes,
            z=fleet.label_counts[order].T,
            colorscale="Blues",
            colorbar={"title": "samples", "len": 0.55, "y": 0.72},
            customdata=np.broadcast_to(names, (len(classes), len(names))),
            hovertemplate="%{customdata}, class %{y}: %{z} samples<extra></extra>",
        ),
        row=1,
        col=1,
    )
    tier = fleet.tier[order]
    for number, kind in enumerate(("low", "medium", "high")):
        rows = [n for n in range(len(order)) if fleet.tiers[tier[n]].tier_class == kind]
        shown.add_trace(
            go.Scatter(
                x=places[rows],
                y=fleet.rate_bps[order][rows] / 1e6,
                mode="markers",
                name=f"{kind} tier",
                marker={"color": style.colour(number), "symbol": style.symbol(number), "size": 8},
                text=[f"{names[n]}, tier {fleet.tiers[tier[n]].name}" for n in rows],
                hovertemplate="%{text}: %{y:g} Mbit/s<extra></extra>",
            ),
            row=2,
            col=1,
        )
    shown.update_xaxes(showgrid=False, range=[0.5, len(order) + 0.5])
    shown.update_xaxes(title_text=f"{len(fleet)} clients, slowest link on the left", row=2, col=1)
    shown.update_yaxes(title_text="class", type="category", row=1, col=1)
    shown.update_yaxes(title_text="Mbit/s", type="log", tickvals=style.RATES, row=2, col=1)
    shown.update_layout(
        template="plotly_white",
        title={"text": "What each client has", "x": 0.01, "xanchor": "left"},
        height=560,
        autosize=True,
        margin={"l": 70, "r": 30, "t": 90, "b": 60},
        legend={"orientation": "h", "y": -0.12, "x": 0},
    )
    return shown
