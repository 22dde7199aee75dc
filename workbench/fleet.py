"""The fleet: every client's samples, label counts, tier and link rate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.data import partition
from workbench.tiers import PAPER_TIERS, Tier, draw_rates

if TYPE_CHECKING:
    from collections.abc import Sequence

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
            If ``alpha`` is not positive, ``test_fraction`` is outside [0, 1), or there are more
            clients than samples.
        """
        given = dataset.client_indices
        parts = partition.dirichlet(dataset.labels[given], clients, alpha, seed=seed)
        return cls._from_parts(
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
        """Split a dataset evenly and at random over clients."""
        given = dataset.client_indices
        parts = partition.iid(len(given), clients, seed=seed)
        return cls._from_parts(
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
        """Make one client of each identity (person, writer) with at least ``min_samples``."""
        owners = dataset.identity if identity is None else np.asarray(identity)
        if owners is None:
            raise ValueError(f"{dataset.name} names nobody; identity must say whose each image is")
        if owners.shape != dataset.labels.shape:
            raise ValueError(f"identity must have the shape ({len(dataset)},), got {owners.shape}")
        given = dataset.client_indices
        parts = partition.by_identity(owners[given], min_samples=min_samples)
        return cls._from_parts(
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
        counts = _checked_counts(label_counts)
        clients = len(counts)
        drawn_tier, drawn_rate = _draw_links(clients, tuple(tiers), seed)
        if tier is not None:
            drawn_tier = np.asarray(tier, dtype=np.int64)
            _check_shape("tier", drawn_tier, clients)
            if drawn_tier.size and not (drawn_tier.min() >= 0 and drawn_tier.max() < len(tiers)):
                raise ValueError(f"tier must lie in 0..{len(tiers) - 1}, got {drawn_tier.tolist()}")
            drawn_rate = draw_rates(drawn_tier, tuple(tiers), np.random.default_rng([seed, 1]))
        if rate_bps is not None:
            drawn_rate = _checked_rates(rate_bps, clients)
        return cls(
            label_counts=counts,
            tier=drawn_tier,
            rate_bps=drawn_rate,
            tiers=tuple(tiers),
            names=_checked_names(names, clients),
            settings={"method": "label_counts", "seed": seed},
        )

    @classmethod
    def _from_parts(
        cls,
        dataset: Dataset,
        parts: list[NDArray[np.int64]],
        *,
        tiers: Sequence[Tier],
        seed: int,
        validation_fraction: float,
        test_fraction: float,
        settings: dict[str, Any],
    ) -> Fleet:
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
        tier, rate_bps = _draw_links(len(parts), tuple(tiers), seed)
        return cls(
            label_counts=counts,
            tier=tier,
            rate_bps=rate_bps,
            tiers=tuple(tiers),
            names=_checked_names(None, len(parts)),
            train_indices=tuple(train for train, _, _ in splits),
            validation_indices=tuple(validation for _, validation, _ in splits),
            test_indices=tuple(test for _, _, test in splits),
            settings={
                **settings,
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
                raise KeyError(f"no client {client!r}; there are {_span(self.names)}") from None
        if not 0 <= client < len(self):
            raise KeyError(f"no client {client}; there are 0..{len(self) - 1}")
        return int(client)

    def with_rates(self, rate_bps: ArrayLike) -> Fleet:
        """Return the same fleet with other present link rates, (N,) in bit/s."""
        return replace(self, rate_bps=_checked_rates(rate_bps, len(self)))

    def table(self) -> pd.DataFrame:
        """One row a client: name, tier, class, rate in Mbit/s, samples, classes present."""
        return pd.DataFrame(
            {
                "client": list(self.names),
                "tier": [self.tiers[index].name for index in self.tier],
                "class": [self.tiers[index].tier_class for index in self.tier],
                "rate_mbit_s": self.rate_bps / 1e6,
                "samples": self.samples,
                "classes": (self.label_counts > 0).sum(axis=1),
            }
        )

    def fingerprint(self) -> str:
        """Return a SHA-256 of everything that decides who has what data and which link."""
        digest = hashlib.sha256()
        for array in (self.label_counts, self.tier, self.rate_bps):
            digest.update(np.ascontiguousarray(array).tobytes())
        for part in (*self.train_indices, *self.validation_indices, *self.test_indices):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update("\n".join(self.names).encode())
        digest.update(repr(self.tiers).encode())
        return digest.hexdigest()

    def _repr_html_(self) -> str:
        made = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        rates = self.rate_bps / 1e6
        return (
            f"<p><b>Fleet</b> of {len(self)} clients, {int(self.samples.sum()):,} samples, links "
            f"{rates.min():g} to {rates.max():g} Mbit/s ({made})</p>"
            + self.table().head(10).to_html(index=False, float_format="{:.1f}".format)
            + (f"<p>… and {len(self) - 10} more</p>" if len(self) > 10 else "")
        )


def _draw_links(
    clients: int, tiers: tuple[Tier, ...], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give each client a tier, as evenly as the number divides, and a rate of that tier."""
    if not tiers:
        raise ValueError("tiers is empty; at least one tier is needed")
    generator = np.random.default_rng([seed, 0])
    # What is left after the even share goes to tiers spread over the whole table, not to the
    # slowest ones.
    even, left = divmod(clients, len(tiers))
    extra = np.linspace(0, len(tiers) - 1, left).round().astype(np.int64)
    tier = generator.permutation(
        np.concatenate([np.repeat(np.arange(len(tiers), dtype=np.int64), even), extra])
    )
    return tier, draw_rates(tier, tiers, np.random.default_rng([seed, 1]))


def _checked_counts(label_counts: ArrayLike) -> NDArray[np.int64]:
    counts = np.asarray(label_counts, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] == 0 or counts.shape[1] == 0:
        raise ValueError(f"label_counts must have the shape (clients, classes), got {counts.shape}")
    bad = ~np.isfinite(counts) | (counts < 0) | (counts != np.floor(counts))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"label_counts[{row}, {column}] is {counts[row, column]:g}; "
            "counts are whole numbers from 0 up"
        )
    return counts.astype(np.int64)


def _checked_rates(rate_bps: ArrayLike, clients: int) -> NDArray[np.float64]:
    rates = np.array(rate_bps, dtype=np.float64)
    _check_shape("rate_bps", rates, clients)
    bad = ~np.isfinite(rates) | (rates < 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"rate_bps[{row}] is {rates[row]}; rates are finite numbers from 0 up")
    return rates


def _check_shape(name: str, array: NDArray[Any], clients: int) -> None:
    if array.shape != (clients,):
        raise ValueError(f"{name} must have the shape ({clients},), got {array.shape}")


def _checked_names(names: Sequence[str] | None, clients: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"client-{row}" for row in range(clients))
    if len(names) != clients or len(set(names)) != clients:
        raise ValueError(f"names must be {clients} different names, got {list(names)}")
    return tuple(names)


def _span(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
