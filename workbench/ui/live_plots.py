"""Figures of live runs: what was predicted beside what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from workbench.search import calibration as truth
from workbench.ui import style

if TYPE_CHECKING:
    from workbench.search.run import Run

_TOLERANCE = 0.15


def calibration(run: Run, *, goodput: float = truth.TCP_GOODPUT) -> go.Figure:
    """Show the predicted duration of each round and message of a live run against the measured.

    What lies on the line was predicted exactly; the band is 15% around it. Messages of fast links
    lie above it where the SuperLink or the cores, not the links, set their pace.
    """
    messages = truth.message_table(run, goodput=goodput)
    rounds = truth.round_table(run, goodput=goodput)
    shown = style.figure(
        "Predicted against measured", "predicted by the simulation (s)", "measured (s)"
    )
    largest = max(messages["predicted_s"].max(), messages["measured_s"].max(), 1e-3)
    least = max(min(messages["predicted_s"].min(), messages["measured_s"].min()), 1e-3)
    line = np.geomspace(least / 1.3, largest * 1.3, 50)
    shown.add_trace(
        go.Scatter(
            x=np.concatenate([line, line[::-1]]),
            y=np.concatenate([line * (1 + _TOLERANCE), line[::-1] * (1 - _TOLERANCE)]),
            fill="toself",
            mode="lines",
            line={"width": 0},
            fillcolor="rgba(0, 0, 0, 0.08)",
            name=f"within {_TOLERANCE:.0%}",
            hoverinfo="skip",
        )
    )
    shown.add_trace(
        go.Scatter(
            x=line,
            y=line,
            mode="lines",
            line={"color": style.colour(7), "dash": "dash", "width": 1},
            name="as predicted",
            hoverinfo="skip",
        )
    )
    names = [run.fleet.names[row] for row in messages["client"]]
    shown.add_trace(
        go.Scatter(
            x=messages["predicted_s"],
            y=messages["measured_s"],
            mode="markers",
            marker={"color": style.colour(0), "symbol": style.symbol(0), "size": 5, "opacity": 0.6},
            name="one client's message",
            text=names,
            customdata=messages[["iteration", "round", "compute_s"]],
            hovertemplate="%{text}, iteration %{customdata[0]}, round %{customdata[1]}<br>"
            "predicted %{x:.2f} s, measured %{y:.2f} s, of which computing "
            "%{customdata[2]:.2f} s<extra></extra>",
        )
    )
    shown.add_trace(
        go.Scatter(
            x=rounds["predicted_s"],
            y=rounds["measured_s"],
            mode="markers",
            marker={"color": style.colour(1), "symbol": style.symbol(2), "size": 11},
            name="a round",
            text=rounds["slowest"],
            customdata=rounds[["iteration", "round", "over_predicted", "limits"]],
            hovertemplate="iteration %{customdata[0]}, round %{customdata[1]}<br>"
            "predicted %{x:.2f} s, measured %{y:.2f} s (%{customdata[2]:+.1%})<br>"
            "waits for %{text}<br>%{customdata[3]}<extra></extra>",
        )
    )
    shown.update_xaxes(type="log")
    shown.update_yaxes(type="log")
    return shown
