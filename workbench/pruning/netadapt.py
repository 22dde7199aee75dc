"""NetAdapt: shrink a network step by step, one block at a time (Yang et al., ECCV 2018).

Every iteration lowers the budget by a step. For each block there is one candidate: the network
with just that block made narrow enough to meet the iteration's budget, the filters with the
smallest norm removed first. The candidates are trained, and the best one is the next network.
Schedule and choice are those of the NAFNAS experiments; several budgets at once are DecNAS's
formulation (section 3.1) with n > 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from workbench.pruning.blocks import Blocks, find_blocks
from workbench.pruning.candidates import Candidate, Goal, allowed_units, make_candidate
from workbench.pruning.cost import Cost, Resource, cost_of, total_cost
from workbench.pruning.latency import LatencyTable, SegmentTimes, shared_table
from workbench.pruning.ranking import keep_order, ranking_names, unit_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from workbench.pruning.structure import Block

__all__ = ["Candidate", "NetAdapt"]


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
    latency_batch_size
        Samples in the batch whose latency is meant, where latency is a resource.
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
    latency_batch_size: int = Field(default=1, ge=1)

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
        planned = current.of(resource) - self._planned(iteration, initial.of(resource))
        return max(planned, self.budgets[resource] * initial.of(resource))

    def _planned(self, iteration: int, initial: float) -> float:
        """Return what an iteration is to save."""
        return self.step * initial * self.decay ** (iteration - 1)

    def done(self, iteration: int, current: Cost, initial: Cost) -> bool:
        """Return whether nothing is left to do after that many iterations."""
        met = all(
            current.of(name) <= share * initial.of(name) for name, share in self.budgets.items()
        )
        return met or iteration >= self.iterations

    def cost(self, model: nn.Module, input_shape: Sequence[int]) -> Cost:
        """Return what a network costs; with its latency, if that has a budget."""
        return cost_of(model, input_shape, self._table())

    def _table(self) -> LatencyTable | None:
        return shared_table(self.latency_batch_size) if "latency" in self.budgets else None

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
        times = self._times(model, blocks)
        initial, smallest = total_cost(blocks, times), self._narrowest(model, blocks)
        for resource, share in self.budgets.items():
            needed, least = share * initial.of(resource), smallest.of(resource)
            if least > needed:
                raise ValueError(
                    f"budget of {resource} is {share:g} ({needed:,.0f}), but the narrowest version "
                    f"of this network still needs {least / initial.of(resource):.3g} ({least:,.0f})"
                )

    def _times(self, model: nn.Module, blocks: Blocks) -> SegmentTimes | None:
        table = self._table()
        return None if table is None else SegmentTimes.of(model, blocks.trace, table)

    def _narrowest(self, model: nn.Module, blocks: Blocks) -> Cost:
        """Return the cost with every block as narrow as it can be."""
        chosen = []
        for block in blocks.prunable:
            order = keep_order(block, np.zeros(block.units))
            multiple = 1 if self.relax_multiples else self._multiple(blocks, block)
            allowed = allowed_units(block, block.widths(order), multiple)
            units = np.zeros(block.units, dtype=np.bool_)
            units[order[: int(allowed[0]) if len(allowed) else block.units]] = True
            chosen.append((block, units))
        narrow = blocks.narrowed(chosen)
        return total_cost(narrow, self._times(model, narrow))

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
        times = self._times(model, blocks)
        current = total_cost(blocks, times)
        initial = initial or current
        resource = self.leading(current, initial)
        goal = Goal(
            resource,
            current.of(resource),
            self.target(iteration, current, initial),
            self.max_overshoot * self._planned(iteration, initial.of(resource)),
        )
        return [
            make_candidate(
                model,
                blocks,
                block,
                self._scores(model, blocks, block, iteration),
                goal,
                multiple=self._multiple(blocks, block),
                relax_multiples=self.relax_multiples,
                times=times,
            )
            for block in blocks.prunable
        ]

    def _scores(
        self, model: nn.Module, blocks: Blocks, block: Block, iteration: int
    ) -> NDArray[np.float64]:
        generator = np.random.default_rng([self.seed, iteration, blocks.all.index(block)])
        return unit_scores(model, blocks.trace.layers, block, self.ranking, generator)

    def _multiple(self, blocks: Blocks, block: Block) -> int:
        linear = blocks.trace.layers[block.name].kind == "linear"
        return self.linear_multiple if linear else self.conv_multiple

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
