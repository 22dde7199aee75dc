"""The baseline: one factor for all widths."""

from __future__ import annotations

import pytest
import torch

from tests.pruning.oracles import counted_cost, images
from workbench import models
from workbench.pruning.multipliers import WidthMultiplier

SHAPE = (3, 32, 32)


def test_every_block_keeps_the_same_share():
    model = models.alexnet(width=0.25)
    thin = WidthMultiplier().scale(model, SHAPE, 0.5)
    for name, width in thin.widths.items():
        assert width == model.get_submodule(name).weight.shape[0] // 2
    assert counted_cost(thin.build(), SHAPE) == thin.cost


def test_a_thin_network_has_the_widths_of_a_thin_zoo_model():
    thin = WidthMultiplier().scale(models.mobilenet(10), (3, 64, 64), 0.5)
    assert thin.cost == counted_cost(models.mobilenet(10, width=0.5), (3, 64, 64))
    assert thin.build().eval()(images((3, 64, 64))).shape == (3, 10)


@pytest.mark.parametrize("resource", ["macs", "parameters", "size_bytes"])
@pytest.mark.parametrize("budget", [0.9, 0.5, 0.2])
def test_the_widest_that_meets_the_budget(resource, budget):
    model = models.resnet20()
    multiplier = WidthMultiplier(resource=resource)
    initial = multiplier.scale(model, SHAPE, 1.0).cost
    thin = multiplier.meet(model, SHAPE, budget)
    assert thin.cost.of(resource) <= budget * initial.of(resource)
    wider = multiplier.scale(model, SHAPE, thin.multiplier + 1 / 64)
    assert wider.cost.of(resource) > budget * initial.of(resource)


def test_multiples():
    model = models.alexnet()
    widths = WidthMultiplier(multiple=8).scale(model, SHAPE, 0.7).widths
    assert all(width % 8 == 0 for width in widths.values())


def test_the_filters_with_the_largest_norm_stay():
    model = models.convnet(width=0.25)
    thin = WidthMultiplier().scale(model, (3, 64, 64), 0.5).build()
    norms = model.features[0].weight.detach().flatten(1).norm(dim=1)
    best = norms.argsort(descending=True)[:4].sort().values
    assert torch.equal(thin.features[0].weight, model.features[0].weight[best])


def test_wrong_values_are_named():
    model = models.alexnet(width=0.1)
    with pytest.raises(ValueError, match="multiplier is 0"):
        WidthMultiplier().scale(model, SHAPE, 0)
    with pytest.raises(ValueError, match=r"budget is 1\.5"):
        WidthMultiplier().meet(model, SHAPE, 1.5)
    with pytest.raises(ValueError, match=r"budget of macs is 1e-06 .* still needs"):
        WidthMultiplier().meet(model, SHAPE, 1e-6)
