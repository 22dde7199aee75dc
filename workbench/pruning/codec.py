"""Model <-> bytes: an architecture as data, and its weights beside it."""

from __future__ import annotations

import torch

from workbench.pruning.assembly import DescribedNetwork, assemble, read_description
from workbench.pruning.description import describe

__all__ = ["MAX_BYTES", "build", "describe"]

MAX_BYTES = 4 * 2**30
"""Most bytes of a network, unless the caller says otherwise."""


def build(description: str, max_bytes: int = MAX_BYTES) -> DescribedNetwork:
    """Build a network from what `describe` wrote, with all weights zero.

    Its state dict has the keys of the network that was described, in the same order, and with
    the same shapes; with that network's weights loaded it computes the same, bit for bit.

    Parameters
    ----------
    description
        JSON text.
    max_bytes
        Most bytes that its state may have.

    Raises
    ------
    DescriptionError
        A ValueError; if the description is not one or asks for what is not allowed.
    """
    network = assemble(read_description(description), max_bytes)
    network.to_empty(device="cpu")
    with torch.no_grad():
        for value in network.state_dict(keep_vars=True).values():
            value.zero_()
    return network
