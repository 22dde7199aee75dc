"""What a network costs: MACs, parameters, bytes on the wire, latency.

A multiply-accumulate operation (MAC) is half of what torch's flop counter calls two flops, and
the numbers agree with it to the digit. Costs of narrower versions of a network are formulas; see
`block_costs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.pruning.blocks import Blocks, find_blocks
from workbench.pruning.latency import SegmentTimes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from workbench.pruning.latency import LatencyTable
    from workbench.pruning.layers import Axis
    from workbench.pruning.structure import Block, IntArray

Resource = Literal["macs", "parameters", "size_bytes", "latency"]
RESOURCES: tuple[Resource, ...] = ("macs", "parameters", "size_bytes", "latency")


@dataclass(frozen=True)
class Cost:
    """What one network costs.

    Attributes
    ----------
    macs
        Multiply-accumulate operations for one sample.
    parameters
        Trainable numbers.
    size_bytes
        Bytes of all tensors in the state dict: what a link carries.
    latency_s
        Seconds for one batch on this machine, or None where nobody asked.
    """

    macs: int
    parameters: int
    size_bytes: int
    latency_s: float | None = None

    def of(self, resource: Resource) -> float:
        """Return the amount of one resource.

        Raises
        ------
        ValueError
            If the resource is unknown, or is latency and was not measured.
        """
        if resource not in RESOURCES:
            raise ValueError(f"resource is {resource!r}, but must be one of {RESOURCES}")
        if resource == "latency":
            if self.latency_s is None:
                raise ValueError("this cost has no latency; ask for it when the cost is taken")
            return self.latency_s
        return float(getattr(self, resource))


@dataclass(frozen=True, eq=False)
class BlockCosts:
    """What a network costs with 1, 2, ..., n units of one block kept, (units,) each."""

    macs: NDArray[np.int64]
    parameters: NDArray[np.int64]
    size_bytes: NDArray[np.int64]
    latency_s: NDArray[np.float64] | None = None

    def at(self, units: int) -> Cost:
        """Return the cost with that many units kept."""
        index = units - 1
        return Cost(
            int(self.macs[index]),
            int(self.parameters[index]),
            int(self.size_bytes[index]),
            None if self.latency_s is None else float(self.latency_s[index]),
        )

    def of(self, resource: Resource) -> NDArray[np.float64]:
        """Return the amounts of one resource, (units,) float64."""
        name = "latency_s" if resource == "latency" else resource
        amounts: NDArray[Any] = getattr(self, name)
        return amounts.astype(np.float64)


def cost_of(
    model: nn.Module, input_shape: Sequence[int], latency: LatencyTable | None = None
) -> Cost:
    """Return what a network costs.

    Parameters
    ----------
    model
        The network.
    input_shape
        Shape of one sample without the batch, such as (3, 32, 32).
    latency
        Table to take the latency from; what it lacks is measured.

    Raises
    ------
    ValueError
        If the network does not run on an input of that shape.
    """
    blocks = find_blocks(model, input_shape)
    if latency is None:
        return total_cost(blocks)
    return total_cost(blocks, SegmentTimes.of(model, blocks.trace, latency))


def total_cost(blocks: Blocks, times: SegmentTimes | None = None) -> Cost:
    """Return what a network with these blocks costs."""
    layers = blocks.trace.layers.values()
    widths = [(layer, layer.in_channels, layer.out_channels) for layer in layers]
    return Cost(
        macs=blocks.trace.other_macs + sum(int(layer.macs(i, o)) for layer, i, o in widths),
        parameters=blocks.trace.other_parameters
        + sum(int(layer.parameters(i, o)) for layer, i, o in widths),
        size_bytes=blocks.trace.other_bytes
        + sum(int(layer.size_bytes(i, o)) for layer, i, o in widths),
        latency_s=None if times is None else times.total(),
    )


def block_costs(
    blocks: Blocks,
    block: Block,
    widths: dict[tuple[str, Axis], IntArray],
    times: SegmentTimes | None = None,
) -> BlockCosts:
    """Price a network with the first 1, 2, ..., n units of one block kept, all in closed form.

    Parameters
    ----------
    blocks
        The network's blocks.
    block
        The one of them that is pruned.
    widths
        What `Block.widths` returned.
    times
        Where the latency comes from, if anybody wants it.
    """
    total = total_cost(blocks)
    macs = np.full(block.units, total.macs, dtype=np.int64)
    parameters = np.full(block.units, total.parameters, dtype=np.int64)
    size_bytes = np.full(block.units, total.size_bytes, dtype=np.int64)
    for name in dict.fromkeys(name for name, _ in widths):
        layer = blocks.trace.layers[name]
        before = (layer.in_channels, layer.out_channels)
        after = (widths.get((name, "in"), before[0]), widths.get((name, "out"), before[1]))
        macs += layer.macs(*after) - layer.macs(*before)
        parameters += layer.parameters(*after) - layer.parameters(*before)
        size_bytes += layer.size_bytes(*after) - layer.size_bytes(*before)
    latency_s = None if times is None else times.with_widths(widths)
    return BlockCosts(macs, parameters, size_bytes, latency_s)
