"""Figures of what-if tables: what COEFF changes, and what is gained for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import plotly.graph_objects as go

from workbench.ui import style

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def sweep(table: pd.DataFrame) -> go.Figure:
    """Show what `workbench.sweep` found: mean EMD and predicted round against COEFF."""
    shown, _ = style.panels(["Mean EMD (0: groups are alike)", "Predicted round"], 430)
    for number, (limit, part) in enumerate(table.groupby("max_slowdown", sort=False)):
        ordered = part.sort_values("coeff")
        for column, measure in enumerate(("emd", "duration_s"), start=1):
            shown.add_trace(
                go.Scatter(
                    x=ordered["coeff"],
                    y=ordered[measure],
                    mode="lines+markers",
                    name=_limit_name(cast("float", limit)),
                    legendgroup=str(number),
                    showlegend=column == 1,
                    customdata=ordered[["swaps"]],
                    hovertemplate="COEFF %{x}: %{y:.4g}, %{customdata[0]} swaps<extra></extra>",
                    line={"color": style.colour(number), "dash": style.dash(number)},
                    marker={"symbol": style.symbol(number), "size": _size(number)},
                ),
                row=1,
                col=column,
            )
    shown.update_xaxes(title_text="COEFF")
    shown.update_yaxes(rangemode="tozero")
    shown.update_yaxes(title_text="mean EMD", row=1, col=1)
    shown.update_yaxes(title_text="seconds", row=1, col=2)
    return shown.update_layout(title_text="What COEFF changes")


def pareto(tables: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Show mean EMD against predicted round, one trace a strategy.

    Each table has the columns ``emd`` and ``duration_s``, and possibly others, which are shown
    when the mouse is over a point. The dotted line joins the points that no other point beats in
    both measures.
    """
    shown = style.figure(
        "Alike groups or short rounds: further left and further down is better",
        "mean EMD (0: groups are alike)",
        "predicted round in seconds",
        height=520,
    )
    for trace in pareto_points(tables):
        shown.add_trace(go.Scatter(**trace))
    return shown.update_layout(
        legend={"orientation": "v", "x": 1.01, "xanchor": "left", "y": 1, "yanchor": "top"}
    )


def pareto_points(tables: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Return the traces of `pareto` as plain data: the line of the best, then one a strategy."""
    points = [
        (emd, duration)
        for table in tables.values()
        for emd, duration in table[["emd", "duration_s"]].to_numpy(dtype=np.float64).tolist()
        if np.isfinite(duration)
    ]
    best = _frontier(points)
    highest = max((duration for _, duration in points), default=0)
    widest = max((emd for emd, _ in points), default=0)
    traces: list[dict[str, Any]] = [
        {
            "x": [*(emd for emd, _ in best[:1]), *(emd for emd, _ in best), widest],
            "y": [highest, *(duration for _, duration in best), *(d for _, d in best[-1:])],
            "mode": "lines",
            "name": "not beaten in both",
            "line": {"color": "grey", "dash": "dot", "width": 1.5, "shape": "hv"},
            "hoverinfo": "skip",
        }
    ]
    for number, (name, table) in enumerate(tables.items()):
        texts = [
            ", ".join(
                f"{column} {value:.4g}" if isinstance(value, float) else f"{column} {value}"
                for column, value in row.items()
            )
            for row in table.to_dict("records")
        ]
        marker = {
            "color": style.colour(number),
            "symbol": style.symbol(number),
            "size": _size(number),
            "line": {"width": 0.5, "color": "white"},
        }
        traces.append(
            {
                "x": table["emd"],
                "y": table["duration_s"],
                "mode": "markers",
                "name": name,
                "text": texts,
                "hovertemplate": f"{name}<br>%{{text}}<extra></extra>",
                "marker": marker,
            }
        )
    return traces


def _size(number: int) -> float:
    """Return the size of the n-th thing's markers; those that come later lie on top."""
    return max(8.0, 14.0 - 1.5 * number)


def _limit_name(max_slowdown: float) -> str:
    return f"max_slowdown {max_slowdown:g}" if np.isfinite(max_slowdown) else "no limit"


def _frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that none beats in both, by ascending first value."""
    best: list[tuple[float, float]] = []
    for point in sorted(points):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    return best
