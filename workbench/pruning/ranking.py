"""Which filters go first: a score for each unit of a block, the lowest is removed first.

A ranking is a function from the filters of one layer (channels, elements) to a score for each of
them (channels,). Where several layers are tied, the scores of the filters that go together are
added up. The published systems rank by the L2 norm of a filter.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from workbench.pruning.layers import Layer
    from workbench.pruning.structure import Block

LARGE = 2**20
"""From this many elements on the filters of a layer are measured by several threads."""
Ranking = Callable[[torch.Tensor], torch.Tensor]


def l2(filters: torch.Tensor) -> torch.Tensor:
    """Squared L2 norm of each filter (channels, elements) -> (channels,)."""
    # Squares add up over tied layers to the square of the norm of all their filters together.
    if filters.device.type != "cpu" or filters.dtype not in {torch.float32, torch.float64}:
        return filters.float().square().sum(dim=1)
    rows = filters.numpy()
    if rows.size < LARGE or torch.get_num_threads() == 1:
        return torch.from_numpy(np.vecdot(rows, rows))
    # Each row is summed by one thread in one order, so the number of threads changes no digit.
    parts = np.array_split(rows, torch.get_num_threads())
    with ThreadPoolExecutor(len(parts)) as threads:
        sums = list(threads.map(lambda part: np.vecdot(part, part), parts))
    return torch.from_numpy(np.concatenate(sums))


def l1(filters: torch.Tensor) -> torch.Tensor:
    """L1 norm of each filter (channels, elements) -> (channels,)."""
    norms: torch.Tensor = torch.linalg.vector_norm(filters, ord=1, dim=1)
    return norms


_RANKINGS: dict[str, Ranking] = {"l2": l2, "l1": l1}


def ranking_names() -> tuple[str, ...]:
    """Return the names of all rankings that `NetAdapt` knows."""
    return (*_RANKINGS, "random")


def register_ranking(name: str, ranking: Ranking) -> None:
    """Give a ranking of one's own a name that ``NetAdapt(ranking=name)`` understands.

    A name, and not the function itself, is what a run's config can hold.

    Raises
    ------
    ValueError
        If the name is taken by a built-in ranking.
    """
    if name in {"l2", "l1", "random"}:
        raise ValueError(f"the name {name!r} is taken; choose one besides l2, l1, random")
    _RANKINGS[name] = ranking


def unit_scores(
    model: nn.Module,
    layers: dict[str, Layer],
    block: Block,
    ranking: str,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Score the units of a block, (units,) float64; the lowest goes first.

    Raises
    ------
    ValueError
        If the ranking is unknown or gives scores of the wrong shape or not finite.
    """
    if ranking == "random":
        return generator.random(block.units)
    if ranking not in _RANKINGS:
        raise ValueError(f"ranking is {ranking!r}, but must be one of {ranking_names()}")
    scores = np.zeros(block.units, dtype=np.float64)
    for tie in block.producing:
        filters = _filters(model.get_submodule(tie.layer), layers[tie.layer])
        with torch.no_grad():
            given = _RANKINGS[ranking](filters)
        weights = given.double().cpu().numpy()
        if weights.shape != (len(filters),) or not np.isfinite(weights).all():
            raise ValueError(
                f"ranking {ranking!r} must give a finite score for each of the {len(filters)} "
                f"filters of {tie.layer}, but gave shape {tuple(given.shape)}"
            )
        scores += np.bincount(tie.unit_of, weights=weights, minlength=block.units)
    return scores


def keep_order(block: Block, scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order the units of a block, the one to be kept longest first.

    Every tied layer's best unit comes before all others, so that none of them loses its last
    channel.
    """
    order = np.argsort(-scores, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(block.units)
    best = {int(np.min(place[tie.unit_of])) for tie in block.producing}
    first = np.array(sorted(best), dtype=np.int64)
    return np.concatenate([order[first], np.delete(order, first)])


def _filters(module: nn.Module, layer: Layer) -> torch.Tensor:
    weight = module.get_parameter("weight").detach()
    if layer.kind == "transposed":
        # (in, out / groups, ...) -> (groups, out / groups, in / groups, elements)
        split = weight.reshape(layer.groups, -1, layer.out_channels // layer.groups, layer.kernel)
        weight = split.transpose(1, 2)
        return weight.reshape(layer.out_channels, -1)
    return weight.flatten(1)
