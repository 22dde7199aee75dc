"""What the reproductions of one setting share: data, clients, the initial network, and the runs.

Everything that is trained is trained by a `Search` in a run folder, also where no candidate is
proposed: pre-training by the server and long-term tuning are searches that end after iteration 0.
A run's folder is named by a hash of its config, so that notebooks share the runs that they have in
common, and a reproduction that was interrupted goes on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench import models
from workbench.data.datasets import load_dataset
from workbench.federation.strategies import FedAvg, FedProx
from workbench.fleet import Fleet
from workbench.grouping.baselines import RandomGrouping
from workbench.pruning.netadapt import NetAdapt
from workbench.search import presets
from workbench.search.policies import DynamicRounds, SearchPolicy
from workbench.search.run import Run
from workbench.search.search import Search

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from workbench.data.dataset import Dataset
    from workbench.reproduction.scale import Scale, Setting

IMAGES_A_PERSON = 5
"""CelebA's clients are the persons with at least so many images (DecNAS, section 5.1)."""

CENTRAL_BATCH = 32
"""Samples in a batch where the data of all lie in one place."""

IMAGENET_NAMES = ("imagenet", "imagenet.tar", "imagenette-64px-2k.tar")
"""What an ImageNet image folder in ``WORKBENCH_DATA`` may be called; the first one is taken."""


class Task:
    """One setting at one scale with one seed.

    Attributes
    ----------
    setting, scale, seed
        What it is.
    folder
        Where the runs lie.
    runs
        The runs that were asked for, by name: folder name of each.
    """

    def __init__(
        self, setting: Setting, scale: Scale, *, seed: int = 7, folder: str | Path = "runs"
    ) -> None:
        self.setting: Setting = setting
        self.scale = scale
        self.seed = seed
        self.folder = Path(folder)
        self.runs: dict[str, Run] = {}

    # ------------------------------------------------------------------ data and clients

    @cached_property
    def dataset(self) -> Dataset:
        """The images, with the server's share taken out."""
        whole = _load(self.scale)
        if 0 < self.scale.samples < len(whole):
            rows = np.random.default_rng([self.seed, 1]).permutation(len(whole))
            whole = whole.subset(np.sort(rows[: self.scale.samples]))
        return whole.reserve_for_server(self.scale.server_fraction, seed=self.seed)

    @cached_property
    def fleet(self) -> Fleet:
        """The clients with training and test samples; DecNAS's have validation samples too."""
        if self.setting == "nafnas":
            return Fleet.dirichlet(self.dataset, self.scale.clients, 0.3, seed=self.seed)
        split = {"validation_fraction": 0.2, "test_fraction": 0.2, "seed": self.seed}
        if self.setting == "imagenet" or self.dataset.identity is None:
            return Fleet.iid(self.dataset, self.scale.clients, **split)  # type: ignore[arg-type]
        owner = self.dataset.identity
        if self.scale.clients:
            owner = pooled(owner, self.scale.clients)
        return Fleet.by_identity(
            self.dataset,
            owner,
            min_samples=IMAGES_A_PERSON,
            **split,  # type: ignore[arg-type]
        )

    @cached_property
    def judging(self) -> Fleet:
        """The clients as they judge candidates: where there are validation samples, on those."""
        if not any(len(part) for part in self.fleet.validation_indices):
            return self.fleet
        return replace(
            self.fleet,
            test_indices=self.fleet.validation_indices,
            settings={**self.fleet.settings, "tested_on": "validation"},
        )

    # ------------------------------------------------------------------ networks

    @cached_property
    def initial(self) -> nn.Module:
        """The initial network, trained by the server on its own images."""
        server = Fleet.from_partition(
            self.dataset,
            [self.dataset.server_indices],
            test_fraction=0.1,
            seed=self.seed,
            settings={"method": "server"},
        )
        return self.train("pre-trained", self.untrained, self.scale.pretrain_epochs, server).model(
            0
        )

    @cached_property
    def untrained(self) -> nn.Module:
        """The setting's network with fresh weights."""
        factory = {
            "nafnas": models.alexnet,
            "celeba": models.convnet,
            "imagenet": models.mobilenet,
        }[self.setting]
        return factory(
            num_classes=self.dataset.num_classes,
            in_channels=self.dataset.input_shape[0],
            width=self.scale.width,
            seed=self.seed,
        )

    # ------------------------------------------------------------------ runs

    def search(self, name: str, *, fleet: Fleet | None = None, **changes: Any) -> Run:  # noqa: ANN401
        """Run the paper's preset at this scale, or take the run that is there.

        Parameters
        ----------
        name
            What this run is called in the result.
        fleet
            Other clients than those that judge candidates.
        changes
            Parts of the search that differ, by the names that `Search` takes. ``netadapt``,
            ``training`` and ``policy`` are mappings: of these only the named fields change. A
            ``mu`` in the training makes it FedProx.
        """
        clients = self.judging if fleet is None else fleet
        common: dict[str, Any] = {"model": self.initial, "seed": self.seed}
        if self.setting == "nafnas":
            preset = presets.nafnas(self.dataset, clients, **common)
        else:
            preset = presets.decnas(self.dataset, clients, setting=self.setting, groups=1, **common)
        scaled: dict[str, Any] = {
            "netadapt": {
                "step": self.scale.step,
                "iterations": self.scale.iterations,
                # The steps in width are the same shares of a narrower network.
                "conv_multiple": max(1, round(preset.netadapt.conv_multiple * self.scale.width)),
                "linear_multiple": max(
                    1, round(preset.netadapt.linear_multiple * self.scale.width)
                ),
            },
            "training": {
                "rounds": self.scale.rounds,
                "local_epochs": self.scale.local_epochs,
                "batch_size": self.scale.batch_size,
                "learning_rate": self.scale.learning_rate,
            },
            "policy": {
                "pretrain_rounds": 0,
                "tune_rounds": 0,
                "rounds": bounded(preset.policy.rounds, self.scale.most_rounds),
            },
        }
        settings: dict[str, Any] = {"groups": self.scale.groups or None}
        for part, of_scale in scaled.items():
            fields = {**of_scale, **changes.pop(part, {})}
            before = getattr(preset, part)
            if "mu" in fields:
                settings[part] = FedProx(**{**vars(before), **fields})
            else:
                settings[part] = replace(before, **fields)
        settings |= changes
        for part, value in settings.items():
            setattr(preset, part, value)
        return self._ran(name, preset)

    def train(self, name: str, model: nn.Module, rounds: int, fleet: Fleet | None = None) -> Run:
        """Train a network federatedly and test it; ``rounds`` may be 0. See its iteration 0."""
        clients = self.fleet if fleet is None else fleet
        search = Search(
            model,
            self.dataset,
            clients,
            # Nothing is proposed, but a search has a budget that can be met.
            netadapt=NetAdapt(step=0.01, budget=0.99, iterations=1),
            grouping=RandomGrouping(seed=self.seed),
            training=FedAvg(
                rounds=max(1, rounds),
                local_epochs=self.scale.local_epochs if len(clients) > 1 else 1,
                batch_size=self.scale.batch_size if len(clients) > 1 else CENTRAL_BATCH,
                learning_rate=self.scale.learning_rate,
            ),
            policy=SearchPolicy(pretrain_rounds=rounds),
            groups=1,
            seed=self.seed,
        )
        return self._ran(name, search, only_first=True)

    def _ran(self, name: str, search: Search, *, only_first: bool = False) -> Run:
        path = self.folder / f"{self.setting}-{fingerprint(search.config)}"
        known = Run(path) if (path / "config.json").exists() else None
        # The events of a run that only trains end here, though its search could go on.
        if known is None or not (only_first and known.of("select")):
            if only_first:
                search.listeners.append(
                    lambda event: search.stop() if event["event"] == "select" else None
                )
            known = search.run(path)
        self.runs[name] = known
        return known


def bounded(rounds: DynamicRounds | None, most: int) -> DynamicRounds | None:
    """Return the same rounds by iteration, but nowhere more than ``most``; 0 bounds nothing."""
    if rounds is None or not most:
        return rounds
    return DynamicRounds(tuple((last, min(number, most)) for last, number in rounds.steps))


def seconds(run: Run) -> float:
    """Return how long a run was computed, in s; what was interrupted counts with its parts."""
    total = last = 0.0
    for event in run.events:
        if event["wall_s"] < last:
            total += last
        last = event["wall_s"]
    return total + last


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return a short hash of a config."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:10]


def centralised(fleet: Fleet) -> Fleet:
    """Return one client with the samples of all: what is done on it is done on central data."""
    parts = {
        name: (np.sort(np.concatenate(getattr(fleet, name))),)
        for name in ("train_indices", "test_indices")
    }
    fastest = int(np.argmax(fleet.rate_bps))
    return Fleet(
        label_counts=fleet.label_counts.sum(axis=0, keepdims=True),
        tier=fleet.tier[[fastest]],
        rate_bps=fleet.rate_bps[[fastest]],
        tiers=fleet.tiers,
        names=("server",),
        settings={**fleet.settings, "method": "centralised"},
        **parts,
    )


def pooled(identity: NDArray[np.int64], clients: int) -> NDArray[np.int64]:
    """Give the images of whole persons to about so many clients of about equal size, (n,) int64.

    For subsets of CelebA in which hardly anybody has several images.
    """
    _, person, counts = np.unique(identity, return_inverse=True, return_counts=True)
    before = np.cumsum(counts) - counts
    owner: NDArray[np.int64] = (before * clients // len(identity))[person]
    return owner


def _load(scale: Scale) -> Dataset:
    if scale.dataset == "cifar10":
        return load_dataset("cifar10")
    if scale.dataset == "celeba":
        return load_dataset("celeba", size=scale.image_size)
    if scale.dataset == "digits":
        return load_dataset("digits", size=scale.image_size)
    for name in IMAGENET_NAMES:
        try:
            return load_dataset("image_folder", name, size=scale.image_size)
        except FileNotFoundError:
            continue
    raise FileNotFoundError(
        f"no ImageNet in WORKBENCH_DATA; needed is an image folder or plain .tar called one of "
        f"{', '.join(IMAGENET_NAMES)}"
    )
