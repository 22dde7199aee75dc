"""NetAdapt: shrink a network step by step, one block at a time (Yang et al., ECCV 2018).

Every iteration lowers the budget by a step. For each block there is one candidate: the network
with just that block made narrow enough to meet the iteration's budget, the filters with the
smallest norm removed first. The candidates are trained, and the best one is the next network.
Schedule and choice are those of the NAFNAS experiments; several budgets at once are DecNAS's
formulation (section 3.1) with n > 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from workbench.pruning.blocks import Blocks, find_blocks, remember
from workbench.pruning.cost import (
    Cost,
    Resource,
    block_costs,
    total_cost,
)
from workbench.pruning.ranking import keep_order, ranking_names, unit_scores
from workbench.pruning.slicing import sliced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from workbench.pruning.layers import Axis
    from workbench.pruning.structure import Block, IntArray

Status = Literal["ok", "overshoots", "out of reach"]


@plain_dataclass(frozen=True, eq=False)
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
    kept: dict[str, NDArray[np.int64]]
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
        chosen = [(self._blocks.block(self.block), self._units)]
        built = sliced(self._source, self._blocks.trace.layers, self._blocks.kept(chosen))
        remember(built, self._blocks.narrowed(chosen))
        return built


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NetAdapt:
    """The schedule, and how candidates are made and chosen.

    Attributes
    ----------
    resource
        What is saved.
    step
        First reduction, as a share of the initial network's resource.
    decay
        Factor by which the reduction shrinks with each iteration.
    budget
        Share of the initial resource at which the search ends; or several at once, such as
        ``{"macs": 0.5, "size_bytes": 0.6}``: then each iteration works on the resource that is
        furthest above its budget.
    iterations
        Most iterations.
    conv_multiple, linear_multiple
        Widths are multiples of these, where the layer allows it: a multiple is halved as long as
        no width reaches the target, or the smallest cut overshoots it.
    relax_multiples
        False holds to the multiples whatever they overshoot.
    max_overshoot
        A candidate that saves more than this many times the step is reported to overshoot.
    ranking
        ``l2``, ``l1``, ``random``, or the name of one's own (`register_ranking`).
    selection
        ``loss_per_resource``: the least accuracy lost per resource saved; ``accuracy``: the most
        accurate.
    seed
        For the random ranking.
    """

    resource: Resource = "macs"
    step: float = Field(default=0.025, gt=0, lt=1)
    decay: float = Field(default=0.96, gt=0, le=1)
    budget: float | dict[Resource, float] = 0.5
    iterations: int = Field(default=15, ge=1)
    conv_multiple: int = Field(default=8, ge=1)
    linear_multiple: int = Field(default=64, ge=1)
    relax_multiples: bool = True
    max_overshoot: float = Field(default=2.0, ge=1, allow_inf_nan=False)
    ranking: str = "l2"
    selection: Literal["loss_per_resource", "accuracy"] = "loss_per_resource"
    seed: int = Field(default=0, ge=0)

    @field_validator("ranking")
    @classmethod
    def _check_ranking(cls, value: str) -> str:
        if value not in ranking_names():
            raise ValueError(f"ranking is {value!r}, but must be one of {ranking_names()}")
        return value

    @model_validator(mode="after")
    def _check_budget(self) -> NetAdapt:
        for resource, share in self.budgets.items():
            if not (math.isfinite(share) and 0 < share < 1):
                raise ValueError(f"budget of {resource} is {share}, but must lie between 0 and 1")
        if self.resource not in self.budgets:
            raise ValueError(
                f"resource is {self.resource!r}, but budget names only {list(self.budgets)}"
            )
        return self

    @property
    def budgets(self) -> dict[Resource, float]:
        """The budget of each resource, as a share of the initial network's."""
        if isinstance(self.budget, dict):
            return dict(self.budget)
        return {self.resource: self.budget}

    # ------------------------------------------------------------------ the schedule

    def leading(self, current: Cost, initial: Cost) -> Resource:
        """Return the resource that is furthest above its budget, in shares of the initial one."""
        budgets = self.budgets
        return max(
            budgets,
            key=lambda name: (
                current.of(name) / initial.of(name) - budgets[name],
                name == self.resource,
            ),
        )

    def target(self, iteration: int, current: Cost, initial: Cost) -> float:
        """Return what an iteration's candidates may use of the leading resource.

        ``current - step * initial * decay ** (iteration - 1)``, but not less than the budget.

        Parameters
        ----------
        iteration
            1 for the first.
        current, initial
            Costs of the network that is pruned now and of the first one.

        Raises
        ------
        ValueError
            If the iteration is below 1.
        """
        if iteration < 1:
            raise ValueError(f"iteration is {iteration}, but the first one is 1")
        resource = self.leading(current, initial)
        step = self.step * initial.of(resource) * self.decay ** (iteration - 1)
        return max(current.of(resource) - step, self.budgets[resource] * initial.of(resource))

    def done(self, iteration: int, current: Cost, initial: Cost) -> bool:
        """Return whether nothing is left to do after that many iterations."""
        met = all(
            current.of(name) <= share * initial.of(name) for name, share in self.budgets.items()
        )
        return met or iteration >= self.iterations

    def check(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        """Find out before any work starts whether the budget can be met at all.

        Raises
        ------
        ValueError
            If the network has no block that can be pruned, or is above a budget even with all
            blocks at their narrowest; the message names the resource and both numbers.
        """
        blocks = find_blocks(model, input_shape)
        if not blocks.prunable:
            reasons = "; ".join(f"{block.name}: {block.reason}" for block in blocks.all)
            raise ValueError(f"no block of this network can be pruned ({reasons})")
        initial = total_cost(blocks)
        smallest = self._narrowest(blocks)
        for resource, share in self.budgets.items():
            needed, least = share * initial.of(resource), smallest.of(resource)
            if least > needed:
                raise ValueError(
                    f"budget of {resource} is {share:g} ({needed:,.0f}), but the narrowest version "
                    f"of this network still needs {least / initial.of(resource):.3g} ({least:,.0f})"
                )

    def _narrowest(self, blocks: Blocks) -> Cost:
        chosen = []
        for block in blocks.prunable:
            order = keep_order(block, np.zeros(block.units))
            multiple = 1 if self.relax_multiples else self._multiple(blocks, block)
            allowed = _allowed_units(block, block.widths(order), multiple)
            units = np.zeros(block.units, dtype=np.bool_)
            units[order[: int(allowed[0]) if len(allowed) else block.units]] = True
            chosen.append((block, units))
        return total_cost(blocks.narrowed(chosen))

    # ------------------------------------------------------------------ candidates

    def propose(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        iteration: int = 1,
        initial: Cost | None = None,
    ) -> list[Candidate]:
        """Make one candidate for each block that can be pruned.

        Parameters
        ----------
        model
            The current network; it is left as it is.
        input_shape
            Shape of one sample without the batch, such as (3, 32, 32).
        iteration
            1 for the first.
        initial
            Cost of the first network; that of ``model`` if not given.

        Returns
        -------
        list[Candidate]
            In the order of the blocks. Those that miss the target are among them, with their
            status; ``usable`` tells which to train.
        """
        blocks = find_blocks(model, input_shape)
        current = total_cost(blocks)
        initial = initial or current
        resource = self.leading(current, initial)
        target = self.target(iteration, current, initial)
        return [
            self._propose_block(model, blocks, block, resource, target, current, iteration)
            for block in blocks.prunable
        ]

    def _propose_block(
        self,
        model: nn.Module,
        blocks: Blocks,
        block: Block,
        resource: Resource,
        target: float,
        current: Cost,
        iteration: int,
    ) -> Candidate:
        seed = int(
            np.random.SeedSequence([self.seed, iteration, blocks.all.index(block)]).generate_state(
                1
            )[0]
        )
        scores = unit_scores(model, blocks.trace.layers, block, self.ranking, seed)
        order = keep_order(block, scores)
        widths = block.widths(order)
        costs = block_costs(blocks, block, widths)
        amounts, goal = costs.of(resource), (current.of(resource), target)
        multiple = self._multiple(blocks, block)
        units, status = self._choose(_allowed_units(block, widths, multiple), amounts, *goal)
        while status != "ok" and multiple > 1 and self.relax_multiples:
            multiple //= 2
            units, status = self._choose(_allowed_units(block, widths, multiple), amounts, *goal)
        kept_units = np.zeros(block.units, dtype=np.bool_)
        kept_units[order[:units]] = True
        kept = blocks.kept([(block, kept_units)])
        return Candidate(
            block=block.name,
            cost=costs.at(units),
            kept={name: kept[name, "out"] for name in block.layers},
            status=status,
            resource=resource,
            target=target,
            multiple=multiple,
            _source=model,
            _blocks=blocks,
            _units=kept_units,
        )

    def _multiple(self, blocks: Blocks, block: Block) -> int:
        linear = blocks.trace.layers[block.name].kind == "linear"
        return self.linear_multiple if linear else self.conv_multiple

    def _choose(
        self,
        allowed: NDArray[np.int64],
        amounts: NDArray[np.float64],
        current: float,
        target: float,
    ) -> tuple[int, Status]:
        """Return the most units that meet the target, and how well they do."""
        if not len(allowed):
            return len(amounts), "out of reach"
        meets = allowed[amounts[allowed - 1] <= target]
        if not len(meets):
            return int(allowed[0]), "out of reach"
        units = int(meets[-1])
        overshoots = current - amounts[units - 1] > self.max_overshoot * (current - target)
        return units, "overshoots" if overshoots else "ok"

    # ------------------------------------------------------------------ the choice

    def select(
        self,
        candidates: Sequence[Candidate],
        accuracies: Sequence[float],
        current_accuracy: float,
        current: Cost,
    ) -> int:
        """Return the index of the winner.

        Parameters
        ----------
        candidates
            The candidates.
        accuracies
            Accuracy of each; NaN for those that were not trained or dropped out.
        current_accuracy, current
            Accuracy and cost of the network that was pruned.

        Raises
        ------
        ValueError
            If the lengths differ or no candidate has an accuracy.
        """
        if len(candidates) != len(accuracies):
            raise ValueError(
                f"there are {len(candidates)} candidates, but {len(accuracies)} accuracies"
            )
        running = [index for index, value in enumerate(accuracies) if not math.isnan(value)]
        if not running:
            raise ValueError("no candidate has an accuracy, so none can be selected")

        def merit(index: int) -> tuple[float, float]:
            saved = sum(
                1 - candidates[index].cost.of(name) / current.of(name) for name in self.budgets
            )
            loss = current_accuracy - accuracies[index]
            if self.selection == "accuracy":
                return (accuracies[index], saved)
            return (-loss / saved if saved > 0 else -math.inf, accuracies[index])

        return max(running, key=merit)


def _allowed_units(
    block: Block, widths: dict[tuple[str, Axis], IntArray], multiple: int
) -> NDArray[np.int64]:
    """Return the numbers of kept units, ascending, that make a narrower block.

    The first layer's width is a multiple, and no tied layer is left without a channel.
    """
    allowed = widths[block.name, "out"] % multiple == 0
    for name in block.layers:
        allowed &= widths[name, "out"] >= 1
    return np.flatnonzero(allowed[:-1]) + 1
