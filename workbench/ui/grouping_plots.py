"""Figures of groupings: who is in which group, how alike the groups are, what it costs in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from workbench.grouping.divergence import AWAY
from workbench.grouping.result import Grouping
from workbench.ui import style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

TIER_ROW = 30
"""Height of a tier's row in pixels, and the diameter of the largest bubble with some air."""

_SHAPES = (("circle", 1.0), ("square", 0.886), ("diamond", 0.88))
"""A shape for each class of tiers beside its colour, and its size for about the circle's area."""

DIGIT = 5.5
"""Width of a digit in pixels: a bubble shows its number if it has room for it."""

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
    shown, places = style.panels(list(given), TIER_ROW * len(tiers) + 150, gap=0.04)
    for each, bubbles, (row, column) in zip(given.values(), bubbles_of(given), places, strict=True):
        for trace in bubbles:
            # The colours say again what the tiers' names say.
            shown.add_trace(go.Scatter(**trace, showlegend=False), row=row, col=column)
        shown.update_xaxes(
            # Beside each other, long titles would run into each other.
            title_text="group" if len(given) > 1 else "group (0 trains the largest candidate)",
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
        title_text="Clients of each tier in each group (0 trains the largest candidate)"
        if len(given) > 1
        else "Clients of each tier in each group"
    )


def bubbles_of(given: Mapping[str, Grouping]) -> list[list[dict[str, Any]]]:
    """Return the traces of `groups` as plain data, one list a grouping.

    A figure that is shown already can take them as they are: that is quicker than a new one.
    """
    tiers = np.unique(np.concatenate([each.tier for each in given.values()]))
    tables = [_clients(each, tiers) for each in given.values()]
    largest = max(1, *(int(table.max()) for table in tables))
    panels = []
    for each, table in zip(given.values(), tables, strict=True):
        labels = [_tier_label(each, tier) for tier in tiers]
        traces = []
        for number, (kind, rows) in enumerate(_classes(each, tiers).items()):
            tier_of, group_of = np.nonzero(table[rows])
            clients = table[rows][tier_of, group_of]
            symbol, scale = _SHAPES[number % len(_SHAPES)]
            diameter = TIER_ROW * 0.92 * scale * np.sqrt(clients / largest)
            trace = {
                "x": [str(group) for group in group_of],
                "y": [labels[rows[n]] for n in tier_of],
                "mode": "markers+text",
                "cliponaxis": False,
                "name": kind,
                "legendgroup": kind,
                "marker": {
                    "symbol": symbol,
                    "size": diameter,
                    "color": style.colour(number),
                    "opacity": 1,
                    "line": {"width": 0},
                },
                "text": [
                    # A blank, not nothing: plotly gives no text back to a point that had none.
                    str(n) if size >= 8 + DIGIT * len(str(n)) else " "
                    for n, size in zip(clients, diameter / scale, strict=True)
                ],
                "textfont": {"color": "white", "size": 10},
                "customdata": clients,
                "hovertemplate": "group %{x}, tier %{y}: %{customdata} clients<extra></extra>",
            }
            traces.append(trace)
        panels.append(traces)
    return panels


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
    shares = [_shares(each.counts().sum(axis=0)) for each in given.values()]
    labels = [
        f"{name} ({100 * share:.0f}%)" if np.array_equal(shares[0], shares[-1]) else name
        for name, share in zip(names, shares[0], strict=True)
    ]
    shown, places = style.panels(list(given), max(24 * classes, 150) + 190, gap=0.04)
    for (each, table), (row, column) in zip(
        zip(given.values(), tables, strict=True), places, strict=True
    ):
        shown.add_trace(
            go.Heatmap(
                x=[f"{g}<br>{distance:.2f}" for g, distance in enumerate(each.emd())],
                y=labels,
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
        shown.update_yaxes(
            type="category",
            autorange="reversed",
            showticklabels=column == 1,
            automargin=True,
            row=row,
            col=column,
        )
    shown.update_yaxes(title_text="class (share of all)", row=1, col=1)
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
    *of_groups, of_swaps = emd_lines(grouping)
    iterations = len(of_groups[0]["x"])
    metric = grouping.settings.get("metric", "l1")
    shown, _ = style.panels(["EMD of each group", "Mean EMD"], 430)
    for trace in of_groups:
        shown.add_trace(go.Scatter(**trace), row=1, col=1)
    shown.add_trace(go.Scatter(**of_swaps), row=1, col=2)
    shown.update_xaxes(
        title_text="iteration (0: the start)", dtick=max(1, iterations // 10), row=1, col=1
    )
    shown.update_xaxes(title_text="swaps so far", row=1, col=2)
    shown.update_yaxes(rangemode="tozero")
    shown.update_yaxes(title_text=f"EMD ({metric})", row=1, col=1)
    return shown.update_layout(title_text="How the groups became alike")


def emd_lines(grouping: Grouping) -> list[dict[str, Any]]:
    """Return the traces of `emd_trace` as plain data: one a group, then that of the swaps."""
    trace = grouping.emd_trace
    if trace is None:
        raise ValueError(f"a grouping by {grouping.strategy} has no iterations to show")
    lines: list[dict[str, Any]] = [
        {
            "x": np.arange(len(trace)),
            "y": trace[:, group],
            "mode": "lines+markers",
            "name": f"group {group}",
            "line": {"color": style.colour(group), "dash": style.dash(group)},
            "marker": {"symbol": style.symbol(group), "size": 8},
            "hovertemplate": f"group {group}, iteration %{{x}}: %{{y:.4f}}<extra></extra>",
        }
        for group in range(grouping.groups)
    ]
    changes = [
        f"client {swap.client} to group {swap.neighbour}"
        + (f", client {swap.partner} to group {swap.group}" if swap.partner >= 0 else "")
        for swap in grouping.swaps
    ]
    of_swaps = {
        "x": np.arange(len(changes) + 1),
        "y": [float(trace[0].mean()), *(swap.mean_emd for swap in grouping.swaps)],
        "mode": "lines+markers",
        "text": ["start", *changes],
        "hovertemplate": "%{text}<br>mean EMD %{y:.4f}<extra></extra>",
        "line": {"color": style.colour(7), "width": 1},
        "marker": {"size": 5},
        "showlegend": False,
    }
    return [*lines, of_swaps]


def _named(grouping: Grouping | Mapping[str, Grouping]) -> Mapping[str, Grouping]:
    if isinstance(grouping, Grouping):
        return {grouping.strategy: grouping}
    if not grouping:
        raise ValueError("there is no grouping to show")
    return grouping


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
    return {kind: np.flatnonzero(kinds == kind) for kind in ("low", "medium", "high")}


def _tier_label(grouping: Grouping, number: int) -> str:
    if grouping.tiers is None:
        return f"tier {number}"
    tier = grouping.tiers[number]
    rates = f"{tier.low_bps / 1e6:g}\N{EN DASH}{tier.high_bps / 1e6:g}"
    return f"{tier.name} {tier.tier_class} ({rates})"


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return counts (..., C) over their sum, zero where there is none."""
    samples = counts.sum(axis=-1, keepdims=True)
    return np.asarray(counts / np.maximum(samples, 1))


def _excess(grouping: Grouping) -> NDArray[np.float64]:
    """Return each group's share of each class less everyone's, (C, G) in percentage points."""
    counts = grouping.counts()
    return np.asarray(100 * (_shares(counts) - _shares(counts.sum(axis=0))).T)
