"""How large a reproduction is: the settings of each profile, and how long the full one takes.

There is one scale for each of the papers' three settings and each profile, and every notebook that
reproduces something of that setting takes it: nothing is chosen for a single table.
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Setting = Literal["nafnas", "celeba", "imagenet"]
Profile = Literal["smoke", "laptop", "paper"]

GPU_MACS_PER_S = 5e12
"""What the estimate for the full settings assumes of a GPU: multiply-accumulates a second in the
training of networks of this kind, in single precision; a guess, and not measured."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Scale:
    """The size of a reproduction.

    Parameters
    ----------
    dataset
        What is learnt.
    samples
        Images that are used, drawn at random; 0 takes all.
    image_size
        Height and width in pixels.
    clients
        Number of clients; 0 makes one of each person with at least 5 images (CelebA).
    width
        Factor for the filters of every layer of the network.
    server_fraction
        Share of the images with which the server trains the initial network; no client has them.
    pretrain_epochs
        How often the server goes over them.
    rounds
        Rounds a candidate gets, where the rounds are not dynamic.
    local_epochs, batch_size, learning_rate
        Of training, at the clients and at the server.
    step, iterations
        Of NetAdapt.
    tune_rounds
        Rounds of federated tuning of a network that was found.
    groups
        Groups of clients; 0 makes one for each candidate.
    most_rounds
        Bound of the rounds of an iteration, where they are dynamic; 0 takes them as published.
    """

    dataset: Literal["digits", "cifar10", "celeba", "imagenet"]
    samples: int = Field(ge=0)
    image_size: int = Field(ge=8)
    clients: int = Field(ge=0)
    width: float = Field(gt=0, allow_inf_nan=False)
    server_fraction: float = Field(gt=0, lt=1)
    pretrain_epochs: int = Field(ge=1)
    rounds: int = Field(ge=1)
    local_epochs: int = Field(ge=1)
    batch_size: int = Field(ge=0)
    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    step: float = Field(gt=0, lt=1)
    iterations: int = Field(ge=1)
    tune_rounds: int = Field(ge=1)
    groups: int = Field(ge=0)
    most_rounds: int = Field(default=0, ge=0)


_PAPER: dict[Setting, Scale] = {
    "nafnas": Scale(
        dataset="cifar10", samples=0, image_size=32, clients=56, width=1.0, server_fraction=0.1,
        pretrain_epochs=20, rounds=20, local_epochs=10, batch_size=128, learning_rate=0.001,
        step=0.025, iterations=15, tune_rounds=50, groups=0,
    ),
    "celeba": Scale(
        dataset="celeba", samples=0, image_size=128, clients=0, width=1.0, server_fraction=0.1,
        pretrain_epochs=20, rounds=10, local_epochs=1, batch_size=32, learning_rate=0.01,
        step=0.05, iterations=40, tune_rounds=50, groups=20,
    ),
    "imagenet": Scale(
        dataset="imagenet", samples=0, image_size=224, clients=1500, width=1.0,
        server_fraction=0.1, pretrain_epochs=20, rounds=20, local_epochs=1, batch_size=32,
        learning_rate=0.01, step=0.05, iterations=20, tune_rounds=50, groups=15,
    ),
}  # fmt: skip

_LAPTOP: dict[Setting, Scale] = {
    "nafnas": replace(
        _PAPER["nafnas"], samples=10_000, width=0.125, server_fraction=0.2, rounds=2,
        local_epochs=1, batch_size=32, learning_rate=0.01, tune_rounds=10,
    ),
    "celeba": replace(
        _PAPER["celeba"], samples=6_000, image_size=32, clients=200, width=0.5,
        server_fraction=0.3, pretrain_epochs=40, rounds=8, batch_size=8, iterations=15,
        tune_rounds=5,
    ),
    # 2,000 images of ImageNet at 64 pixels are too few for MobileNet (25%, and 15% after the
    # search). CIFAR-10 at this size is hardly better: 23%, and guessing after the search.
    "imagenet": replace(
        _PAPER["imagenet"], dataset="cifar10", samples=4_000, image_size=32, clients=100,
        width=0.25, server_fraction=0.3, step=0.1, iterations=6, tune_rounds=5,
    ),
}  # fmt: skip

_SMOKE: dict[Setting, Scale] = {
    "nafnas": replace(
        _LAPTOP["nafnas"], dataset="digits", samples=500, clients=14, width=0.0625,
        pretrain_epochs=2, rounds=1, iterations=2, tune_rounds=1,
    ),
    "celeba": replace(
        _LAPTOP["celeba"], dataset="digits", samples=400, clients=24, width=0.125,
        pretrain_epochs=2, rounds=2, step=0.2, iterations=2, tune_rounds=1,
    ),
    "imagenet": replace(
        _LAPTOP["imagenet"], dataset="digits", samples=300, image_size=32, clients=30, width=0.1,
        pretrain_epochs=2, rounds=2, iterations=1, tune_rounds=1, most_rounds=2,
    ),
}  # fmt: skip

_PROFILES: dict[Profile, dict[Setting, Scale]] = {
    "smoke": _SMOKE,
    "laptop": _LAPTOP,
    "paper": _PAPER,
}

_CANDIDATES: dict[Setting, int] = {"nafnas": 7, "celeba": 6, "imagenet": 14}
_MACS: dict[Setting, float] = {"nafnas": 225e6, "celeba": 303e6, "imagenet": 569e6}
_TRAINING_IMAGES: dict[Setting, float] = {"nafnas": 40_500, "celeba": 120_000, "imagenet": 823_500}


def scale(setting: Setting, profile: Profile, **changes: Any) -> Scale:  # noqa: ANN401
    """Return the scale of a setting in a profile.

    ``changes`` that are None are left out, so that a notebook can pass on parameters that nobody
    gave.

    Raises
    ------
    ValueError
        If a name is unknown, or a value out of range.
    """
    for name, value, allowed in (
        ("setting", setting, get_args(Setting)),
        ("profile", profile, get_args(Profile)),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}")
    known = {field.name for field in fields(Scale)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(f"there is no {unknown[0]} in a scale; there are {sorted(known)}")
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(_PROFILES[profile][setting], **given)


def differences(setting: Setting, chosen: Scale) -> dict[str, tuple[Any, Any]]:
    """Return what differs from the paper's setting: name to (paper's value, value here)."""
    published, here = asdict(_PAPER[setting]), asdict(chosen)
    return {name: (published[name], here[name]) for name in here if published[name] != here[name]}


def paper_hours(searches: dict[str, float]) -> float:
    """Estimate how long full reproductions take on one GPU, in hours.

    Parameters
    ----------
    searches
        For each setting how many whole searches without dropping there are; what costs a share of
        one counts as that share.

    Each of a search's iterations trains every candidate on its group's part of the training
    images, ``local_epochs`` times a round; a backward pass counts as two forward passes.
    """
    total = 0.0
    for name, number in searches.items():
        (setting,) = (each for each in get_args(Setting) if each == name)
        full = _PAPER[setting]
        passes = full.rounds * full.iterations
        share = _CANDIDATES[setting] / (full.groups or _CANDIDATES[setting])
        samples = _TRAINING_IMAGES[setting] * full.local_epochs
        # Networks shrink on the way; three quarters of the initial one is their mean.
        searching = passes * share * samples * 0.75
        tuning = full.tune_rounds * samples * 0.5
        total += number * (searching + tuning) * 3 * _MACS[setting]
    return total / GPU_MACS_PER_S / 3600
