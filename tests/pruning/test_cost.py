"""Costs in closed form against torch's own counters."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from tests.pruning.networks import DIFFICULT, PRUNABLE, Attention
from tests.pruning.oracles import counted_cost, shuffled
from workbench import models
from workbench.pruning.blocks import find_blocks
from workbench.pruning.candidates import pruned
from workbench.pruning.cost import Cost, block_costs, cost_of

NETWORKS = {
    **{name: entry[:2] for name, entry in {**PRUNABLE, **DIFFICULT}.items()},
    "alexnet": (lambda: models.alexnet(width=0.1), (3, 32, 32)),
    "mobilenet": (lambda: models.mobilenet(10, width=0.1), (3, 32, 32)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_what_torch_counts(name):
    factory, input_shape = NETWORKS[name]
    model = factory()
    assert cost_of(model, input_shape) == counted_cost(model, input_shape)


def test_bytes_follow_the_element_type():
    single = cost_of(models.convnet(width=0.1), (3, 32, 32))
    double = cost_of(models.convnet(width=0.1).double(), (3, 32, 32))
    assert double.size_bytes == 2 * single.size_bytes
    assert double.macs == single.macs


@pytest.mark.parametrize(
    "name", ["residual", "concatenation", "tied concatenation", "grouped", "u-net", "alexnet"]
)
def test_every_width_has_the_cost_of_the_network_that_is_built(name):
    factory, input_shape = NETWORKS[name]
    model = shuffled(factory())
    blocks = find_blocks(model, input_shape)
    generator = np.random.default_rng(0)
    for block in blocks.prunable:
        order = generator.permutation(block.units)
        costs = block_costs(blocks, block, block.widths(order))
        for units in {1, block.units // 3 + 1, block.units // 2 + 1, block.units - 1}:
            kept = np.zeros(block.units, dtype=bool)
            kept[order[:units]] = True
            if all(kept[tie.unit_of].any() for tie in block.producing):
                smaller = pruned(model, blocks, [(block, kept)])
                assert costs.at(units) == counted_cost(smaller, input_shape)


def test_operations_outside_of_layers_are_counted():
    model = Attention()
    layers = 5 * (6 * 8 * 2 + 6 * 10) + 10 * 3
    products = 5 * 5 * 8 + 5 * 5 * 10
    assert cost_of(model, (5, 6)).macs == layers + products


def test_a_shared_weight_counts_once_as_parameters_but_travels_twice():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    cost = cost_of(nn.Sequential(first, nn.ReLU(), second), (4,))
    assert cost == Cost(macs=32, parameters=16, size_bytes=4 * 32)


def test_resources_by_name():
    cost = Cost(macs=1, parameters=2, size_bytes=3)
    assert [cost.of(name) for name in ("macs", "parameters", "size_bytes")] == [1, 2, 3]
    with pytest.raises(ValueError, match="has no latency"):
        cost.of("latency")
    with pytest.raises(ValueError, match="'energy', but must be one of"):
        cost.of("energy")
