"""Which filters go first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.pruning.networks import PRUNABLE
from workbench import models
from workbench.pruning import ranking
from workbench.pruning.blocks import find_blocks
from workbench.pruning.netadapt import NetAdapt
from workbench.pruning.ranking import keep_order, register_ranking, unit_scores


def scores_of(model, input_shape, block, name, seed=0):
    blocks = find_blocks(model, input_shape)
    return unit_scores(
        model, blocks.trace.layers, blocks.block(block), name, np.random.default_rng(seed)
    )


def test_l2_and_l1_are_the_norms_of_filters(monkeypatch):
    model = models.alexnet(width=0.1)
    filters = model.features[3].weight.detach().flatten(1).double()
    shape = (3, 32, 32)
    for large in (ranking.LARGE, 10):  # by one thread, and by several
        monkeypatch.setattr(ranking, "LARGE", large)
        l2 = scores_of(model, shape, "features.3", "l2")
        np.testing.assert_allclose(np.sqrt(l2), filters.norm(dim=1), rtol=1e-5)
    l1 = scores_of(model, shape, "features.3", "l1")
    np.testing.assert_allclose(l1, filters.abs().sum(dim=1), rtol=1e-5)


def test_several_threads_change_no_digit(monkeypatch):
    filters = torch.randn(101, 333)
    alone = ranking.l2(filters)
    monkeypatch.setattr(ranking, "LARGE", 10)
    assert torch.equal(ranking.l2(filters), alone)


def test_other_element_types_are_ranked_too():
    filters = torch.randn(7, 30)
    expected = filters.square().sum(dim=1)
    torch.testing.assert_close(ranking.l2(filters.bfloat16()), expected, rtol=0.05, atol=0)
    torch.testing.assert_close(ranking.l2(filters.double()).float(), expected)


def test_tied_filters_add_up():
    model = PRUNABLE["residual"][0]()
    scores = scores_of(model, (3, 16, 16), "stem", "l2")
    expected = sum(
        model.get_submodule(name).weight.detach().flatten(1).square().sum(dim=1)
        for name in ("stem", "outer")
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_filters_of_transposed_convolutions():
    model = PRUNABLE["u-net"][0]()
    # (in, out / groups): the filter of output 5 is place 1 of group 1, with inputs 4 to 7.
    scores = scores_of(model, (3, 16, 16), "mix", "l2")
    weight = model.mix.weight.detach()
    expected = [
        sum(weight[g * 4 : g * 4 + 4, p].square().sum() for g in range(3)) for p in range(4)
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_random_depends_on_its_seed_and_iteration():
    model = models.alexnet(width=0.1)

    def kept(seed, iteration):
        netadapt = NetAdapt(ranking="random", seed=seed, step=0.1)
        return netadapt.propose(model, (3, 32, 32), iteration)[2].kept["features.6"].tolist()

    assert kept(1, 1) == kept(1, 1)
    assert kept(1, 1) != kept(2, 1)
    assert kept(1, 1) != kept(1, 2)


def test_a_ranking_of_ones_own(monkeypatch):
    monkeypatch.setattr(ranking, "_RANKINGS", dict(ranking._RANKINGS))
    with pytest.raises(ValueError, match="ranking is 'first weight'"):
        NetAdapt(ranking="first weight")
    register_ranking("first weight", lambda filters: filters[:, 0])
    model = models.convnet(width=0.25)
    candidate = NetAdapt(ranking="first weight", step=0.1).propose(model, (3, 64, 64))[0]
    first = model.features[0].weight.detach().flatten(1)[:, 0]
    best = torch.topk(first, candidate.width).indices.sort().values
    assert candidate.kept["features.0"].tolist() == best.tolist()


@pytest.mark.parametrize(
    "broken",
    [lambda filters: filters[:-1, 0], lambda filters: filters, lambda filters: filters[:, 0] / 0],
)
def test_a_broken_ranking_is_refused(monkeypatch, broken):
    monkeypatch.setattr(ranking, "_RANKINGS", dict(ranking._RANKINGS))
    register_ranking("broken", broken)
    with pytest.raises(ValueError, match="ranking 'broken' must give a finite score for each"):
        NetAdapt(ranking="broken").propose(models.convnet(width=0.25), (3, 64, 64))


def test_names_of_built_in_rankings_are_taken():
    with pytest.raises(ValueError, match="'l2' is taken"):
        register_ranking("l2", ranking.l1)


def test_no_tied_layer_loses_its_last_channel():
    model = PRUNABLE["tied concatenation"][0]()
    with torch.no_grad():
        model.left.weight.zero_()  # its channels are worth least, and would all go first
        model.both.weight[:8] = 0
    block = find_blocks(model, (3, 12, 12)).block("left")
    order = keep_order(block, scores_of(model, (3, 12, 12), "left", "l2"))
    widths = block.widths(order)
    assert widths["left", "out"][2] >= 1
    assert sorted(order) == list(range(block.units))


def test_ties_go_to_the_first_channel():
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Conv2d(6, 2, 1))
    nn.init.ones_(model[0].weight)
    block = find_blocks(model, (2, 3, 3)).block("0")
    scores = scores_of(model, (2, 3, 3), "0", "l2")
    assert keep_order(block, scores).tolist() == [0, 1, 2, 3, 4, 5]
