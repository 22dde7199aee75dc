"""A workbench for network-aware federated neural architecture search."""

from typing import TYPE_CHECKING

from workbench import forking, models  # noqa: F401  # forking comes before everything
from workbench.data.dataset import Dataset
from workbench.data.datasets import load_dataset
from workbench.doctor import doctor
from workbench.federation.dispatch import RoundLimits
from workbench.federation.strategies import FedAvg, FedProx, LearningRateSchedule
from workbench.fleet import Fleet
from workbench.grouping.annealed import AnnealedGrouping
from workbench.grouping.balanced import BalancedGrouping
from workbench.grouping.baselines import NetworkAwareGrouping, RandomGrouping
from workbench.grouping.netdag import NetDAG
from workbench.grouping.result import Grouping
from workbench.grouping.sweep import sweep
from workbench.pruning.blocks import find_blocks
from workbench.pruning.codec import decode, encode
from workbench.pruning.cost import Cost, cost_of
from workbench.pruning.export import export_model
from workbench.pruning.latency import LatencyTable
from workbench.pruning.multipliers import WidthMultiplier
from workbench.pruning.netadapt import NetAdapt
from workbench.pruning.ranking import register_ranking
from workbench.search import presets
from workbench.search.compare import Comparison, compare
from workbench.search.policies import (
    CELEBA_ROUNDS,
    IMAGENET_ROUNDS,
    Availability,
    DynamicRounds,
    EarlyDropping,
    SearchPolicy,
)
from workbench.search.run import Run
from workbench.search.search import Search
from workbench.testbed.core import CoreTestbed
from workbench.testbed.docker import DockerTestbed
from workbench.testbed.joined import SuperLinkTestbed
from workbench.testbed.namespaces import NamespaceTestbed
from workbench.testbed.replay import LinkTrace, TraceSchedule
from workbench.testbed.schedules import ConstantSchedule, TierSchedule
from workbench.testbed.simulated import SimulatedTestbed
from workbench.testbed.traces import load_trace, shipped_traces
from workbench.tiers import PAPER_TIERS, Tier, load_tiers
from workbench.ui import plots

if TYPE_CHECKING:
    from workbench.ui.panel import Panel

__all__ = [
    "CELEBA_ROUNDS",
    "IMAGENET_ROUNDS",
    "PAPER_TIERS",
    "AnnealedGrouping",
    "Availability",
    "BalancedGrouping",
    "Comparison",
    "ConstantSchedule",
    "CoreTestbed",
    "Cost",
    "Dataset",
    "DockerTestbed",
    "DynamicRounds",
    "EarlyDropping",
    "FedAvg",
    "FedProx",
    "Fleet",
    "Grouping",
    "LatencyTable",
    "LearningRateSchedule",
    "LinkTrace",
    "NamespaceTestbed",
    "NetAdapt",
    "NetDAG",
    "NetworkAwareGrouping",
    "Panel",
    "RandomGrouping",
    "RoundLimits",
    "Run",
    "Search",
    "SearchPolicy",
    "SimulatedTestbed",
    "SuperLinkTestbed",
    "Tier",
    "TierSchedule",
    "TraceSchedule",
    "WidthMultiplier",
    "compare",
    "cost_of",
    "decode",
    "doctor",
    "encode",
    "export_model",
    "find_blocks",
    "load_dataset",
    "load_tiers",
    "load_trace",
    "models",
    "plots",
    "presets",
    "register_ranking",
    "shipped_traces",
    "sweep",
]


def __getattr__(name: str) -> object:
    """Load the control room when it is asked for: clients and commands need no widgets."""
    if name == "Panel":
        from workbench.ui.panel import Panel  # noqa: PLC0415  # see above

        return Panel
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
