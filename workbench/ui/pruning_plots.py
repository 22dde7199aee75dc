"""Figures of pruning: candidates, kept filters, the schedule, and two methods side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from workbench.ui import style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from workbench.pruning.candidates import Candidate
    from workbench.pruning.cost import Cost
    from workbench.pruning.netadapt import NetAdapt


def candidate_costs(candidates: Sequence[Candidate], initial: Cost) -> go.Figure:
    """Show what is left of MACs and bytes for each candidate, in percent of one network."""
    shown = style.figure(
        "What each candidate costs", "% of the network before pruning", "pruned block"
    )
    for number, (resource, name) in enumerate((("macs", "MACs"), ("size_bytes", "bytes"))):
        shown.add_trace(
            go.Bar(
                x=[
                    100 * getattr(each.cost, resource) / getattr(initial, resource)
                    for each in candidates
                ],
                y=[each.block for each in candidates],
                name=name,
                orientation="h",
                marker=style.bar(number),
                text=[each.status for each in candidates],
                hovertemplate="%{y}: %{x:.1f}% of the " + name + " (%{text})<extra></extra>",
                textposition="none",
            )
        )
    targets = {each.target / initial.of(each.resource) for each in candidates}
    for target in targets:
        shown.add_vline(x=100 * target, line={"dash": "dash", "color": style.PALETTE[-1]})
    shown.update_yaxes(autorange="reversed")
    shown.update_layout(height=120 + 50 * len(candidates))
    return shown


def filter_norms(norms: ArrayLike, kept: ArrayLike, block: str) -> go.Figure:
    """Show the norm of every filter of a block, the largest first, and which of them stay.

    Parameters
    ----------
    norms
        (filters,) L2 norm of each.
    kept
        Indices of those that stay.
    block
        Name of the block, for the title.
    """
    values = np.asarray(norms, dtype=np.float64)
    stays = np.zeros(len(values), dtype=np.bool_)
    stays[np.asarray(kept, dtype=np.int64)] = True
    order = np.argsort(-values, kind="stable")
    shown = style.figure(f"Filters of {block}", "filters, the largest norm first", "L2 norm")
    for number, (name, mask) in enumerate((("stays", stays), ("is removed", ~stays))):
        places = np.flatnonzero(mask[order])
        shown.add_trace(
            go.Scatter(
                x=places,
                y=values[order][places],
                mode="markers",
                name=f"{name} ({len(places)})",
                customdata=order[places],
                hovertemplate="filter %{customdata}, norm %{y:.3f}<extra></extra>",
                marker={"color": style.colour(number), "symbol": style.symbol(number), "size": 8},
            )
        )
    shown.update_yaxes(rangemode="tozero")
    return shown


def schedule(netadapt: NetAdapt, initial: Cost) -> go.Figure:
    """Show the target of each iteration, if every one before it was met exactly."""
    resource = netadapt.resource
    targets = schedule_targets(netadapt, initial)
    shown = style.figure(
        f"The budget of each iteration ({resource})", "iteration", "% of the initial network"
    )
    shown.add_trace(
        go.Scatter(
            x=list(range(len(targets))),
            y=[100 * target / initial.of(resource) for target in targets],
            mode="lines+markers",
            name="target",
            marker={"color": style.colour(0)},
            hovertemplate="iteration %{x}: %{y:.1f}%<extra></extra>",
        )
    )
    shown.add_hline(
        y=100 * netadapt.budgets[resource],
        line={"dash": "dash", "color": style.colour(1)},
        annotation_text="budget",
    )
    shown.update_yaxes(rangemode="tozero")
    return shown


def schedule_targets(netadapt: NetAdapt, initial: Cost) -> list[float]:
    """Return the initial amount and the target of each iteration, each met exactly."""
    resource = netadapt.resource
    budget = netadapt.budgets[resource] * initial.of(resource)
    amounts = [initial.of(resource)]
    for iteration in range(1, netadapt.iterations + 1):
        step = netadapt.step * initial.of(resource) * netadapt.decay ** (iteration - 1)
        amounts.append(max(amounts[-1] - step, budget))
    return amounts


def trade_off(curves: Mapping[str, pd.DataFrame], title: str) -> go.Figure:
    """Show accuracy against MACs for several methods.

    Parameters
    ----------
    curves
        For each method a table with the columns ``macs`` and ``accuracy``.
    title
        Title of the figure.
    """
    shown = style.figure(title, "million MACs (smaller is cheaper)", "accuracy")
    for number, (name, table) in enumerate(curves.items()):
        shown.add_trace(
            go.Scatter(
                x=table["macs"] / 1e6,
                y=table["accuracy"],
                mode="lines+markers",
                name=name,
                line={"dash": style.dash(number), "color": style.colour(number)},
                marker={"symbol": style.symbol(number), "size": 9},
                hovertemplate=name + ": %{x:.2f} MMACs, accuracy %{y:.3f}<extra></extra>",
            )
        )
    return shown


def widths(by_method: Mapping[str, Mapping[str, int]], initial: Mapping[str, int]) -> go.Figure:
    """Show what share of its filters each block keeps, for several methods (DecNAS, figure 5)."""
    shown = style.figure("What is left of each block", "block", "% of its filters")
    for number, (name, kept) in enumerate(by_method.items()):
        shown.add_trace(
            go.Bar(
                x=list(initial),
                y=[100 * kept.get(block, width) / width for block, width in initial.items()],
                name=name,
                marker=style.bar(number),
                hovertemplate="%{x}: %{y:.0f}%<extra>" + name + "</extra>",
            )
        )
    shown.update_layout(barmode="group")
    return shown
