"""One look for all figures: colours that colour-blind people can tell apart, and shapes too.

The palette is that of M. Okabe and K. Ito, 2008; wherever colour tells things apart, the marker's
shape, the bar's pattern or the line's dash does so as well.
"""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442", "#000000")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
PATTERNS = ("", "/", "x", ".", "+", "\\", "-", "|")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

RATES = tuple(digit * 10.0**power for power in range(-3, 5) for digit in (1, 2, 5))
"""Where an axis of link rates has its marks, in Mbit/s; plotly's own repeat 2 and 5."""

SIDE_BY_SIDE = 3
"""So many panels fit beside each other; more go below."""


def colour(number: int) -> str:
    """Return the colour of the n-th thing."""
    return PALETTE[number % len(PALETTE)]


def symbol(number: int) -> str:
    """Return the marker of the n-th thing."""
    return SYMBOLS[number % len(SYMBOLS)]


def bar(number: int) -> dict[str, object]:
    """Return the marker of the n-th set of bars."""
    return {"color": colour(number), "pattern": {"shape": PATTERNS[number % len(PATTERNS)]}}


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


def panels(
    titles: list[str], height: int, *, gap: float = 0.14
) -> tuple[go.Figure, list[tuple[int, int]]]:
    """Return a figure of several panels of ``height`` pixels, and the row and column of each.

    ``gap`` is the space between two panels, of the whole width.
    """
    rows = -(-len(titles) // SIDE_BY_SIDE)
    columns = -(-len(titles) // rows)
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
