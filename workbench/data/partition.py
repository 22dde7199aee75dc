"""Who holds which samples: splits of a data set over clients, each with its own seed.

Every function returns one array of sample indices per client, ascending and int64; no sample is
given twice. A client may end up with no sample at all, and then takes no part in training.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

# Each purpose draws from a stream of its own, so that equal seeds do not make two of them alike.
_DIRICHLET, _IID, _SPLIT = 10, 11, 12


def dirichlet(
    labels: ArrayLike, clients: int, alpha: float, *, seed: int
) -> list[NDArray[np.int64]]:
    """Split each class over the clients in shares drawn from a symmetric Dirichlet(alpha).

    This is the partition of Yurochkin et al. (ICML 2019) and of the NAFNAS experiments: for each
    class, N shares are drawn that add up to 1, and its shuffled samples are cut accordingly.
    Clients differ in size as well as in label distribution.

    Parameters
    ----------
    labels
        (n,) class of each sample.
    clients
        Number of clients N, from 1 to n.
    alpha
        Concentration, above 0: 0.1 gives each client few classes, 100 makes clients alike.
    seed
        Whole number from 0 up.

    Raises
    ------
    ValueError
        If ``alpha`` is not a finite number above 0, or there are more clients than samples.
    """
    classes = _checked_labels(labels)
    _check_clients(clients, len(classes))
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha is {alpha}, but must be a finite number above 0")
    generator = _generator(seed, _DIRICHLET)
    owner = np.empty(len(classes), dtype=np.int64)
    for label in np.unique(classes):
        members = generator.permutation(np.flatnonzero(classes == label))
        shares = _shares(generator, clients, alpha)
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        owner[members] = np.searchsorted(cuts, np.arange(len(members)), side="right")
    return _members(owner, clients)


def iid(samples: int, clients: int, *, seed: int) -> list[NDArray[np.int64]]:
    """Split ``samples`` samples at random into parts whose sizes differ by one at most.

    Raises
    ------
    ValueError
        If there are more clients than samples.
    """
    _check_clients(clients, samples)
    order = _generator(seed, _IID).permutation(samples)
    return [np.sort(part).astype(np.int64) for part in np.array_split(order, clients)]


def by_identity(identity: ArrayLike, *, min_samples: int = 5) -> list[NDArray[np.int64]]:
    """Make one client of each identity that has at least ``min_samples`` samples.

    This is the partition of CelebA in LEAF (Caldas et al., 2018) and DecNAS. Clients are ordered
    by identity; samples of smaller identities belong to nobody.

    Parameters
    ----------
    identity
        (n,) whole numbers or strings: to whom each sample belongs.
    min_samples
        From 1 up.

    Raises
    ------
    ValueError
        If no identity has enough samples.
    """
    owners = np.asarray(identity)
    if owners.ndim != 1:
        raise ValueError(f"identity must have the shape (samples,), got {owners.shape}")
    if min_samples < 1:
        raise ValueError(f"min_samples is {min_samples}, but must be at least 1")
    _, owner, counts = np.unique(owners, return_inverse=True, return_counts=True)
    large = np.flatnonzero(counts >= min_samples)
    if not large.size:
        raise ValueError(
            f"no identity has min_samples = {min_samples} samples; "
            f"the largest has {counts.max(initial=0)}"
        )
    parts = _members(owner.astype(np.int64), len(counts))
    return [parts[index] for index in large]


def train_test_split(
    parts: Sequence[NDArray[np.int64]], labels: ArrayLike, *, test_fraction: float, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Cut each client's samples into training and test samples; see `three_way_split`."""
    splits = three_way_split(
        parts, labels, validation_fraction=0.0, test_fraction=test_fraction, seed=seed
    )
    return [(train, test) for train, _, test in splits]


def three_way_split(
    parts: Sequence[NDArray[np.int64]],
    labels: ArrayLike,
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Cut each client's samples into training, validation and test samples.

    The samples of each class are spread evenly over the three. A client of two samples or more
    gets at least one test sample if ``test_fraction`` is above 0, and one of three or more at
    least one validation sample if ``validation_fraction`` is; a single sample is for training.
    What a client gets depends on ``seed``, its row and its own samples only.

    Returns
    -------
    list of (train, validation, test)
        Ascending int64 indices, one tuple a client.

    Raises
    ------
    ValueError
        If a fraction is outside [0, 1), or the two together leave nothing for training.
    """
    for name, fraction in (
        ("validation_fraction", validation_fraction),
        ("test_fraction", test_fraction),
    ):
        if not 0 <= fraction < 1:
            raise ValueError(f"{name} is {fraction}, but must be at least 0 and below 1")
    if validation_fraction + test_fraction >= 1:
        raise ValueError(
            f"validation_fraction {validation_fraction} and test_fraction {test_fraction} "
            "leave nothing for training; together they must be below 1"
        )
    classes = _checked_labels(labels)
    splits = []
    for row, part in enumerate(parts):
        samples = np.asarray(part, dtype=np.int64)
        generator = _generator(seed, _SPLIT, row)
        both = validation_fraction > 0 and len(samples) > 2
        test = _share_of(len(samples), test_fraction, keep=2 if both else 1)
        validation = _share_of(len(samples), validation_fraction, keep=1 + test)
        rest, tested = _draw_evenly(samples, classes[samples], test, generator)
        train, validated = _draw_evenly(rest, classes[rest], validation, generator)
        splits.append((train, validated, tested))
    return splits


def _share_of(samples: int, fraction: float, *, keep: int) -> int:
    """Return how many of ``samples`` make up a fraction, leaving at least ``keep``."""
    if fraction == 0:
        return 0
    wanted = max(1, math.floor(samples * fraction + 0.5))
    return max(0, min(wanted, samples - keep))


def _draw_evenly(
    samples: NDArray[np.int64],
    classes: NDArray[np.int64],
    count: int,
    generator: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw ``count`` samples, of each class its share up to rounding; return (rest, drawn)."""
    shuffled = generator.permutation(len(samples))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    # Every (n / count)-th sample of the list sorted by class, from a random beginning on.
    step = len(samples) / max(count, 1)
    picked = np.floor((np.arange(count) + generator.random()) * step).astype(np.int64)
    drawn = np.zeros(len(samples), dtype=bool)
    drawn[by_class[np.minimum(picked, len(samples) - 1)]] = True
    return np.sort(samples[~drawn]), np.sort(samples[drawn])


def _shares(generator: np.random.Generator, clients: int, alpha: float) -> NDArray[np.float64]:
    shares = generator.dirichlet(np.full(clients, alpha))
    if not math.isclose(float(shares.sum()), 1.0, rel_tol=1e-6):
        # So small an alpha underflows; its limit is all of the class on one client.
        shares = np.zeros(clients)
        shares[generator.integers(clients)] = 1.0
    return shares


def _members(owner: NDArray[np.int64], clients: int) -> list[NDArray[np.int64]]:
    """Turn the owner of each sample into the samples of each owner, ascending."""
    order = np.argsort(owner, kind="stable").astype(np.int64)
    ends = np.cumsum(np.bincount(owner, minlength=clients))[:-1]
    return np.split(order, ends)


def _checked_labels(labels: ArrayLike) -> NDArray[np.int64]:
    classes: NDArray[Any] = np.asarray(labels)
    if classes.ndim != 1 or (classes.size and not np.issubdtype(classes.dtype, np.integer)):
        raise ValueError(
            "labels must be whole numbers of the shape (samples,), "
            f"got {classes.dtype} {classes.shape}"
        )
    return classes.astype(np.int64)


def _check_clients(clients: int, samples: int) -> None:
    if clients < 1:
        raise ValueError(f"clients is {clients}, but must be at least 1")
    if clients > samples:
        raise ValueError(f"clients is {clients}, but there are only {samples} samples")


def _generator(seed: int, *stream: int) -> np.random.Generator:
    if seed < 0:
        raise ValueError(f"seed is {seed}, but must be a whole number from 0 up")
    return np.random.default_rng([seed, *stream])
