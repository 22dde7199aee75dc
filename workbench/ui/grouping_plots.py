"""Figures of groupings: who is in which group, how alike the groups are, what it costs in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.grouping.divergence import AWAY
from workbench.grouping.result import Grouping
from workbench.ui import style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

SIDE_BY_SIDE = 3
"""So many panels fit beside each other; more go below."""

TIER_ROW = 30
"""Height of a tier's row in pixels, and the diameter of the largest bubble with some air."""

READABLE = 14
"""From this diameter in pixels on a bubble has room for its number."""

CELLS_WITH_TEXT = 240
"""Up to so many cells a heat map has room for its numbers."""


def groups(grouping: Grouping | Mapping[str, Grouping]) -> go.Figure:
    """Show how many clients of each tier each group has: the picture of the NAFNAS paper.

    Each column is a group, each row a tier with the slowest at the bottom; the area of a bubble is
    the number of clients. A mapping of names to groupings gives one panel each, on one scale.

    Raises
    ------
    ValueError
        If the mapping is empty.
    """
    given = _named(grouping)
    tiers = np.unique(np.concatenate([each.tier for each in given.values()]))
    tables = {name: _clients(each, tiers) for name, each in given.items()}
    largest = max(1, *(int(table.max()) for table in tables.values()))
    shown, places = _panels(list(given), TIER_ROW * len(tiers) + 150, gap=0.04)
    for (name, each), (row, column) in zip(given.items(), places, strict=True):
        for number, (kind, rows) in enumerate(_classes(each, tiers).items()):
            tier_of, group_of = np.nonzero(tables[name][rows])
            clients = tables[name][rows][tier_of, group_of]
            diameter = TIER_ROW * 0.92 * np.sqrt(clients / largest)
            shown.add_trace(
                go.Scatter(
                    x=[str(group) for group in group_of],
                    y=[_tier_label(each, tiers[rows[n]]) for n in tier_of],
                    mode="markers+text",
                    name=kind,
                    legendgroup=kind,
                    showlegend=(row, column) == (1, 1),
                    marker={
                        "size": diameter,
                        "color": style.colour(number),
                        "opacity": 1,
                        "line": {"width": 0},
                    },
                    text=[
                        str(n) if size >= READABLE else ""
                        for n, size in zip(clients, diameter, strict=True)
                    ],
                    textfont={"color": "white", "size": 10},
                    customdata=clients,
                    hovertemplate="group %{x}, tier %{y}: %{customdata} clients<extra></extra>",
                ),
                row=row,
                col=column,
            )
        shown.update_xaxes(
            title_text="group (0 trains the largest candidate)",
            type="category",
            categoryorder="array",
            categoryarray=[str(group) for group in range(each.groups)],
            range=[-0.6, each.groups - 0.4],
            row=row,
            col=column,
        )
        shown.update_yaxes(
            type="category",
            categoryorder="array",
            categoryarray=[_tier_label(each, tier) for tier in tiers],
            range=[-0.7, len(tiers) - 0.3],
            showticklabels=column == 1,
            row=row,
            col=column,
        )
    for row in range(1, places[-1][0] + 1):
        shown.update_yaxes(title_text="tier (its Mbit/s)", row=row, col=1)
    return shown.update_layout(
        title_text="Clients of each tier in each group", legend_itemsizing="constant"
    )


def label_distribution(
    grouping: Grouping,
    before: Grouping | None = None,
    class_names: Sequence[str] | None = None,
) -> go.Figure:
    """Show by how much each class is over- or underrepresented in each group.

    A cell is the class's share of the group's samples less its share of all clients' samples, in
    percentage points. With ``before`` the other grouping stands beside it, on the same scale.

    Raises
    ------
    ValueError
        If the number of ``class_names`` is not that of the classes.
    """
    classes = grouping.label_counts.shape[1]
    names = list(class_names or (str(number) for number in range(classes)))
    if len(names) != classes:
        raise ValueError(f"class_names has {len(names)} names, but there are {classes} classes")
    given = {f"Groups of {grouping.strategy}": grouping}
    if before is not None:
        given = {f"Before: {before.strategy}": before, f"After: {grouping.strategy}": grouping}
    tables = [_excess(each) for each in given.values()]
    limit = max(1.0, *(float(np.abs(table).max()) for table in tables))
    shown, places = _panels(list(given), 24 * classes + 190)
    for (each, table), (row, column) in zip(
        zip(given.values(), tables, strict=True), places, strict=True
    ):
        shares = _shares(each.counts().sum(axis=0))
        shown.add_trace(
            go.Heatmap(
                x=[f"{g}<br>{distance:.2f}" for g, distance in enumerate(each.emd())],
                y=[
                    f"{name} ({100 * share:.0f}%)"
                    for name, share in zip(names, shares, strict=True)
                ],
                z=table,
                coloraxis="coloraxis",
                # Adding zero turns -0.0 into 0.0.
                text=[[f"{value:+.1f}" for value in line] for line in np.round(table, 1) + 0.0],
                texttemplate="%{text}" if table.size <= CELLS_WITH_TEXT else None,
                hovertemplate="group and EMD %{x}<br>class %{y}: %{z:+.1f} points<extra></extra>",
            ),
            row=row,
            col=column,
        )
        shown.update_xaxes(
            title_text="group, and below it its EMD (l1)", type="category", row=row, col=column
        )
        shown.update_yaxes(type="category", autorange="reversed", row=row, col=column)
    shown.update_yaxes(title_text="class (its share of all samples)", row=1, col=1)
    return shown.update_layout(
        title_text="What each group has too much or too little of",
        coloraxis={
            "colorscale": "PuOr",
            "cmin": -limit,
            "cmax": limit,
            "colorbar": {"title": "points", "ticksuffix": " "},
        },
    )


def emd_trace(grouping: Grouping) -> go.Figure:
    """Show the EMD of each group by iteration, and the mean EMD with each swap.

    Raises
    ------
    ValueError
        If the strategy kept no trace, because it has no iterations.
    """
    trace = grouping.emd_trace
    if trace is None:
        raise ValueError(f"a grouping by {grouping.strategy} has no iterations to show")
    metric = grouping.settings.get("metric", "l1")
    shown, _ = _panels(["EMD of each group by iteration", "Mean EMD with each swap"], 430)
    for group in range(grouping.groups):
        shown.add_trace(
            go.Scatter(
                x=np.arange(len(trace)),
                y=trace[:, group],
                mode="lines+markers",
                name=f"group {group}",
                line={"color": style.colour(group), "dash": style.dash(group)},
                marker={"symbol": style.symbol(group), "size": 8},
                hovertemplate=f"group {group}, iteration %{{x}}: %{{y:.4f}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    changes = [
        f"client {swap.client} to group {swap.neighbour}"
        + (f", client {swap.partner} to group {swap.group}" if swap.partner >= 0 else "")
        for swap in grouping.swaps
    ]
    shown.add_trace(
        go.Scatter(
            x=np.arange(len(changes) + 1),
            y=[float(trace[0].mean()), *(swap.mean_emd for swap in grouping.swaps)],
            mode="lines+markers",
            text=["start", *changes],
            hovertemplate="%{text}<br>mean EMD %{y:.4f}<extra></extra>",
            line={"color": style.colour(7), "width": 1},
            marker={"size": 5},
            showlegend=False,
        ),
        row=1,
        col=2,
    )
    shown.update_xaxes(
        title_text="iteration (0: the start)", dtick=max(1, len(trace) // 10), row=1, col=1
    )
    shown.update_xaxes(title_text="swaps so far", row=1, col=2)
    shown.update_yaxes(rangemode="tozero")
    shown.update_yaxes(title_text=f"EMD ({metric})", row=1, col=1)
    return shown.update_layout(title_text="How the groups became alike")


def sweep(table: pd.DataFrame) -> go.Figure:
    """Show what `workbench.sweep` found: mean EMD and predicted round against COEFF."""
    shown, _ = _panels(["Mean EMD (0: groups are alike)", "Predicted round"], 430)
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
    points = [
        (emd, duration)
        for table in tables.values()
        for emd, duration in table[["emd", "duration_s"]].to_numpy(dtype=np.float64).tolist()
        if np.isfinite(duration)
    ]
    best = _frontier(points)
    highest = max((duration for _, duration in points), default=0)
    widest = max((emd for emd, _ in points), default=0)
    shown.add_trace(
        go.Scatter(
            x=[*(emd for emd, _ in best[:1]), *(emd for emd, _ in best), widest],
            y=[highest, *(duration for _, duration in best), *(d for _, d in best[-1:])],
            mode="lines",
            name="not beaten in both",
            line={"color": "grey", "dash": "dot", "width": 1.5, "shape": "hv"},
            hoverinfo="skip",
        )
    )
    for number, (name, table) in enumerate(tables.items()):
        shown.add_trace(
            go.Scatter(
                x=table["emd"],
                y=table["duration_s"],
                mode="markers",
                name=name,
                text=[
                    ", ".join(
                        f"{column} {value:.4g}" if isinstance(value, float) else f"{column} {value}"
                        for column, value in row.items()
                    )
                    for row in table.to_dict("records")
                ],
                hovertemplate=f"{name}<br>%{{text}}<extra></extra>",
                marker={
                    "color": style.colour(number),
                    "symbol": style.symbol(number),
                    "size": _size(number),
                    "line": {"width": 0.5, "color": "white"},
                },
            )
        )
    return shown.update_layout(
        legend={"orientation": "v", "x": 1.01, "xanchor": "left", "y": 1, "yanchor": "top"}
    )


def _named(grouping: Grouping | Mapping[str, Grouping]) -> Mapping[str, Grouping]:
    if isinstance(grouping, Grouping):
        return {grouping.strategy: grouping}
    if not grouping:
        raise ValueError("there is no grouping to show")
    return grouping


def _panels(
    titles: list[str], height: int, *, gap: float = 0.14
) -> tuple[go.Figure, list[tuple[int, int]]]:
    """Return a figure of several panels of ``height`` pixels, and the row and column of each.

    ``gap`` is the space between two panels, of the whole width.
    """
    columns = min(len(titles), SIDE_BY_SIDE)
    rows = -(-len(titles) // columns)
    whole = rows * height
    shown = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=titles,
        horizontal_spacing=gap,
        vertical_spacing=min(120 / whole, 0.9 / rows),
    )
    shown.update_layout(
        template="plotly_white",
        title={"x": 0.01, "xanchor": "left"},
        height=whole,
        autosize=True,
        margin={"l": 70, "r": 30, "t": 90, "b": 60},
    )
    return shown, [(n // columns + 1, n % columns + 1) for n in range(len(titles))]


def _clients(grouping: Grouping, tiers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the clients of each tier in each group, (tiers, G) int64."""
    here = grouping.assignment != AWAY
    table = np.zeros((len(tiers), grouping.groups), dtype=np.int64)
    row = np.searchsorted(tiers, grouping.tier[here])
    np.add.at(table, (row, grouping.assignment[here]), 1)
    return table


def _classes(grouping: Grouping, tiers: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return the rows of ``tiers`` in each class of tiers."""
    if grouping.tiers is None:
        return {"clients": np.arange(len(tiers))}
    kinds = np.array([grouping.tiers[tier].tier_class for tier in tiers])
    return {f"{kind} tiers": np.flatnonzero(kinds == kind) for kind in ("low", "medium", "high")}


def _tier_label(grouping: Grouping, number: int) -> str:
    if grouping.tiers is None:
        return f"tier {number}"
    tier = grouping.tiers[number]
    return f"{tier.name} ({tier.low_bps / 1e6:g}\N{EN DASH}{tier.high_bps / 1e6:g})"


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return counts (..., C) over their sum, zero where there is none."""
    samples = counts.sum(axis=-1, keepdims=True)
    return np.asarray(counts / np.maximum(samples, 1))


def _excess(grouping: Grouping) -> NDArray[np.float64]:
    """Return each group's share of each class less everyone's, (C, G) in percentage points."""
    counts = grouping.counts()
    return np.asarray(100 * (_shares(counts) - _shares(counts.sum(axis=0))).T)


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
