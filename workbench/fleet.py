"""The fleet: every client's samples, label counts, tier and link rate."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench import fleet_output
from workbench.data import partition
from workbench.fleet_input import (
    checked_counts,
    checked_names,
    checked_rates,
    checked_tier,
    draw_links,
    span_of,
)
from workbench.scenario import Scenario
from workbench.tiers import PAPER_TIERS, Tier, draw_rates

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from workbench.data.dataset import Dataset


@dataclass(frozen=True, eq=False)
class Fleet:
    """N clients over C classes; immutable, built by one of the class methods.

    Attributes
    ----------
    label_counts
        (N, C) int64, samples of each class on each client, training and test together.
    tier
        (N,) int64, index into ``tiers``.
    rate_bps
        (N,) float64, present link rate in bit/s, the same in both directions.
    tiers
        The tier table; slowest first.
    names
        N unique names, ``client-0`` onwards.
    train_indices, test_indices, validation_indices
        For each client the indices into the dataset, ascending, int64; a client without training
        samples takes no part in training. Empty tuples in a fleet that was made from label counts
        alone.
    """

    label_counts: NDArray[np.int64]
    tier: NDArray[np.int64]
    rate_bps: NDArray[np.float64]
    tiers: tuple[Tier, ...]
    names: tuple[str, ...]
    train_indices: tuple[NDArray[np.int64], ...] = ()
    test_indices: tuple[NDArray[np.int64], ...] = ()
    validation_indices: tuple[NDArray[np.int64], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    """How the fleet was made: method, alpha, seed, ..."""

    # ------------------------------------------------------------------ construction

    @classmethod
    def dirichlet(
        cls,
        dataset: Dataset,
        clients: int,
        alpha: float,
        *,
        tiers: Sequence[Tier] = PAPER_TIERS,
        seed: int = 0,
        test_fraction: float = 0.25,
        validation_fraction: float = 0.0,
    ) -> Fleet:
        """Split a dataset over clients with label distributions drawn from Dirichlet(alpha).

        A small ``alpha`` gives each client few classes; a large one makes all clients alike.

        Raises
        ------
        ValueError
            If ``alpha`` is not positive, a fraction is outside [0, 1), or there are more clients
            than samples.
        """
        given = dataset.client_indices
        parts = partition.dirichlet(dataset.labels[given], clients, alpha, seed=seed)
        return cls.from_partition(
            dataset,
            [given[part] for part in parts],
            tiers=tiers,
            seed=seed,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            settings={"method": "dirichlet", "alpha": alpha},
        )

    @classmethod
    def iid(
        cls,
        dataset: Dataset,
        clients: int,
        *,
        tiers: Sequence[Tier] = PAPER_TIERS,
        seed: int = 0,
        test_fraction: float = 0.25,
        validation_fraction: float = 0.0,
    ) -> Fleet:
        """Split a dataset evenly and at random over clients; errors as in `dirichlet`."""
        given = dataset.client_indices
        parts = partition.iid(len(given), clients, seed=seed)
        return cls.from_partition(
            dataset,
            [given[part] for part in parts],
            tiers=tiers,
            seed=seed,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            settings={"method": "iid"},
        )

    @classmethod
    def by_identity(
        cls,
        dataset: Dataset,
        identity: ArrayLike | None = None,
        *,
        min_samples: int = 5,
        tiers: Sequence[Tier] = PAPER_TIERS,
        seed: int = 0,
        test_fraction: float = 0.25,
        validation_fraction: float = 0.0,
    ) -> Fleet:
        """Make one client of each identity (person, writer) with at least ``min_samples``.

        ``identity`` (n,) says whose each sample is; what the dataset says if None.

        Raises
        ------
        ValueError
            If nobody says whose the samples are, or nobody has enough of them.
        """
        owners = dataset.identity if identity is None else np.asarray(identity)
        if owners is None:
            raise ValueError(f"{dataset.name} names nobody; identity must say whose each image is")
        if owners.shape != dataset.labels.shape:
            raise ValueError(f"identity must have the shape ({len(dataset)},), got {owners.shape}")
        given = dataset.client_indices
        parts = partition.by_identity(owners[given], min_samples=min_samples)
        return cls.from_partition(
            dataset,
            [given[part] for part in parts],
            tiers=tiers,
            seed=seed,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            settings={"method": "by_identity", "min_samples": min_samples},
        )

    @classmethod
    def from_label_counts(
        cls,
        label_counts: ArrayLike,
        *,
        tiers: Sequence[Tier] = PAPER_TIERS,
        seed: int = 0,
        tier: ArrayLike | None = None,
        rate_bps: ArrayLike | None = None,
        names: Sequence[str] | None = None,
    ) -> Fleet:
        """Make a fleet from label counts (N, C) alone, to study groupings without images.

        ``tier`` (N,) and ``rate_bps`` (N,) are drawn from ``tiers`` with ``seed`` if not given.

        Raises
        ------
        ValueError
            If counts are negative or not whole numbers, or a length does not match.
        """
        counts = checked_counts(label_counts)
        clients = len(counts)
        drawn_tier, drawn_rate = draw_links(clients, tuple(tiers), seed)
        if tier is not None:
            drawn_tier = checked_tier(tier, clients, len(tiers))
            drawn_rate = draw_rates(drawn_tier, tuple(tiers), np.random.default_rng([seed, 1]))
        if rate_bps is not None:
            drawn_rate = checked_rates(rate_bps, clients)
        return cls(
            label_counts=counts,
            tier=drawn_tier,
            rate_bps=drawn_rate,
            tiers=tuple(tiers),
            names=checked_names(names, clients),
            settings={"method": "label_counts", "seed": seed},
        )

    @classmethod
    def from_scenario(
        cls,
        path: str | Path,
        dataset: Dataset | None = None,
        *,
        alpha: float = 0.3,
        seed: int = 0,
        server: str | None = None,
        tiers: Sequence[Tier] | None = None,
    ) -> Fleet:
        """Read names, tiers and links from a session file of CORE; see `Scenario.read`.

        A dataset is split over its clients as by `dirichlet`. Without one the fleet has the label
        counts that the file tells; if it tells none, each client has one sample of one same class.

        Raises
        ------
        ValueError
            If the file can't be read, or does not say which node is the server.
        """
        read = Scenario.read(path, tiers=tiers, server=server)
        if dataset is not None:
            return read.onto(cls.dirichlet(dataset, len(read), alpha, seed=seed))
        counts = read.label_counts
        return read.onto(
            cls.from_label_counts(np.ones((len(read), 1)) if counts is None else counts)
        )

    @classmethod
    def from_partition(
        cls,
        dataset: Dataset,
        parts: Sequence[NDArray[np.int64]],
        *,
        tiers: Sequence[Tier] = PAPER_TIERS,
        seed: int = 0,
        test_fraction: float = 0.25,
        validation_fraction: float = 0.0,
        settings: dict[str, Any] | None = None,
    ) -> Fleet:
        """Make one client of each part: indices into the dataset, int64.

        The other methods end here; ``settings`` says how the parts were made.

        Raises
        ------
        ValueError
            If there is no part, or a fraction is outside [0, 1).
        """
        if not parts:
            raise ValueError("parts is empty; at least one client is needed")
        splits = partition.three_way_split(
            parts,
            dataset.labels,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
        counts = np.stack(
            [np.bincount(dataset.labels[part], minlength=dataset.num_classes) for part in parts]
        ).astype(np.int64)
        tier, rate_bps = draw_links(len(parts), tuple(tiers), seed)
        return cls(
            label_counts=counts,
            tier=tier,
            rate_bps=rate_bps,
            tiers=tuple(tiers),
            names=checked_names(None, len(parts)),
            train_indices=tuple(train for train, _, _ in splits),
            validation_indices=tuple(validation for _, validation, _ in splits),
            test_indices=tuple(test for _, _, test in splits),
            settings={
                **(settings or {"method": "partition"}),
                "dataset": dataset.name,
                "clients": len(parts),
                "seed": seed,
                "validation_fraction": validation_fraction,
                "test_fraction": test_fraction,
            },
        )

    # ------------------------------------------------------------------ what it knows

    def __len__(self) -> int:
        return len(self.label_counts)

    @property
    def samples(self) -> NDArray[np.int64]:
        """Samples of each client, (N,) int64."""
        samples: NDArray[np.int64] = self.label_counts.sum(axis=1)
        return samples

    @property
    def train_samples(self) -> NDArray[np.int64]:
        """Training samples of each client, (N,) int64."""
        return np.array([len(part) for part in self.train_indices], dtype=np.int64)

    @property
    def test_samples(self) -> NDArray[np.int64]:
        """Test samples of each client, (N,) int64."""
        return np.array([len(part) for part in self.test_indices], dtype=np.int64)

    @property
    def validation_samples(self) -> NDArray[np.int64]:
        """Validation samples of each client, (N,) int64."""
        return np.array([len(part) for part in self.validation_indices], dtype=np.int64)

    @property
    def can_train(self) -> NDArray[np.bool_]:
        """Which clients have samples to train on, (N,) bool; the others take no part."""
        return (self.train_samples if self.train_indices else self.samples) > 0

    def index(self, client: int | str) -> int:
        """Return the row of a client, given by its row or its name.

        Raises
        ------
        KeyError
            If there is no such client.
        """
        if isinstance(client, str):
            try:
                return self.names.index(client)
            except ValueError:
                raise KeyError(f"no client {client!r}; there are {span_of(self.names)}") from None
        if not 0 <= client < len(self):
            raise KeyError(f"no client {client}; there are 0..{len(self) - 1}")
        return int(client)

    def with_rates(self, rate_bps: ArrayLike) -> Fleet:
        """Return the same fleet with other present link rates, (N,) in bit/s."""
        return replace(self, rate_bps=checked_rates(rate_bps, len(self)))

    def with_tiers(self, tiers: Sequence[Tier]) -> Fleet:
        """Return the same fleet with another table of as many tiers, its link rates drawn anew."""
        tier = checked_tier(self.tier, len(self), len(tiers))
        generator = np.random.default_rng([int(self.settings.get("seed", 0)), 1])
        return replace(self, tiers=tuple(tiers), rate_bps=draw_rates(tier, tiers, generator))

    def table(self) -> pd.DataFrame:
        """One row a client: name, tier, class, rate in Mbit/s, samples, classes present."""
        return fleet_output.table(self)

    def fingerprint(self) -> str:
        """Return a SHA-256 of everything that decides who has what data and which link."""
        return fleet_output.fingerprint(self)

    def _repr_html_(self) -> str:
        return fleet_output.html(self)
