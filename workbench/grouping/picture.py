"""The picture of the NAFNAS paper as a small SVG: how many clients of each tier a group has.

It stands in the HTML of a `Grouping`, where no plotting library is at hand. `wb.plots.groups` is
the same as a figure to work with.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from workbench.grouping.divergence import AWAY

if TYPE_CHECKING:
    from workbench.grouping.result import Grouping

CELL = 22
"""Width and height of a cell in pixels."""

COLOURS = {"low": "#D55E00", "medium": "#E69F00", "high": "#0072B2", "": "#0072B2"}
"""Of the classes of tiers; from the palette of M. Okabe and K. Ito."""


def svg(grouping: Grouping) -> str:
    """Return a picture with a column a group and a row a tier, the slowest tier at the bottom.

    The area of a circle is the number of clients, which its tooltip tells.
    """
    tiers = np.unique(grouping.tier)[::-1]
    here = grouping.assignment != AWAY
    clients = np.array(
        [
            np.bincount(
                grouping.assignment[here & (grouping.tier == tier)], minlength=grouping.groups
            )
            for tier in tiers
        ]
    )
    names = [_name(grouping, int(tier)) for tier in tiers]
    left = 8 + 7 * max(len(name) for name, _ in names)
    width, height = left + CELL * grouping.groups, CELL * (len(tiers) + 1)
    largest = max(1, int(clients.max(initial=0)))
    shapes = []
    for row, (name, kind) in enumerate(names):
        y = CELL * (row + 0.5)
        shapes.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        for group in np.flatnonzero(clients[row]).tolist():
            radius = CELL / 2 * np.sqrt(clients[row, group] / largest)
            shapes.append(
                f'<circle cx="{left + CELL * (group + 0.5)}" cy="{y}" r="{radius:.1f}" '
                f'fill="{COLOURS[kind]}"><title>group {group}, tier {escape(name)}: '
                f"{clients[row, group]} clients</title></circle>"
            )
    for group in range(grouping.groups):
        x = left + CELL * (group + 0.5)
        shapes.append(f'<text x="{x}" y="{height - 6}" text-anchor="middle">{group}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" '
        'font-family="sans-serif" font-size="12" fill="currentColor">'
        "<title>Clients of each tier (rows) in each group (columns)</title>"
        f"{''.join(shapes)}</svg>"
    )


def _name(grouping: Grouping, tier: int) -> tuple[str, str]:
    """Return the name of a tier and its class, as far as they are known."""
    if grouping.tiers is None:
        return str(tier), ""
    return grouping.tiers[tier].name, grouping.tiers[tier].tier_class
