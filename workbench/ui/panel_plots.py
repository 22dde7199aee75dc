"""Figures of the present moment: predicted rounds of groupings, and the links of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from workbench.ui import style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from workbench.grouping.result import Grouping


def durations(groupings: Mapping[str, Grouping], sizes_bytes: Sequence[float]) -> go.Figure:
    """Show how long a round of each group would take, under several groupings by name."""
    shown = style.figure(
        "Predicted round of each group", "group (0 trains the largest candidate)", "seconds"
    )
    for trace in duration_bars(groupings, sizes_bytes):
        shown.add_trace(go.Bar(**trace))
    shown.update_layout(barmode="group")
    shown.update_xaxes(type="category")
    shown.update_yaxes(rangemode="tozero")
    return shown


def duration_bars(
    groupings: Mapping[str, Grouping], sizes_bytes: Sequence[float]
) -> list[dict[str, Any]]:
    """Return the traces of `durations` as plain data."""
    traces = []
    for number, (name, grouping) in enumerate(groupings.items()):
        seconds = grouping.round_duration_s(sizes_bytes)
        traces.append(
            {
                "x": [str(group) for group in range(grouping.groups)],
                "y": np.where(np.isfinite(seconds), seconds, np.nan),
                "name": name,
                "marker": style.bar(number),
                "hovertemplate": f"{name}, group %{{x}}: %{{y:.2f}} s<extra></extra>",
            }
        )
    return traces


def links(table: pd.DataFrame, bottleneck: int | None = None) -> go.Figure:
    """Show requested and measured rate of each link, slowest on the left, and who is waited for.

    ``table`` is that of `Network.links`; the measured columns may be missing.
    """
    shown = style.figure("Links", "clients, slowest link on the left", "Mbit/s")
    order = np.argsort(table["requested_down_bps"].to_numpy(), kind="stable")
    ranked = table.iloc[order]
    names = ranked["client"].to_numpy()
    places = np.arange(1, len(names) + 1)
    wanted = ranked["requested_down_bps"].to_numpy() / 1e6
    there = ranked["present"].to_numpy(dtype=bool)
    dead = ranked["cut"].to_numpy(dtype=bool) | ~there | (wanted <= 0)
    floor = max(float(wanted[~dead].min()) if (~dead).any() else 1.0, 1e-3) / 2
    series = [("requested", "requested_down_bps", 0, "line-ew-open")]
    if "measured_down_bps" in ranked:
        series += [
            ("measured, to the client", "measured_down_bps", 1, "circle"),
            ("measured, from the client", "measured_up_bps", 2, "diamond"),
        ]
    for name, column, number, symbol in series:
        values = ranked[column].to_numpy() / 1e6
        shown.add_trace(
            go.Scatter(
                x=places,
                y=np.where(dead | (values <= 0), np.nan, values),
                mode="markers",
                name=name,
                marker={
                    "color": style.colour(number),
                    "symbol": symbol,
                    "size": 9 if number == 0 else 6,
                    "line": {"width": 2 if number == 0 else 0, "color": style.colour(number)},
                },
                text=names,
                hovertemplate="%{text}: %{y:.2f} Mbit/s " + name + "<extra></extra>",
            )
        )
    shown.add_trace(
        go.Scatter(
            x=places[dead],
            y=[floor] * int(dead.sum()),
            mode="markers",
            name="cut or taken out",
            marker={"color": style.colour(7), "symbol": "x", "size": 9},
            text=names[dead],
            hovertemplate="%{text}: cut or taken out<extra></extra>",
        )
    )
    marked = order == (-1 if bottleneck is None else bottleneck)
    shown.add_trace(
        go.Scatter(
            x=places[marked],
            y=np.maximum(wanted[marked], floor),
            mode="markers",
            name="bottleneck of this round",
            marker={
                "color": style.colour(3), "symbol": "star-open", "size": 18, "line": {"width": 2},
            },
            text=names[marked],
            hovertemplate="%{text} is waited for<extra></extra>",
        )
    )  # fmt: skip
    shown.update_xaxes(showgrid=False, range=[0.5, len(names) + 0.5])
    shown.update_yaxes(type="log", tickvals=style.RATES)
    return shown
