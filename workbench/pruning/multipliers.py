"""Uniform width multipliers, the baseline beside NetAdapt (DecNAS, figure 4).

Every block keeps the same share of its width, whatever that block costs and whatever it is worth
("simple but effective", Howard et al., 2017).
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.pruning.blocks import Blocks, find_blocks
from workbench.pruning.candidates import allowed_units, pruned
from workbench.pruning.cost import Cost, Resource, total_cost
from workbench.pruning.ranking import keep_order, unit_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from workbench.pruning.structure import Block


@plain_dataclass(frozen=True, eq=False)
class ThinNetwork:
    """A network whose blocks all keep the same share of their width.

    Attributes
    ----------
    multiplier
        That share.
    cost
        What the thin network costs, exactly.
    widths
        Output channels of each block's first layer.
    """

    multiplier: float
    cost: Cost
    widths: dict[str, int]
    _source: nn.Module = field(repr=False)
    _blocks: Blocks = field(repr=False)
    _chosen: list[tuple[Block, NDArray[np.bool_]]] = field(repr=False)

    def build(self) -> nn.Module:
        """Return the thin network with the weights of the kept channels."""
        return pruned(self._source, self._blocks, self._chosen)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class WidthMultiplier:
    """Scale all blocks of a network by one factor.

    Attributes
    ----------
    resource
        What a budget is meant in.
    ranking
        Which filters stay; see `workbench.pruning.ranking`.
    multiple
        Widths are multiples of this, where a block has several of them.
    seed
        For the random ranking.
    """

    resource: Resource = "macs"
    ranking: str = "l2"
    multiple: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)

    def scale(self, model: nn.Module, input_shape: Sequence[int], multiplier: float) -> ThinNetwork:
        """Keep that share of every block, rounded, and at least one unit.

        Raises
        ------
        ValueError
            If the multiplier is outside of (0, 1].
        """
        if not 0 < multiplier <= 1:
            raise ValueError(f"multiplier is {multiplier}, but must lie in (0, 1]")
        blocks = find_blocks(model, input_shape)
        return self._scaled(model, blocks, self._orders(model, blocks), multiplier)

    def meet(self, model: nn.Module, input_shape: Sequence[int], budget: float) -> ThinNetwork:
        """Return the widest network that needs at most that share of the resource.

        Raises
        ------
        ValueError
            If the budget is outside of (0, 1], or no multiplier meets it.
        """
        if not 0 < budget <= 1:
            raise ValueError(f"budget is {budget}, but must lie in (0, 1]")
        blocks = find_blocks(model, input_shape)
        orders = self._orders(model, blocks)
        needed = budget * total_cost(blocks).of(self.resource)
        low, high = 0.0, 1.0
        best = self._scaled(model, blocks, orders, high)
        if best.cost.of(self.resource) <= needed:
            return best
        best = self._scaled(model, blocks, orders, 1e-9)
        if best.cost.of(self.resource) > needed:
            raise ValueError(
                f"budget of {self.resource} is {budget:g} ({needed:,.0f}), but the thinnest "
                f"version of this network still needs {best.cost.of(self.resource):,.0f}"
            )
        # Widths only grow with the multiplier, so halving the interval finds the last that fits.
        for _ in range(24):
            middle = (low + high) / 2
            thin = self._scaled(model, blocks, orders, middle)
            if thin.cost.of(self.resource) <= needed:
                low, best = middle, thin
            else:
                high = middle
        return best

    def _orders(self, model: nn.Module, blocks: Blocks) -> list[NDArray[np.int64]]:
        orders = []
        for number, block in enumerate(blocks.prunable):
            generator = np.random.default_rng([self.seed, number])
            scores = unit_scores(model, blocks.trace.layers, block, self.ranking, generator)
            orders.append(keep_order(block, scores))
        return orders

    def _scaled(
        self,
        model: nn.Module,
        blocks: Blocks,
        orders: list[NDArray[np.int64]],
        multiplier: float,
    ) -> ThinNetwork:
        chosen = []
        for block, order in zip(blocks.prunable, orders, strict=True):
            allowed = allowed_units(block, block.widths(order), self.multiple)
            allowed = np.append(allowed, block.units)
            nearest = int(np.argmin(np.abs(allowed - multiplier * block.units)))
            units = np.zeros(block.units, dtype=np.bool_)
            units[order[: int(allowed[nearest])]] = True
            chosen.append((block, units))
        narrow = blocks.narrowed(chosen)
        names = {block.name for block, _ in chosen}
        widths = {block.name: block.width for block in narrow.all if block.name in names}
        return ThinNetwork(multiplier, total_cost(narrow), widths, model, blocks, chosen)
