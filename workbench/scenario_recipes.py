"""The scenarios that are shipped, as recipes: the fleet that each is made from.

Their files in ``core_scenarios`` are written by ``python -m workbench scenario`` and by nothing
else; a test writes them again and compares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workbench.data import partition
from workbench.fleet import Fleet
from workbench.scenario import Scenario
from workbench.tiers import PAPER_TIERS, load_tiers, scenario_folder

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.scenario import NodeKind


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """A fleet without images: as many samples in every class, split as by `Fleet.dirichlet`.

    Parameters
    ----------
    clients
        Number of clients.
    alpha, seed
        Of the split and of the links.
    samples, classes
        Size of the imagined data set; those of CIFAR-10 by default.
    tiers
        A CSV file with a table of tiers; the paper's if empty.
    """

    clients: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0)] = 0.3
    seed: Annotated[int, Field(ge=0)] = 7
    samples: Annotated[int, Field(ge=1)] = 60_000
    classes: Annotated[int, Field(ge=1)] = 10
    tiers: str = ""

    def fleet(self) -> Fleet:
        """Return the fleet; the same recipe gives the same one."""
        labels = np.arange(self.samples, dtype=np.int64) % self.classes
        parts = partition.dirichlet(labels, self.clients, self.alpha, seed=self.seed)
        counts = np.stack([np.bincount(labels[part], minlength=self.classes) for part in parts])
        tiers = load_tiers(self.tiers) if self.tiers else PAPER_TIERS
        return Fleet.from_label_counts(counts, tiers=tiers, seed=self.seed)


SHIPPED = {
    "nafnas-56": Recipe(clients=56),
    "nafnas-210": Recipe(clients=210),
    "teaching-7": Recipe(clients=7),
}


def write_shipped(folder: Path | None = None) -> list[Path]:
    """Write all shipped scenarios and return their paths."""
    folder = folder or scenario_folder()
    return [write(recipe, folder / f"{name}.xml") for name, recipe in SHIPPED.items()]


def write(recipe: Recipe, path: Path, node: NodeKind = "namespace", image: str = "") -> Path:
    """Write the scenario of a recipe and return its path."""
    return Scenario.of(recipe.fleet(), node, image).write(path)
