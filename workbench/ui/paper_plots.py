"""Figures of the reproductions: our numbers beside the papers', and curves of several methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from workbench.ui import style

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def beside_published(table: pd.DataFrame, title: str) -> go.Figure:
    """Show numbers of one unit, those of the paper and ours: two bars each.

    Parameters
    ----------
    table
        Columns ``what``, ``unit``, ``published``, ``reproduced`` and ``spread``; a number that is
        missing has no bar.
    title
        Title of the figure.
    """
    units = ", ".join(dict.fromkeys(table["unit"]))
    shown = style.figure(title, "", units)
    for number, (column, name) in enumerate((("published", "paper"), ("reproduced", "here"))):
        values = table[column].astype(float)
        shown.add_trace(
            go.Bar(
                x=table["what"],
                y=values,
                name=name,
                error_y={"array": table["spread"].astype(float), "visible": column == "reproduced"},
                marker=style.bar(number),
                text=[f"{value:.4g}" if value == value else "" for value in values],  # noqa: PLR0124 - NaN
                textposition="outside",
                cliponaxis=False,
            )
        )
    shown.update_layout(barmode="group")
    return shown


def curves(
    tables: Mapping[str, pd.DataFrame], x: str, y: str, title: str, names: tuple[str, str]
) -> go.Figure:
    """Show one line a table: its column ``y`` over its column ``x``; ``names`` are the axes'."""
    shown = style.figure(title, *names)
    for number, (name, table) in enumerate(tables.items()):
        shown.add_trace(
            go.Scatter(
                x=table[x],
                y=table[y],
                mode="lines+markers",
                name=name,
                line={"dash": style.dash(number)},
                marker={"color": style.colour(number), "symbol": style.symbol(number), "size": 9},
            )
        )
    return shown
