"""How a group trains its candidate: FedAvg and FedProx, with the settings of local training.

FedAvg is B. McMahan et al., 2017; FedProx is T. Li et al., 2020, which adds the proximal term
mu/2 * ||w - w_global||^2 to the local loss.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LearningRateSchedule:
    """Learning rate as a function of the round within an iteration, counted from 0.

    ``constant`` keeps it, ``step`` multiplies it by ``gamma`` every ``every`` rounds, ``cosine``
    lowers it to zero over the rounds of the iteration.
    """

    kind: Literal["constant", "step", "cosine"] = "constant"
    gamma: float = Field(default=0.1, gt=0, le=1)
    every: int = Field(default=10, ge=1)

    def factor(self, round_number: int, rounds: int) -> float:
        """Return what the learning rate is multiplied by in a round (1-based) of ``rounds``."""
        if self.kind == "step":
            return float(self.gamma ** ((round_number - 1) // self.every))
        if self.kind == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * (round_number - 1) / max(rounds, 1)))
        return 1.0


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FedAvg:
    """Federated averaging: local SGD, then the mean of the weights by training samples.

    Parameters
    ----------
    rounds
        Rounds per candidate and iteration.
    local_epochs
        Passes over the local training samples in a round.
    learning_rate, momentum, weight_decay, batch_size
        Of the local SGD. A ``batch_size`` of 0 takes all local samples as one batch.
    schedule
        Learning rate over the rounds of an iteration.
    """

    rounds: int = Field(default=10, ge=1)
    local_epochs: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    batch_size: int = Field(default=32, ge=0)
    schedule: LearningRateSchedule = Field(default_factory=LearningRateSchedule)

    @property
    def proximal(self) -> float:
        """Weight of the proximal term in the local loss; none in FedAvg."""
        return 0.0


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FedProx(FedAvg):
    """FedAvg with the proximal term ``mu / 2 * ||w - w_global||^2`` in the local loss."""

    mu: float = Field(default=0.01, ge=0, allow_inf_nan=False)

    @property
    def proximal(self) -> float:
        """Weight of the proximal term in the local loss."""
        return self.mu
