"""The figure of one visit of NetDAG to a group: every exchange that it looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from workbench.ui import style

if TYPE_CHECKING:
    import pandas as pd


def visit(table: pd.DataFrame, emd: float, mean_emd: float, coeff: float) -> go.Figure:
    """Show what each exchange would do to the EMD of the group and to the mean over all groups.

    Parameters
    ----------
    table
        One row an exchange: ``leaves`` and ``joins``, the clients; ``same_tier``; ``emd``, the
        group's distance after it; ``mean_emd``, the mean of all groups after it; ``proposal``,
        whether the group's distance falls far enough.
    emd, mean_emd
        The present distance of the group, and the present mean.
    coeff
        COEFF, how far the distance has to fall if the tiers differ.
    """
    shown = style.figure(
        "All exchanges of one visit: the lowest filled point is carried out",
        "EMD of the group after the exchange",
        "mean EMD of all groups after it",
        height=460,
    )
    kinds = (
        ("same tier", table["same_tier"], "circle"),
        ("different tiers", ~table["same_tier"], "diamond"),
    )
    for number, (name, of_kind, symbol) in enumerate(kinds):
        for proposal, word, filled in ((True, "proposal", ""), (False, "no proposal", "-open")):
            part = table[of_kind & (table["proposal"] == proposal)]
            shown.add_trace(
                go.Scatter(
                    x=part["emd"],
                    y=part["mean_emd"],
                    mode="markers",
                    name=f"{name}, {word}",
                    marker={"color": style.colour(number), "symbol": symbol + filled, "size": 9},
                    customdata=part[["leaves", "joins"]],
                    hovertemplate="client %{customdata[0]} leaves, client %{customdata[1]} joins"
                    "<br>EMD of the group %{x:.4f}, mean %{y:.4f}<extra></extra>",
                )
            )
    lines = ((emd, "solid", "present EMD"), (coeff * emd, "dash", "times COEFF"))
    for place, dash, text in lines[: 1 if coeff == 1 else 2]:
        shown.add_vline(
            place,
            line={"dash": dash, "color": "grey", "width": 1},
            annotation={"text": text, "font": {"color": "grey"}, "yanchor": "bottom"},
            annotation_position="bottom left" if dash == "dash" else "bottom right",
        )
    shown.add_hline(
        mean_emd,
        line={"dash": "dot", "color": "grey", "width": 1},
        annotation={"text": "present mean", "font": {"color": "grey"}},
        annotation_position="top right",
    )
    return shown.update_layout(
        legend={"orientation": "v", "x": 1.01, "xanchor": "left", "y": 1, "yanchor": "top"}
    )
