"""The driver: groups of clients train and test candidates side by side, on any Grid.

One round is: send each candidate to its group, let the clients train, collect accuracies, then
weights, and fuse both (DecNAS, Algorithm 4.1, ``Cloud_One_Round``). Where there are fewer groups
than candidates, a candidate waits for the next free group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import ConfigRecord, MessageType, RecordDict

from workbench.federation import payload
from workbench.federation.client import UPLOAD, held_key, local_config
from workbench.federation.dispatch import Dispatcher, Request, RoundLimits
from workbench.federation.records import Group, Job, Outcome
from workbench.federation.training import LocalSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flwr.serverapp import Grid
    from numpy.typing import NDArray

    from workbench.federation.nodes import Nodes
    from workbench.federation.strategies import FedAvg
    from workbench.federation.timekeeping import Timekeeper

BACKWARD_FACTOR = 3
"""Cost of a training step over that of a forward pass: the backward pass is counted twice."""


@dataclass(frozen=True)
class RoundKey:
    """Which round this is; iterations count from 0 (pre-training), rounds from 1."""

    iteration: int
    round: int
    rounds: int
    seed: int


class RoundDriver:
    """Drive rounds of training and testing over a Grid.

    Parameters
    ----------
    grid
        Any Flower Grid whose nodes run the ClientApp of this package.
    timekeeper
        Tells the time on the network between server and clients.
    nodes
        For each client (row of the fleet) its node id, training and test samples: see `discover`.
    limits
        Deadline and minimum of replies.
    """

    def __init__(
        self, grid: Grid, timekeeper: Timekeeper, nodes: Nodes, limits: RoundLimits
    ) -> None:
        self._nodes = nodes
        self._dispatcher = Dispatcher(grid, timekeeper, nodes, limits)

    def train(
        self,
        jobs: Sequence[Job],
        groups: Sequence[Group],
        strategy: FedAvg,
        key: RoundKey,
        *,
        test: bool = False,
        hold: bool = False,
    ) -> list[Outcome]:
        """Let groups train candidates for one round; outcomes in the order of the jobs.

        With ``test`` clients test what they trained; with ``hold`` they keep their weights until
        `upload` asks for them.
        """
        rate = strategy.learning_rate * strategy.schedule.factor(key.round, key.rounds)
        records = {job.candidate: payload.to_record(job.weights) for job in jobs}

        def content(job: Job, client: int) -> RecordDict:
            local = LocalSettings(
                local_epochs=strategy.local_epochs,
                batch_size=strategy.batch_size,
                learning_rate=rate,
                momentum=strategy.momentum,
                weight_decay=strategy.weight_decay,
                proximal=strategy.proximal,
                seed=client_seed(key, job.candidate, client),
            )
            hold_as = held_key(key.iteration, key.round, job.candidate) if hold else ""
            config = local_config(local)
            config |= {"architecture": job.architecture, "test": test, "hold": hold_as}
            return RecordDict(
                {
                    "config": ConfigRecord(config),
                    "weights": records[job.candidate],
                }
            )

        def macs(job: Job, client: int) -> float:
            samples = BACKWARD_FACTOR * strategy.local_epochs * self._nodes.train_samples[client]
            tested = self._nodes.test_samples[client] if test else 0
            return float(job.macs_per_sample * (samples + tested))

        def clients(job: Job, group: Group) -> list[int]:
            del job
            return _with(group, self._nodes.train_samples)

        return self._dispatcher.run(
            jobs, groups, Request(MessageType.TRAIN, clients, content, macs, weights=not hold)
        )

    def upload(self, outcomes: Sequence[Outcome], key: RoundKey) -> list[Outcome]:
        """Collect the weights that the clients of these outcomes hold back."""

        def content(job: Job, client: int) -> RecordDict:
            del client
            name = held_key(key.iteration, key.round, job.candidate)
            return RecordDict({"config": ConfigRecord({"hold": name})})

        replied = {outcome.job.candidate: outcome.replied for outcome in outcomes}
        numbers = sorted({outcome.group for outcome in outcomes})
        groups = [Group(number, np.empty(0, dtype=np.int64)) for number in numbers]
        request = Request(
            UPLOAD,
            lambda job, _: replied[job.candidate],
            content,
            lambda _job, _client: 0.0,
            weights=True,
        )
        fixed = {outcome.job.candidate: numbers.index(outcome.group) for outcome in outcomes}
        return self._dispatcher.run([outcome.job for outcome in outcomes], groups, request, fixed)

    def evaluate(self, jobs: Sequence[Job], groups: Sequence[Group]) -> list[Outcome]:
        """Let groups test models on their test samples; outcomes in the order of the jobs."""
        records = {job.candidate: payload.to_record(job.weights) for job in jobs}

        def content(job: Job, client: int) -> RecordDict:
            del client
            config = ConfigRecord({"architecture": job.architecture})
            return RecordDict({"config": config, "weights": records[job.candidate]})

        def macs(job: Job, client: int) -> float:
            return float(job.macs_per_sample * self._nodes.test_samples[client])

        def clients(job: Job, group: Group) -> list[int]:
            del job
            return _with(group, self._nodes.test_samples)

        return self._dispatcher.run(
            jobs, groups, Request(MessageType.EVALUATE, clients, content, macs, weights=False)
        )


def client_seed(key: RoundKey, candidate: int, client: int) -> int:
    """Return the seed of one client's training in one round: chance has no history."""
    sequence = np.random.SeedSequence([key.seed, key.iteration, key.round, candidate, client])
    return int(sequence.generate_state(1)[0])


def _with(group: Group, samples: NDArray[np.int64]) -> list[int]:
    """Return the clients of a group that have samples for the work at hand."""
    return [int(client) for client in group.clients if samples[client] > 0]
