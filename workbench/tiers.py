"""Tiers: named ranges of link rates, kept as data in ``core_scenarios/tiers``.

The 14 tiers of the NAFNAS experiments span 2.5 to 400 Mbit/s in the classes low, medium and
high. A table of one's own is one CSV file with the columns ``name, class, low_bps, high_bps,
step_bps``, read by `load_tiers`.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TierClass = Literal["low", "medium", "high"]
PositiveRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Tier:
    """A named range of link rates.

    A link of this tier has one of the rates ``low_bps, low_bps + step_bps, ..., high_bps``, each
    as likely as the others.
    """

    name: Annotated[str, Field(min_length=1, max_length=32)]
    tier_class: TierClass
    low_bps: PositiveRate
    high_bps: PositiveRate
    step_bps: PositiveRate

    @model_validator(mode="after")
    def _check_range(self) -> Tier:
        if self.high_bps < self.low_bps:
            raise ValueError(
                f"tier {self.name}: high_bps is {self.high_bps:g}, but must be at least "
                f"low_bps = {self.low_bps:g}"
            )
        return self

    @property
    def rates_bps(self) -> NDArray[np.float64]:
        """All rates of the tier in bit/s, ascending."""
        count = int((self.high_bps - self.low_bps) / self.step_bps + 1e-9) + 1
        return self.low_bps + self.step_bps * np.arange(count, dtype=np.float64)


def scenario_folder() -> Path:
    """Return the folder with the scenario data, beside the package or inside its wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "core_scenarios", package.parent / "core_scenarios"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"core_scenarios is neither in {package} nor beside it; install again")


def load_tiers(path: str | Path) -> tuple[Tier, ...]:
    """Read a table of tiers from a CSV file with one row a tier.

    Raises
    ------
    ValueError
        If a column is missing, a value is out of range, or a name occurs twice; the message
        names the file and the line.
    """
    path = Path(path)
    columns = ["name", "class", "low_bps", "high_bps", "step_bps"]
    tiers: list[Tier] = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(line for line in file if not line.startswith("#"))
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(f"{path}: columns {missing} are missing; needed are {columns}")
        for number, row in enumerate(reader, start=1):
            try:
                tier = Tier(
                    name=row["name"],
                    tier_class=row["class"],  # type: ignore[arg-type]  # pydantic checks it
                    low_bps=row["low_bps"],  # type: ignore[arg-type]
                    high_bps=row["high_bps"],  # type: ignore[arg-type]
                    step_bps=row["step_bps"],  # type: ignore[arg-type]
                )
            except ValueError as error:
                raise ValueError(f"{path}, tier {number}: {error}") from error
            if tier.name in {known.name for known in tiers}:
                raise ValueError(f"{path}, tier {number}: the name {tier.name!r} occurs twice")
            tiers.append(tier)
    if not tiers:
        raise ValueError(f"{path}: no tier found; needed is at least one row")
    return tuple(tiers)


def assign_tiers(
    clients: int, tiers: Sequence[Tier], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Give each client a tier at random, the same number of clients to each where that divides.

    What is left over goes to tiers spread evenly over the table, not to the slowest ones.

    Returns
    -------
    (clients,) int64, index into ``tiers``

    Raises
    ------
    ValueError
        If there is no tier.
    """
    if not tiers:
        raise ValueError("tiers is empty; at least one tier is needed")
    share, left = divmod(clients, len(tiers))
    extra = (2 * np.arange(left) + 1) * len(tiers) // (2 * max(left, 1))
    even = np.repeat(np.arange(len(tiers)), share)
    return generator.permutation(np.concatenate([even, extra]).astype(np.int64))


def draw_rates(
    tier: NDArray[np.int64], tiers: Sequence[Tier], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a rate for each client from its tier: one uniform number a client, in row order.

    Parameters
    ----------
    tier
        (N,) index into ``tiers``.
    tiers
        The tier table.
    generator
        Gives N uniform numbers, whatever the tiers are.

    Returns
    -------
    (N,) float64, bit/s
    """
    tables = [candidate.rates_bps for candidate in tiers]
    sizes = np.array([len(table) for table in tables])
    starts = np.cumsum(sizes) - sizes
    # random() is below 1, but its product with the size may round up to the size.
    steps = np.minimum(
        (generator.random(len(tier)) * sizes[tier]).astype(np.int64), sizes[tier] - 1
    )
    rates: NDArray[np.float64] = np.concatenate(tables)[starts[tier] + steps]
    return rates


PAPER_TIERS: tuple[Tier, ...] = load_tiers(scenario_folder() / "tiers" / "paper.csv")
"""The 14 tiers of the NAFNAS experiments, 2.5 to 400 Mbit/s, slowest first."""
