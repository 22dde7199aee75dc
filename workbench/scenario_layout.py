"""Where the nodes of a scenario stand: the server in the middle, clients in rings by tier.

The fastest tier is the innermost ring. Every ring has a gap at the top with the tier's name and
rates in it, so that a picture with 210 nodes can still be read.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.tiers import Tier

_FIRST_RADIUS = 130.0
_RING_GAP = 58.0
_PITCH = 82.0
"""From one node of a ring to the next; a node is drawn 48 pixels wide."""
_LABEL_WIDTH = 170.0
_MARGIN = 70.0
_GOLDEN = (math.sqrt(5) - 1) / 2
_GREY = "#9a9a9a"
_DARK = "#303030"


class Layout:
    """Positions in pixels, and what core-gui draws behind the nodes.

    Attributes
    ----------
    size
        Width and height of the canvas.
    clients
        (N, 2) x and y of each client.
    server, switch
        x and y.
    """

    def __init__(self, tier: NDArray[np.int64], tiers: Sequence[Tier]) -> None:
        present = [index for index in range(len(tiers)) if (tier == index).any()]
        present.sort(key=lambda index: -tiers[index].high_bps)
        radii = _radii([int((tier == index).sum()) for index in present])
        centre = math.ceil(radii[-1] + _MARGIN)
        self.size = (2 * centre, 2 * centre)
        self.server = (float(centre), float(centre))
        self.switch = (float(centre), float(centre + 64))
        self.clients: NDArray[np.float64] = np.zeros((len(tier), 2))
        self._shapes: list[dict[str, Any]] = []
        for ring, (index, radius) in enumerate(zip(present, radii, strict=True)):
            rows = np.flatnonzero(tier == index)
            angles = _angles(len(rows), ring, radius)
            self.clients[rows, 0] = np.round(centre + radius * np.sin(angles), 1)
            self.clients[rows, 1] = np.round(centre - radius * np.cos(angles), 1)
            box = [centre - radius, centre - radius, centre + radius, centre + radius]
            self._shapes.append(_shape("oval", box, "", border=_GREY))
            above = [float(centre), centre - radius - 9]
            self._shapes.append(_shape("text", above, _tier_label(tiers[index])))

    def metadata(self) -> dict[str, str]:
        """Return what core-gui reads: size of the canvas, rings and their names."""
        canvas = {
            "id": 1,
            "wallpaper": None,
            "wallpaper_style": 1,
            "fit_image": False,
            "dimensions": self.size,
        }
        return {
            "canvas": json.dumps({"gridlines": False, "canvases": [canvas]}),
            "shapes": json.dumps(self._shapes),
        }


def _radii(counts: Sequence[int]) -> list[float]:
    """Return the radius of each ring: room for its nodes and its label, and for the one within."""
    radii: list[float] = []
    for count in counts:
        wanted = (count * _PITCH + _LABEL_WIDTH) / (2 * math.pi)
        within = radii[-1] + _RING_GAP if radii else _FIRST_RADIUS
        radii.append(round(max(wanted, within), 1))
    return radii


def _angles(count: int, ring: int, radius: float) -> NDArray[np.float64]:
    """Return clockwise angles from the top, evenly spread beside the gap for the label.

    Rings are turned against each other by the golden ratio: neighbours never line up.
    """
    gap = _LABEL_WIDTH / radius
    places = (np.arange(count) + (ring * _GOLDEN) % 1) / count
    return np.asarray(gap / 2 + places * (2 * math.pi - gap), dtype=np.float64)


def _tier_label(tier: Tier) -> str:
    low, high = tier.low_bps / 1e6, tier.high_bps / 1e6
    rates = f"{low:g}" if low == high else f"{low:g}–{high:g}"
    return f"tier {tier.name}: {rates} Mbit/s"


def _shape(kind: str, corners: list[float], label: str, border: str = "") -> dict[str, Any]:
    """Describe an annotation in the form in which core-gui saves its own."""
    return {
        "canvas": 1,
        "type": kind,
        "iconcoords": [round(value, 1) for value in corners],
        "label": label,
        "fontfamily": "Arial",
        "fontsize": 10,
        "labelcolor": _DARK,
        "color": "",
        "border": border,
        "width": 1 if border else 0,
        "bold": False,
        "italic": False,
        "underline": False,
    }
