"""All figures in one place, ``wb.plots``: plain plotly figures, returned by functions."""

from workbench.ui.fleet_plots import fleet
from workbench.ui.grouping_plots import emd_trace, groups, label_distribution
from workbench.ui.live_plots import calibration
from workbench.ui.network_plots import link_history, link_schedule, tier_ranges, transfers
from workbench.ui.panel_plots import durations, links
from workbench.ui.paper_plots import beside_published, curves
from workbench.ui.pruning_plots import candidate_costs, filter_norms, schedule, trade_off, widths
from workbench.ui.run_plots import (
    candidates,
    compared,
    comparison,
    frontier,
    round_durations,
    traffic,
)
from workbench.ui.sweep_plots import pareto, sweep
from workbench.ui.visit_plots import visit

__all__ = [
    "beside_published",
    "calibration",
    "candidate_costs",
    "candidates",
    "compared",
    "comparison",
    "curves",
    "durations",
    "emd_trace",
    "filter_norms",
    "fleet",
    "frontier",
    "groups",
    "label_distribution",
    "link_history",
    "link_schedule",
    "links",
    "pareto",
    "round_durations",
    "schedule",
    "sweep",
    "tier_ranges",
    "trade_off",
    "traffic",
    "transfers",
    "visit",
    "widths",
]
