"""Candidates: the current network with one block pruned, as indices and costs.

Nothing of a candidate exists but what is kept and what it costs, until somebody builds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from workbench.pruning.blocks import Blocks, remember
from workbench.pruning.cost import Cost, Resource, block_costs
from workbench.pruning.ranking import keep_order
from workbench.pruning.slicing import sliced

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from workbench.pruning.latency import SegmentTimes
    from workbench.pruning.layers import Axis
    from workbench.pruning.structure import Block, IntArray

Status = Literal["ok", "overshoots", "out of reach"]


@dataclass(frozen=True)
class Goal:
    """What the candidates of one iteration have to reach.

    Attributes
    ----------
    resource
        What is to be saved.
    current
        What the network uses of it now.
    target
        What a candidate may use.
    most_saved
        A candidate that saves more than this overshoots.
    """

    resource: Resource
    current: float
    target: float
    most_saved: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """The current network with one block pruned; its tensors are built when asked for.

    Attributes
    ----------
    block
        Name of the pruned block.
    cost
        What the pruned network costs, exactly.
    kept
        For each layer of the block the output channels that stay, ascending int64.
    status
        ``ok``; ``overshoots`` if it saves more than ``NetAdapt.max_overshoot`` times the step;
        ``out of reach`` if even the narrowest version misses the target.
    resource, target
        What the iteration had to reach.
    multiple
        The multiple that the block's width was held to.
    """

    block: str
    cost: Cost
    kept: dict[str, NDArray[np.int64]] = field(repr=False)
    status: Status
    resource: Resource
    target: float
    multiple: int
    _source: nn.Module = field(repr=False)
    _blocks: Blocks = field(repr=False)
    _units: NDArray[np.bool_] = field(repr=False)

    @property
    def usable(self) -> bool:
        """Whether it meets the iteration's budget, so that it makes sense to train it."""
        return self.status != "out of reach"

    @property
    def width(self) -> int:
        """Output channels that the block's first layer keeps."""
        return len(self.kept[self.block])

    def build(self) -> nn.Module:
        """Return the pruned network: really smaller, with the weights of the kept channels.

        Tensors that lose nothing are shared with the network that was pruned; copy the result
        before training it.
        """
        return pruned(self._source, self._blocks, [(self._blocks.block(self.block), self._units)])


def pruned(
    model: nn.Module, blocks: Blocks, chosen: list[tuple[Block, NDArray[np.bool_]]]
) -> nn.Module:
    """Return a network that has only the kept units of some blocks; other tensors are shared."""
    smaller = sliced(model, blocks.trace.layers, blocks.kept(chosen))
    narrow = blocks.narrowed(chosen)
    if narrow.regular:
        remember(smaller, narrow)
    return smaller


def make_candidate(
    model: nn.Module,
    blocks: Blocks,
    block: Block,
    scores: NDArray[np.float64],
    goal: Goal,
    *,
    multiple: int,
    relax_multiples: bool,
    times: SegmentTimes | None = None,
) -> Candidate:
    """Prune one block as little as the goal allows.

    Parameters
    ----------
    model, blocks
        The current network and its blocks.
    block
        The one to be pruned.
    scores
        (units,), the lowest goes first.
    goal
        What is to be reached.
    multiple
        The width of the block's first layer is a multiple of this ...
    relax_multiples
        ... or of half of it, a quarter, and so on, if that is what it takes to reach the target
        without overshooting it.
    times
        Where the latency comes from, if anybody wants it.
    """
    order = keep_order(block, scores)
    widths = block.widths(order)
    costs = block_costs(blocks, block, widths, times)
    amounts = costs.of(goal.resource)
    units, status = _choose(allowed_units(block, widths, multiple), amounts, goal)
    while status != "ok" and multiple > 1 and relax_multiples:
        multiple //= 2
        units, status = _choose(allowed_units(block, widths, multiple), amounts, goal)
    kept_units = np.zeros(block.units, dtype=np.bool_)
    kept_units[order[:units]] = True
    kept = blocks.kept([(block, kept_units)])
    return Candidate(
        block=block.name,
        cost=costs.at(units),
        kept={name: kept[name, "out"] for name in block.layers},
        status=status,
        resource=goal.resource,
        target=goal.target,
        multiple=multiple,
        _source=model,
        _blocks=blocks,
        _units=kept_units,
    )


def allowed_units(
    block: Block, widths: dict[tuple[str, Axis], IntArray], multiple: int
) -> NDArray[np.int64]:
    """Return the numbers of kept units, ascending, that make a narrower block.

    The first layer's width is a multiple, and no tied layer is left without a channel.
    """
    allowed = widths[block.name, "out"] % multiple == 0
    for name in block.layers:
        allowed &= widths[name, "out"] >= 1
    return np.flatnonzero(allowed[:-1]) + 1


def _choose(
    allowed: NDArray[np.int64], amounts: NDArray[np.float64], goal: Goal
) -> tuple[int, Status]:
    """Return the most units that meet the target, and how well they do."""
    if not len(allowed):
        return len(amounts), "out of reach"
    meets = allowed[amounts[allowed - 1] <= goal.target]
    if not len(meets):
        return int(allowed[0]), "out of reach"
    units = int(meets[-1])
    overshoots = goal.current - amounts[units - 1] > goal.most_saved
    return units, "overshoots" if overshoots else "ok"
