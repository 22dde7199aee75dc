"""What the steps of a search work with: the network, the driver, the folder, the global model."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.torch import save as save_tensors

from workbench.federation import payload
from workbench.federation.records import ClientRecord, Group, Job, Outcome, columns
from workbench.federation.rounds import RoundDriver
from workbench.pruning import codec
from workbench.search import changes
from workbench.search import config as settings
from workbench.search.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from workbench.federation.engines import Engine
    from workbench.federation.nodes import Nodes
    from workbench.pruning.cost import Cost
    from workbench.pruning.netadapt import Candidate
    from workbench.search.control import Control
    from workbench.search.folder import RunFolder
    from workbench.search.search import Search
    from workbench.testbed.base import LinkChange, Network


class SearchError(RuntimeError):
    """The search can't go on; what it has is in its run folder, and it can be resumed."""


@dataclass
class GlobalModel:
    """The network that the search has come to: architecture, weights, cost."""

    description: str
    weights: payload.Flat
    cost: Cost

    def module(self) -> nn.Module:
        """Return it as a module."""
        return module_of(self.description, self.weights)


@dataclass
class Workspace:
    """Everything around the state of one running search."""

    search: Search
    folder: RunFolder
    network: Network
    engine: Engine
    nodes: Nodes
    control: Control
    tell: Callable[[Mapping[str, Any]], None]

    def __post_init__(self) -> None:
        self.time = self.engine.time
        self.driver = RoundDriver(
            self.engine.grid, self.engine.time, self.nodes, self.search.limits
        )
        self.initial = self.search.initial_cost
        self.model = GlobalModel(*self.search.initial_model, self.initial)
        self._began = time.monotonic()
        self.grouping = self.search.grouping
        self._link_changes: deque[LinkChange] = deque()
        self._costs: dict[tuple[str, bool], Cost] = {}
        self.network.on_change(self._heard)

    # ------------------------------------------------------------------ clients and groups

    @property
    def clients(self) -> int:
        """Number of clients."""
        return len(self.network.fleet)

    def everyone(self) -> Group:
        """Return the group of all clients."""
        return Group(0, np.flatnonzero(self.network.present()))

    def groups(self, state: State, present: NDArray[np.bool_] | None = None) -> list[Group]:
        """Return the groups of this iteration, with only those clients that are there."""
        members = [state.members(group) for group in range(state.groups)]
        there = self.network.present() if present is None else present
        members = [rows[there[rows]] for rows in members]
        return [Group(number, rows) for number, rows in enumerate(members)]

    def present(self, state: State, round_number: int) -> NDArray[np.bool_]:
        """Return which clients are there in a round, (N,); round 0 is the grouping."""
        drawn = self.search.availability.mask(
            self.clients, state.iteration, round_number, state.rounds_done
        )
        return drawn & self.network.present()

    def absent(self, state: State, present: NDArray[np.bool_]) -> list[ClientRecord]:
        """Return a record for each client that belongs to a group but is not there."""
        return [
            ClientRecord(
                client=int(row),
                candidate=-1,
                group=state.assignment[row],
                message="train",
                status="absent",
            )
            for row in np.flatnonzero(~present)
            if state.assignment[row] >= 0
        ]

    # ------------------------------------------------------------------ models

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a sample."""
        return self.search.dataset.input_shape

    def cost_of(self, description: str) -> Cost:
        """Return what an architecture costs; it is worked out once."""
        netadapt = self.search.netadapt
        timed = "latency" in netadapt.budgets
        if (description, timed) not in self._costs:
            self._costs[description, timed] = (
                netadapt.cost(codec.build(description), self.input_shape)
                if timed
                else codec.described_cost(description)
            )
        return self._costs[description, timed]

    def whole_model(self) -> Job:
        """Return the global model as a job."""
        return Job(0, self.model.description, self.model.weights, self.model.cost.macs)

    def job(self, number: int, candidate: Candidate) -> Job:
        """Return a candidate as a job; its tensors are built here."""
        module = candidate.build()
        description = codec.describe(module, self.input_shape)
        if candidate.cost.latency_s is None:  # else it may differ in its last digits
            self._costs[description, False] = candidate.cost
        return Job(number, description, payload.flatten(module), candidate.cost.macs)

    def save_model(self, name: str, description: str, weights: payload.Flat) -> None:
        """Write a model into the run folder."""
        tensors = module_of(description, weights).state_dict()
        contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
        self.folder.write_model(name, description, save_tensors(contiguous))

    def load_model(self, iteration: int) -> GlobalModel:
        """Return the global model of an iteration from the run folder."""
        module, description = self.folder.read_model(f"iteration_{iteration:03d}")
        return GlobalModel(description, payload.flatten(module), self.cost_of(description))

    # ------------------------------------------------------------------ events and checkpoints

    def resume(self) -> State:
        """Return the state of the last complete round, or that of a new search."""
        found = self.folder.load_checkpoint()
        if found is None:
            return State(began_s=self.time.now_s())
        state = State.unpack(*found)
        self.time.resume_at(state.time_s)
        if state.iteration > 0:
            self.model = self.load_model(state.iteration - 1)
        for event in self.folder.kept_events("change", "link"):
            if event["event"] == "link":
                changes.repeat(self.network, event)
            else:
                value = settings.restore(event["value"])
                changes.adopt(self.search, event["setting"], value)
                self._apply(event["setting"], value)
        self._link_changes.clear()
        return state

    def take_changes(self, state: State) -> None:
        """Let what was changed since the last round come into force; called between rounds.

        Another grouping is used from the next iteration on, another schedule at once.
        """
        if self.search.session.changes or self._link_changes:
            self.checkpoint(state)

    def _apply(self, name: str, value: Any) -> None:  # noqa: ANN401  # a part of the search
        if name == "grouping":
            self.grouping = value
        elif name == "testbed":
            self.network.follow(value.schedule)

    def _heard(self, change: LinkChange) -> None:
        """Note what was done to the network by hand; its schedule needs no note."""
        if change.what != "rate" or change.asked_bps is not None:
            self._link_changes.append(change)

    def _write_link_changes(self, state: State) -> None:
        while self._link_changes:
            self._write(state, "link", asdict(self._link_changes.popleft()))

    def checkpoint(self, state: State) -> None:
        """Keep the state with what was changed, so that a killed run goes on from here."""
        pending = self.search.session.changes
        while pending:
            name, value = pending.popleft()
            self._apply(name, value)
            self.event(state, "change", setting=name, value=settings.describe(value))
        self._write_link_changes(state)
        state.time_s = self.time.now_s()
        self.folder.save_checkpoint(*state.pack())

    def event(self, state: State, name: str, **fields: Any) -> None:  # noqa: ANN401  # JSON
        """Write an event, and tell whoever listens."""
        self._write_link_changes(state)
        self._write(state, name, fields)

    def _write(self, state: State, name: str, fields: Mapping[str, Any]) -> None:
        event = {
            "event": name,
            "phase": state.phase,
            "iteration": state.iteration,
            "time_s": self.time.now_s(),
            "wall_s": round(time.monotonic() - self._began, 3),
            **fields,
        }
        self.folder.append(event)
        self.tell(event)

    def test_event(self, state: State, of: str, outcomes: Sequence[Outcome]) -> None:
        """Write the event of a test: of the candidates, or of a global model."""
        records = [record for outcome in outcomes for record in outcome.clients]
        summaries = [summary(outcome) for outcome in outcomes]
        self.event(state, "test", of=of, candidates=summaries, clients=columns(records))


def module_of(description: str, weights: payload.Flat) -> nn.Module:
    """Return a module of an architecture with these weights."""
    module: nn.Module = codec.build(description)
    payload.load(module, weights)
    return module


def costs(cost: Cost) -> dict[str, Any]:
    """Return a cost as fields of an event."""
    return {"macs": cost.macs, "parameters": cost.parameters, "size_bytes": cost.size_bytes}


def plain(value: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return None if math.isnan(value) else value


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as fields of an event, without its clients."""
    return {
        "candidate": outcome.job.candidate,
        "group": outcome.group,
        "start_s": outcome.start_s,
        "duration_s": outcome.duration_s,
        "accuracy": plain(outcome.accuracy),
        "loss": plain(outcome.loss),
        "test_samples": outcome.test_samples,
        "replies": len(outcome.replied),
        "lost": outcome.lost,
    }
