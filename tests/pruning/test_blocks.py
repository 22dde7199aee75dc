"""Any network is pruned without registration, or says why not."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.pruning.networks import DIFFICULT, PRUNABLE
from tests.pruning.oracles import counted_cost, images, outputs, shuffled, zeroed
from workbench import models
from workbench.pruning.blocks import find_blocks
from workbench.pruning.candidates import pruned
from workbench.pruning.cost import total_cost
from workbench.pruning.ties import tied_layers
from workbench.pruning.tracing import trace
from workbench.pruning.verification import verified

EVERYTHING = {
    **PRUNABLE,
    **{name: (factory, shape) for name, (factory, shape, _) in DIFFICULT.items()},
    "alexnet": (lambda: models.alexnet(width=0.1), (3, 32, 32)),
    "convnet": (lambda: models.convnet(width=0.2), (3, 64, 64)),
    "mobilenet": (lambda: models.mobilenet(10, width=0.1), (3, 32, 32)),
    "resnet20": (lambda: models.resnet20(width=0.5), (3, 32, 32)),
}


def some_units(block, generator):
    """Keep a random part of a block, at least one channel in each of its layers."""
    kept = generator.random(block.units) < generator.uniform(0.2, 0.9)
    for tie in block.producing:
        kept[tie.unit_of[generator.integers(len(tie.unit_of))]] = True
    if kept.all():
        kept[generator.integers(block.units)] = False
    for tie in block.producing:
        kept[tie.unit_of[0]] |= not kept[tie.unit_of].any()
    return kept


def check_pruning(model, input_shape, chosen, *, look_again=True):
    """The pruned network runs, is really smaller, costs what is said, and computes the same."""
    blocks = find_blocks(model, input_shape)
    smaller = pruned(model, blocks, chosen)
    batch = images(input_shape)
    expected = outputs(zeroed(model, chosen), batch)
    found = outputs(smaller, batch)
    assert [value.shape for value in found] == [value.shape for value in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    for block, kept in chosen:
        for tie in block.producing:
            before = model.get_submodule(tie.layer)
            after = smaller.get_submodule(tie.layer)
            assert after.weight.numel() < before.weight.numel()
            assert sum(kept[tie.unit_of]) == getattr(after, "out_channels", None) or sum(
                kept[tie.unit_of]
            ) == getattr(after, "out_features", None)
    assert counted_cost(smaller, input_shape) == total_cost(blocks.narrowed(chosen))
    if not look_again:
        return
    # What pruning says about the smaller network is what a fresh look at it finds.
    traced = trace(smaller, input_shape)
    fresh = verified(smaller, traced, tied_layers(smaller, traced))
    known = find_blocks(smaller, input_shape)
    assert traced.layers == known.trace.layers
    assert len(fresh) == len(known.all)
    for one, other in zip(fresh, known.all, strict=True):
        assert (one.layers, one.units, one.width) == (other.layers, other.units, other.width)
        assert one.reason == other.reason
        for left, right in zip(one.ties, other.ties, strict=True):
            assert (left.layer, left.axis) == (right.layer, right.axis)
            np.testing.assert_array_equal(left.unit_of, right.unit_of)


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_block_alone(name):
    factory, input_shape = EVERYTHING[name]
    torch.manual_seed(0)
    model = shuffled(factory())
    generator = np.random.default_rng(0)
    for block in find_blocks(model, input_shape).prunable:
        chosen = [(block, some_units(block, generator))]
        check_pruning(model, input_shape, chosen, look_again=False)


@pytest.mark.parametrize("name", EVERYTHING)
def test_all_blocks_together(name):
    factory, input_shape = EVERYTHING[name]
    torch.manual_seed(0)
    model = shuffled(factory())
    generator = np.random.default_rng(1)
    blocks = find_blocks(model, input_shape)
    if blocks.prunable:
        chosen = [(block, some_units(block, generator)) for block in blocks.prunable]
        check_pruning(model, input_shape, chosen)


@pytest.mark.parametrize("name", PRUNABLE)
def test_only_output_layers_are_left_alone(name):
    factory, input_shape = PRUNABLE[name]
    reasons = {block.reason for block in find_blocks(factory(), input_shape).all}
    assert reasons == {"", "output layer"}


@pytest.mark.parametrize("name", DIFFICULT)
def test_what_can_not_be_pruned_is_listed_with_the_reason(name):
    factory, input_shape, expected = DIFFICULT[name]
    model = factory()
    blocks = find_blocks(model, input_shape)
    assert {block.name for block in blocks.prunable} == expected
    table = blocks.table()
    assert (table.reason[~table.prunable] != "").all()
    assert (table.reason[table.prunable] == "").all()
    listed = {layer for layers in table.layers for layer in layers.split(", ")}
    for layer, module in model.named_modules():
        if any(value.numel() > 1 for value in module.parameters(recurse=False)):
            norm = isinstance(module, nn.modules.batchnorm._NormBase)
            assert norm or (layer or "(the network itself)") in listed


def test_reasons_say_what_is_wrong():
    def reasons(name):
        factory, input_shape, _ = DIFFICULT[name]
        table = find_blocks(factory(), input_shape).table()
        return dict(zip(table.block, table.reason, strict=True))

    assert "does not run without" in reasons("fixed view")["fixed"]
    assert "mean over channels" in reasons("channel shuffle")["shuffled"]
    assert "LayerNorm" in reasons("input residual")["hidden"]
    assert "forward pass does not use it" in reasons("input residual")["unused"]
    assert "scale, a tensor outside" in reasons("own parameter")["scaled"]
    assert "no formula" in reasons("attention")["query"]
    assert "outputs" in reasons("two outputs")["features"]
    assert reasons("two outputs")["other"] == "output layer"


def test_layers_tied_by_an_addition_are_one_block():
    factory, input_shape = PRUNABLE["residual"]
    layers = {block.layers for block in find_blocks(factory(), input_shape).prunable}
    assert layers == {("stem", "outer"), ("inner",), ("projection", "wide")}


def test_the_network_is_left_as_it_is():
    model = PRUNABLE["residual"][0]().train()
    model.inner.eval()
    before = copy.deepcopy(model.state_dict())
    find_blocks(model, PRUNABLE["residual"][1])
    assert model.training
    assert not model.inner.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(value.grad is None and value.requires_grad for value in model.parameters())


def test_a_changed_network_is_looked_at_again():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten())
    assert find_blocks(model, (3, 3, 3)).block("0").units == 8
    model[0], model[2] = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)
    assert find_blocks(model, (3, 3, 3)).block("0").units == 6


def test_wrong_input_shapes_are_refused():
    with pytest.raises(ValueError, match="input_shape"):
        find_blocks(models.alexnet(width=0.1), ())
    with pytest.raises(ValueError, match=r"does not run on an input of shape \(1, 4, 32, 32\)"):
        find_blocks(models.alexnet(width=0.1), (4, 32, 32))


def test_an_unknown_block_is_named():
    with pytest.raises(KeyError, match="no block 'nothing'"):
        find_blocks(models.alexnet(width=0.1), (3, 32, 32)).block("nothing")


class Drawn(nn.Module):
    """A network that hypothesis draws: stages of several kinds, one after the other."""

    def __init__(self, stages, head):
        super().__init__()
        self.kinds = [kind for kind, _, _ in stages]
        self.layers = nn.ModuleList()
        channels = 3
        for kind, drawn, norm in stages:
            width = {"residual": channels, "depthwise": channels, "grouped": channels * 2}.get(
                kind, drawn
            )
            groups = {"depthwise": channels, "grouped": max(1, channels // 2)}.get(kind, 1)
            kernel = 1 if kind in {"grouped", "dense"} else 3
            conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, groups=groups)
            channels = channels + width if kind == "dense" else width
            self.layers.append(
                nn.Sequential(conv, nn.BatchNorm2d(width) if norm else nn.Identity())
            )
        self.flat = head == "flat"
        self.head = nn.Linear(channels * (16 if self.flat else 1), 4)

    def forward(self, x):
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            y = layer(x)
            if kind == "residual":
                y = x + y
            elif kind == "dense":
                y = torch.cat([x, y], dim=1)
            x = functional.relu(y)
        x = functional.adaptive_avg_pool2d(x, 4 if self.flat else 1)
        return self.head(torch.flatten(x, 1))


stages = st.lists(
    st.tuples(
        st.sampled_from(["plain", "residual", "depthwise", "grouped", "dense"]),
        st.sampled_from([2, 4, 6]),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(stages=stages, head=st.sampled_from(["flat", "pooled"]), seed=st.integers(0, 99))
def test_networks_that_nobody_has_seen(stages, head, seed):
    torch.manual_seed(seed)
    # A first layer, so that what follows is tied to channels that a layer makes.
    model = shuffled(Drawn([("plain", 6, False), *stages], head), seed)
    generator = np.random.default_rng(seed)
    blocks = find_blocks(model, (3, 6, 6))
    assert blocks.prunable
    assert all(
        block.reason in {"", "output layer"} or "hang together" in block.reason
        for block in blocks.all
    )
    block = blocks.prunable[generator.integers(len(blocks.prunable))]
    check_pruning(model, (3, 6, 6), [(block, some_units(block, generator))])
