"""One look for all figures: colours that colour-blind people can tell apart, and shapes too.

The palette is that of M. Okabe and K. Ito, 2008; wherever colour tells things apart, the marker's
shape or the line's dash does so as well.
"""

from __future__ import annotations

import plotly.graph_objects as go

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442", "#000000")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def colour(number: int) -> str:
    """Return the colour of the n-th thing."""
    return PALETTE[number % len(PALETTE)]


def symbol(number: int) -> str:
    """Return the marker of the n-th thing."""
    return SYMBOLS[number % len(SYMBOLS)]


def dash(number: int) -> str:
    """Return the line dash of the n-th thing."""
    return DASHES[number % len(DASHES)]


def figure(title: str, x: str, y: str, *, height: int = 420) -> go.Figure:
    """Return an empty figure with a title and named axes."""
    shown = go.Figure()
    shown.update_layout(
        template="plotly_white",
        title={"text": title, "x": 0.01, "xanchor": "left"},
        xaxis_title=x,
        yaxis_title=y,
        height=height,
        autosize=True,
        margin={"l": 70, "r": 30, "t": 70, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )
    return shown
