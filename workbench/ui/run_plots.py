"""Figures of a run: the frontier, its rounds, its candidates, its traffic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.ui import style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.search.compare import Comparison
    from workbench.search.run import Run


def frontier(run: Run) -> go.Figure:
    """Show accuracy, MACs and megabytes of the global model over the iterations."""
    table = run.frontier()
    shown = make_subplots(
        rows=1,
        cols=2,
        subplot_titles=("Accuracy against cost", "Cost by iteration"),
        horizontal_spacing=0.12,
    )
    shown.add_trace(
        go.Scatter(
            x=table["macs"] / 1e6,
            y=table["accuracy"],
            mode="lines+markers+text",
            text=[str(number) for number in table["iteration"]],
            textposition="top center",
            cliponaxis=False,
            name="accuracy (number: iteration)",
            customdata=table[["block", "size_bytes"]],
            hovertemplate="iteration %{text}<br>%{x:.2f} MMACs, %{customdata[1]:,} bytes<br>"
            "accuracy %{y:.3f}<br>pruned: %{customdata[0]}<extra></extra>",
            marker={"color": style.colour(0), "size": 9},
        ),
        row=1,
        col=1,
    )
    for number, (column, name) in enumerate((("macs", "MACs"), ("size_bytes", "bytes")), start=1):
        shown.add_trace(
            go.Scatter(
                x=table["iteration"],
                y=100 * table[column] / table[column].iloc[0] if len(table) else [],
                mode="lines+markers",
                name=f"{name}, % of the start",
                line={"dash": style.dash(number)},
                marker={"color": style.colour(number), "symbol": style.symbol(number), "size": 9},
            ),
            row=1,
            col=2,
        )
    shown.update_xaxes(title_text="million MACs (smaller is cheaper)", row=1, col=1)
    shown.update_yaxes(title_text="accuracy (all test samples)", row=1, col=1)
    shown.update_xaxes(title_text="iteration", dtick=1, row=1, col=2)
    shown.update_yaxes(title_text="% of the initial network", rangemode="tozero", row=1, col=2)
    if len(table) == 1:  # of one point plotly makes an axis that goes below zero
        shown.update_yaxes(range=[0, 1], row=1, col=1)
        shown.update_xaxes(range=[-0.5, 1.5], row=1, col=2)
    _dress(shown, "How the network shrank")
    return shown


def comparison(compared_runs: Comparison) -> go.Figure:
    """Show runs side by side: accuracy over what is left of MACs and of bytes."""
    shown = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        subplot_titles=("over the MACs that are left", "over the bytes that are left"),
    )
    for number, (name, run) in enumerate(compared_runs.runs.items()):
        table = run.frontier()
        for column, measure in enumerate(("macs", "size_bytes"), start=1):
            shown.add_trace(
                go.Scatter(
                    x=100 * table[measure] / table[measure].iloc[0],
                    y=table["accuracy"],
                    mode="lines+markers",
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                    line={"dash": style.dash(number)},
                    marker={
                        "color": style.colour(number),
                        "symbol": style.symbol(number),
                        "size": 9,
                    },
                ),
                row=1,
                col=column,
            )
            shown.update_xaxes(title_text="% of the initial network", row=1, col=column)
    shown.update_yaxes(title_text="accuracy (all test samples)", row=1, col=1)
    _dress(shown, "Accuracy of the compared runs")
    return shown


def round_durations(run: Run | Mapping[str, Run]) -> go.Figure:
    """Show how long each round lasted, of one run or of several by name."""
    runs = run if isinstance(run, Mapping) else {"": run}
    shown = style.figure("How long each round lasted", "round of the whole search", "seconds")
    for number, (name, each) in enumerate(runs.items()):
        table = each.rounds()
        phases = np.where(table["iteration"] == 0, "pre-training", "search")
        for offset, phase in enumerate(("pre-training", "search")):
            part = table[phases == phase]
            shown.add_trace(
                go.Scatter(
                    x=part.index + 1,
                    y=part["duration_s"],
                    mode="lines+markers",
                    name=f"{name} {phase}".strip(),
                    text=[
                        f"iteration {row.iteration}, round {row.round}" for row in part.itertuples()
                    ],
                    hovertemplate="%{text}<br>%{y:.1f} s<extra></extra>",
                    line={"dash": style.dash(number)},
                    marker={
                        "color": style.colour(2 * number + offset),
                        "symbol": style.symbol(2 * number + offset),
                    },
                )
            )
    shown.update_yaxes(rangemode="tozero")
    return shown


def candidates(run: Run, iteration: int) -> go.Figure:
    """Show accuracy and cost of an iteration's candidates, and which one won."""
    table = run.candidates()
    table = table[table["iteration"] == iteration].sort_values("macs")
    shown = style.figure(
        f"Candidates of iteration {iteration}",
        "accuracy on the test samples of its group",
        "block that was pruned",
    )
    won = table["selected"].to_numpy(dtype=bool)
    for number, (mask, name) in enumerate(((~won, "candidate"), (won, "selected"))):
        part = table[mask]
        shown.add_trace(
            go.Bar(
                x=part["accuracy"],
                y=part["block"],
                orientation="h",
                name=name,
                marker=style.bar(number),
                customdata=np.stack([part["macs"] / 1e6, part["size_bytes"] / 1e6], axis=-1),
                hovertemplate="%{y}: accuracy %{x:.3f}<br>%{customdata[0]:.2f} MMACs, "
                "%{customdata[1]:.2f} MB<extra></extra>",
            )
        )
    shown.update_xaxes(range=[0, 1])
    return shown


def traffic(run: Run) -> go.Figure:
    """Show what clients received and sent, summed over the search."""
    table = run.accounting()
    by_iteration = table.groupby("iteration")[["bytes_down", "bytes_up"]].sum().cumsum() / 1e6
    shown = style.figure("Traffic of all clients, summed up", "iteration", "megabytes")
    for number, (column, name) in enumerate((("bytes_down", "received"), ("bytes_up", "sent"))):
        shown.add_trace(
            go.Scatter(
                x=by_iteration.index,
                y=by_iteration[column],
                mode="lines+markers",
                name=name,
                line={"dash": style.dash(number)},
                marker={"color": style.colour(number), "symbol": style.symbol(number), "size": 9},
            )
        )
    shown.update_xaxes(dtick=1)
    shown.update_yaxes(rangemode="tozero")
    return shown


def compared(names: Sequence[str], values: Mapping[str, Sequence[float]], title: str) -> go.Figure:
    """Show several figures of merit side by side: one bar a name, one panel a measure."""
    shown = make_subplots(rows=1, cols=len(values), subplot_titles=list(values))
    for column, series in enumerate(values.values(), start=1):
        for number, (name, value) in enumerate(zip(names, series, strict=True)):
            shown.add_trace(
                go.Bar(
                    x=[name],
                    y=[value],
                    name=name,
                    marker=style.bar(number),
                    text=[f"{value:,.4g}"],
                    textposition="outside",
                    cliponaxis=False,
                    showlegend=False,
                ),
                row=1,
                col=column,
            )
        shown.update_yaxes(range=[0, 1.15 * max(series, default=1)], row=1, col=column)
    _dress(shown, title)
    shown.update_layout(barmode="overlay")
    return shown


def _dress(shown: go.Figure, title: str) -> None:
    shown.update_layout(
        template="plotly_white",
        title={"text": title, "x": 0.01, "xanchor": "left"},
        height=430,
        autosize=True,
        margin={"l": 70, "r": 30, "t": 100, "b": 60},
        legend={"orientation": "h", "y": -0.22, "x": 0},
    )
