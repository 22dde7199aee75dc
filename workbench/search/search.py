"""A search: everything that it takes, checked, and the command to run it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from tqdm.auto import tqdm

from workbench.federation import payload
from workbench.federation.client import make_client_app
from workbench.federation.dispatch import RoundLimits
from workbench.federation.engines import EngineName, open_engine
from workbench.federation.nodes import discover
from workbench.federation.strategies import FedAvg
from workbench.grouping.netdag import NetDAG
from workbench.pruning import codec
from workbench.pruning.netadapt import NetAdapt
from workbench.search import changes
from workbench.search import config as settings
from workbench.search.control import Stopped
from workbench.search.folder import RunFolder
from workbench.search.loop import Loop
from workbench.search.policies import Availability, SearchPolicy
from workbench.search.run import Run
from workbench.search.session import Session
from workbench.search.workspace import Workspace
from workbench.testbed.simulated import SimulatedTestbed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from workbench.data.dataset import Dataset
    from workbench.fleet import Fleet
    from workbench.grouping.base import GroupingStrategy
    from workbench.pruning.candidates import Candidate
    from workbench.pruning.cost import Cost
    from workbench.testbed.base import Network, Testbed


@dataclass(kw_only=False)
class Search:
    """A network-aware federated architecture search, before it runs.

    Parameters
    ----------
    model
        The initial network: any module that can be traced; its weights are the start.
    dataset
        What the clients' sample indices point into.
    fleet
        The clients, with their samples and links.
    netadapt
        Which candidates are proposed, and which one wins.
    grouping
        Which client trains which candidate.
    training
        How a group trains its candidate.
    testbed
        The network between server and clients.
    seed
        Of everything that chance decides in the search.
    groups
        Number of groups; None makes one for each candidate.
    policy, limits, availability
        Rounds, dropping and tuning; deadline and minimum of replies; which clients are there.
    device
        ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
    engine, address
        ``auto`` computes in this process, or over the testbed's network; ``ray`` with Flower's
        simulation engine, on the Ray cluster at ``address`` or one that it starts. Where clients
        compute does not change what is found, so that it is no part of the config.

    Raises
    ------
    ValueError
        If the parts do not fit each other: a budget that can't be met, a fleet without samples,
        more groups than clients, a model with another number of outputs than there are classes.
    """

    model: nn.Module
    dataset: Dataset
    fleet: Fleet
    netadapt: NetAdapt = field(default_factory=NetAdapt)
    grouping: GroupingStrategy = field(default_factory=NetDAG)
    training: FedAvg = field(default_factory=FedAvg)
    testbed: Testbed = field(default_factory=SimulatedTestbed)
    seed: int = 0
    groups: int | None = None
    policy: SearchPolicy = field(default_factory=SearchPolicy)
    limits: RoundLimits = field(default_factory=RoundLimits)
    availability: Availability = field(default_factory=Availability)
    device: str = "auto"
    engine: EngineName = "auto"
    address: str | None = None

    def __post_init__(self) -> None:
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        self._check()
        self.session = Session()

    def __setattr__(self, name: str, value: object) -> None:
        """Set a part of the search; while it runs, what can be changed is written as an event.

        Raises
        ------
        ValueError
            If the part does not fit the others, or can't be changed while the search runs.
        """
        if "session" in self.__dict__ and name in self.__dataclass_fields__:
            changes.assign(self, name, value)
        else:
            object.__setattr__(self, name, value)

    # ------------------------------------------------------------------ running

    def run(self, path: str | Path, *, progress: bool = True) -> Run:
        """Run the search in a folder, or go on with the one that is there.

        A run that was killed goes on after its last complete round and ends as it would have
        without the interruption. Ctrl-C and `stop` end it between two rounds with what it has.

        Parameters
        ----------
        path
            The run folder; it is made if it is not there.
        progress
            Whether to show a progress bar.

        Raises
        ------
        workbench.search.folder.RunFolderError
            If the folder can't be written, is in use, or holds a run with another config.
        workbench.search.loop.SearchError
            If no candidate is left; the run can be resumed.
        """
        self.session.begin(Path(path))
        with self.session.ending():
            return self._run(Path(path), progress)

    def start(self, path: str | Path) -> None:
        """Run the search in a thread of its own, as `run` does; `session` says where it stands."""
        self.session.begin(Path(path))
        self.session.spawn(lambda: self._run(Path(path), progress=False))

    def wait(self, timeout_s: float | None = None) -> Run:
        """Wait until a search that was started has ended, and return its run.

        Raises
        ------
        TimeoutError
            If it runs for longer than ``timeout_s``.
        RuntimeError
            If it was never started. What a search raised is raised here.
        """
        return Run(self.session.join(timeout_s))

    def _run(self, path: Path, progress: bool) -> Run:
        with RunFolder(path).open(self.config) as folder:
            folder.write_fleet(self.fleet)
            run = Run(path)
            if run.finished:
                return run
            app = make_client_app(self.dataset, self.fleet, self._device)
            total = self._total_rounds
            done = int(run.checkpoint.get("rounds_done", 0))
            with (
                self.testbed.up(self.fleet) as network,
                self.session.on(network, done, total),
                open_engine(
                    network, app, self._device, engine=self.engine, address=self.address
                ) as engine,
                tqdm(total=total, initial=done, unit="round", disable=not progress) as bar,
            ):
                nodes = discover(engine.grid, len(self.fleet))

                def tell(event: Mapping[str, Any]) -> None:
                    _show(bar, event)
                    self.session.rounds_done += event["event"] == "round"
                    for listener in list(self.listeners):
                        listener(event)

                work = Workspace(self, folder, network, engine, nodes, self.session.control, tell)
                try:
                    Loop(work).run()
                except Stopped:
                    bar.set_description("stopped")
        return Run(path)

    def pause(self) -> None:
        """Let a running search wait before its next round."""
        self.session.control.pause()

    def resume(self) -> None:
        """Let a paused search go on."""
        self.session.control.resume()

    def stop(self) -> None:
        """End a running search before its next round; `run` with the same folder goes on."""
        self.session.control.stop()

    @property
    def network(self) -> Network | None:
        """The network that is up while the search runs."""
        return self.session.network

    # ------------------------------------------------------------------ what the loop asks

    @cached_property
    def first_candidates(self) -> list[Candidate]:
        """Candidates of the first iteration, the largest first: what the groups will train.

        Raises
        ------
        ValueError
            If the budget can't be met.
        """
        self.netadapt.check(self.model, self.dataset.input_shape)
        proposed = self.netadapt.propose(self.model, self.dataset.input_shape)
        usable = [candidate for candidate in proposed if candidate.usable]
        return sorted(usable, key=lambda candidate: -candidate.cost.size_bytes)

    @cached_property
    def initial_model(self) -> tuple[str, payload.Flat]:
        """Architecture and weights of the initial model."""
        description = codec.describe(self.model, self.dataset.input_shape)
        return description, payload.flatten(self.model)

    @cached_property
    def initial_cost(self) -> Cost:
        """What the initial model costs."""
        return self.netadapt.cost(self.model, self.dataset.input_shape)

    @property
    def pretrain_rounds(self) -> int:
        """Rounds that train the initial model."""
        chosen = self.policy.pretrain_rounds
        return self.training.rounds if chosen is None else chosen

    def rounds(self, iteration: int) -> int:
        """Return the rounds that a candidate gets in an iteration, counted from 1."""
        dynamic = self.policy.rounds
        return self.training.rounds if dynamic is None else dynamic.rounds(iteration)

    def schedule_order(self, iteration: int, candidates: int) -> list[int]:
        """Return in which order candidates take the groups 0, 1, ...: by size, or drawn."""
        if self.policy.scheduling == "by size":
            return list(range(candidates))
        return [
            int(n) for n in np.random.default_rng([self.seed, iteration]).permutation(candidates)
        ]

    @cached_property
    def config(self) -> dict[str, Any]:
        """Everything that decides what this search will find, JSON-able."""
        description, weights = self.initial_model
        digest = hashlib.sha256()
        for name, array in weights.items():
            digest.update(name.encode())
            digest.update(array.data)
        return {
            "model": {
                "architecture": hashlib.sha256(description.encode()).hexdigest(),
                "weights": digest.hexdigest(),
            },
            "dataset": {
                "name": self.dataset.name,
                "fingerprint": self.dataset.fingerprint(),
                "input_shape": list(self.dataset.input_shape),
            },
            "fleet": {**self.fleet.settings, "fingerprint": self.fleet.fingerprint()},
            **{
                name: settings.describe(getattr(self, name))
                for name in (
                    "netadapt", "grouping", "training", "testbed", "seed", "groups", "policy",
                    "limits", "availability", "device",
                )
            },
        }  # fmt: skip

    # ------------------------------------------------------------------ checks

    @property
    def _device(self) -> str:
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device

    @property
    def _total_rounds(self) -> int:
        iterations = range(1, self.netadapt.iterations + 1)
        searching = sum(self.rounds(iteration) for iteration in iterations)
        return self.pretrain_rounds + searching + self.policy.tune_rounds

    def _check(self) -> None:
        if self.device not in {"auto", "cpu"} and not self.device.startswith("cuda"):
            raise ValueError(f"device is {self.device!r}; allowed are 'auto', 'cpu' and 'cuda'")
        if self.engine not in get_args(EngineName):
            raise ValueError(f"engine is {self.engine!r}; allowed are {list(get_args(EngineName))}")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; allowed are whole numbers from 0 up")
        if not self.fleet.train_samples.sum():
            raise ValueError(
                "the fleet has no training samples; make it from a data set, for example with "
                "Fleet.dirichlet(dataset, ...)"
            )
        rows = np.concatenate([*self.fleet.train_indices, *self.fleet.test_indices])
        if rows.max() >= len(self.dataset.labels):
            raise ValueError(
                f"the fleet points at sample {rows.max()}, but {self.dataset.name} has "
                f"{len(self.dataset.labels)}; make the fleet from this data set"
            )
        groups = len(self.first_candidates) if self.groups is None else self.groups
        if not 1 <= groups <= len(self.fleet):
            raise ValueError(
                f"groups is {groups}, but there are {len(self.fleet)} clients; allowed are "
                f"1 to {len(self.fleet)}"
            )


def _show(bar: tqdm[Any], event: Mapping[str, Any]) -> None:
    """Show an event in the progress bar."""
    if event["event"] == "round":
        bar.set_description(
            "pre-training" if event["iteration"] == 0 else f"iteration {event['iteration']}"
        )
        bar.update()
    elif event["event"] == "select" and event["accuracy"] is not None:
        bar.set_postfix(accuracy=f"{event['accuracy']:.3f}", mmacs=f"{event['macs'] / 1e6:.1f}")
