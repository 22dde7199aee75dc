"""All figures in one place, ``wb.plots``: plain plotly figures, returned by functions."""

from workbench.ui.fleet_plots import fleet
from workbench.ui.grouping_plots import emd_trace, groups, label_distribution
from workbench.ui.run_plots import (
    candidates,
    compared,
    comparison,
    frontier,
    round_durations,
    traffic,
)
from workbench.ui.sweep_plots import pareto, sweep

__all__ = [
    "candidates",
    "compared",
    "comparison",
    "emd_trace",
    "fleet",
    "frontier",
    "groups",
    "label_distribution",
    "pareto",
    "round_durations",
    "sweep",
    "traffic",
]
