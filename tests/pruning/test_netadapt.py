"""The schedule, the candidates and the choice."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import nn

from tests.pruning.networks import PRUNABLE, InputResidual
from tests.pruning.oracles import counted_cost, deep_copy_and_slice, images, shuffled
from workbench import models
from workbench.pruning.codec import build, describe
from workbench.pruning.cost import Cost, cost_of
from workbench.pruning.netadapt import NetAdapt

SMALL = (3, 32, 32)


@pytest.fixture(scope="module")
def alexnet():
    return models.alexnet()


@pytest.fixture(scope="module")
def narrow():
    return models.alexnet(width=0.125)


# ---------------------------------------------------------------------- the published first step


def test_the_first_step_of_the_published_experiments(alexnet):
    netadapt = NetAdapt(step=0.05, conv_multiple=8, linear_multiple=8, budget=0.25)
    candidates = netadapt.propose(alexnet, SMALL)
    assert [candidate.width for candidate in candidates] == [40, 160, 336, 224, 216, 3248, 1352]
    assert {candidate.status for candidate in candidates} == {"ok"}
    # "at equal MACs they differ widely, 227 to 173 MB": every block saves in its own way.
    sizes = [candidate.cost.size_bytes for candidate in candidates]
    assert max(sizes) > 1.2 * min(sizes)
    target = 225_136_640 * 0.95
    assert all(0.9 * target < candidate.cost.macs <= target for candidate in candidates)


def test_default_multiples(alexnet):
    for candidate in NetAdapt().propose(alexnet, SMALL):
        multiple = 64 if candidate.block.startswith("classifier") else 8
        assert candidate.multiple == multiple
        assert candidate.width % multiple == 0


def test_candidates_are_the_obvious_ones():
    model = shuffled(models.alexnet(width=0.125))
    users = {
        "features.0": ("features.3", 1),
        "features.3": ("features.6", 1),
        "features.6": ("features.8", 1),
        "features.8": ("features.10", 1),
        "features.10": ("classifier.1", 36),
        "classifier.1": ("classifier.4", 1),
        "classifier.4": ("classifier.6", 1),
    }
    batch = images(SMALL)
    for candidate in NetAdapt(step=0.05).propose(model, SMALL):
        norms = model.get_submodule(candidate.block).weight.detach().flatten(1).norm(dim=1)
        best = norms.argsort(descending=True)[: candidate.width].sort().values
        assert candidate.kept[candidate.block].tolist() == best.tolist()
        plain = deep_copy_and_slice(model, candidate.block, best, *users[candidate.block])
        built = candidate.build()
        assert counted_cost(plain, SMALL) == candidate.cost
        for one, other in zip(plain.parameters(), built.parameters(), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(plain(batch), built(batch))


@pytest.mark.parametrize("name", PRUNABLE)
@pytest.mark.parametrize("resource", ["macs", "parameters", "size_bytes"])
def test_candidates_are_as_wide_as_the_target_allows(name, resource):
    factory, input_shape = PRUNABLE[name]
    model = factory()
    netadapt = NetAdapt(resource=resource, step=0.1, budget=0.2, conv_multiple=2, linear_multiple=4)
    current = cost_of(model, input_shape)
    target = current.of(resource) * 0.9
    for candidate in netadapt.propose(model, input_shape):
        built = candidate.build()
        assert counted_cost(built, input_shape) == candidate.cost
        assert candidate.target == pytest.approx(target)
        if candidate.usable:
            assert candidate.cost.of(resource) <= target
            saved = current.of(resource) - candidate.cost.of(resource)
            assert (candidate.status == "overshoots") == (saved > 0.2 * current.of(resource))
        else:
            assert candidate.cost.of(resource) > target


def test_the_widest_of_all_multiples_is_taken(narrow):
    netadapt = NetAdapt(step=0.05, conv_multiple=4, linear_multiple=8, relax_multiples=False)
    current = cost_of(narrow, SMALL)
    for candidate in netadapt.propose(narrow, SMALL):
        widest = narrow.get_submodule(candidate.block).weight.shape[0]
        multiple = 8 if candidate.block.startswith("classifier") else 4
        assert candidate.width % multiple == 0
        # one multiple more would miss the target
        norms = narrow.get_submodule(candidate.block).weight.detach().flatten(1).norm(dim=1)
        more = norms.argsort(descending=True)[: candidate.width + multiple].sort().values
        if candidate.width + multiple < widest:
            users = {"features.10": ("classifier.1", 36)}
            names = [*dict(narrow.named_modules())]
            layers = [n for n in names if hasattr(narrow.get_submodule(n), "weight")]
            user = users.get(candidate.block, (layers[layers.index(candidate.block) + 1], 1))
            wider = deep_copy_and_slice(narrow, candidate.block, more, *user)
            assert counted_cost(wider, SMALL).macs > current.macs * 0.95


# ---------------------------------------------------------------------- small layers


def test_multiples_never_eat_a_narrow_layer(narrow):
    for candidate in NetAdapt(step=0.025).propose(narrow, SMALL):
        before = narrow.get_submodule(candidate.block).weight.shape[0]
        assert candidate.status == "ok"
        assert before / 2 <= candidate.width < before


def test_multiples_are_kept_on_request(narrow):
    candidates = NetAdapt(step=0.025, relax_multiples=False).propose(narrow, SMALL)
    assert [candidate.status for candidate in candidates] == [
        *("out of reach", "overshoots", "overshoots", "overshoots", "overshoots"),
        *("ok", "ok"),
    ]
    # 8 filters and multiples of 8: there is nothing narrower, and nothing is built that is none.
    assert candidates[0].width == 8
    assert not candidates[0].usable
    assert cost_of(candidates[0].build(), SMALL) == cost_of(narrow, SMALL)


def test_a_block_that_can_not_reach_the_target_is_reported():
    candidates = NetAdapt(step=0.05).propose(models.convnet(), (3, 128, 128))
    assert [candidate.usable for candidate in candidates] == [True] * 5 + [False]
    assert candidates[-1].status == "out of reach"
    assert candidates[-1].width == 1
    assert candidates[-1].cost.macs > candidates[-1].target
    assert cost_of(candidates[-1].build(), (3, 128, 128)) == candidates[-1].cost


def test_the_last_step_lands_on_the_budget_without_odd_widths(alexnet):
    initial = cost_of(alexnet, SMALL)
    # Only a tenth of a percent is missing: a step of one multiple is more than twice that.
    netadapt = NetAdapt(step=0.05, budget=0.999)
    candidates = netadapt.propose(alexnet, SMALL, 1, initial)
    assert all(candidate.target == 0.999 * initial.macs for candidate in candidates)
    assert all(candidate.width % candidate.multiple == 0 for candidate in candidates)
    assert {candidate.multiple for candidate in candidates} == {8, 64}


# ---------------------------------------------------------------------- the schedule


def test_the_published_schedule():
    netadapt = NetAdapt(step=0.025, decay=0.96, budget=0.25)
    initial = Cost(macs=225_136_640, parameters=0, size_bytes=0)
    current = Cost(macs=180_000_000, parameters=0, size_bytes=0)
    for iteration in (1, 2, 7):
        expected = 180_000_000 - 0.025 * 225_136_640 * 0.96 ** (iteration - 1)
        assert netadapt.target(iteration, current, initial) == pytest.approx(expected, rel=1e-12)


def test_the_target_is_never_below_the_budget():
    netadapt = NetAdapt(step=0.1, budget=0.5)
    initial = Cost(macs=1000, parameters=1, size_bytes=1)
    assert netadapt.target(1, Cost(550, 1, 1), initial) == 500
    with pytest.raises(ValueError, match="iteration is 0"):
        netadapt.target(0, initial, initial)


def test_the_search_ends_at_the_budget_or_the_last_iteration():
    netadapt = NetAdapt(budget=0.5, iterations=3)
    initial = Cost(macs=1000, parameters=1, size_bytes=1)
    assert not netadapt.done(0, initial, initial)
    assert not netadapt.done(2, Cost(501, 1, 1), initial)
    assert netadapt.done(2, Cost(500, 1, 1), initial)
    assert netadapt.done(3, initial, initial)


def run_without_training(netadapt, model, input_shape, seed=0):
    """Take a random usable candidate in each iteration; return all costs."""
    generator = np.random.default_rng(seed)
    netadapt.check(model, input_shape)
    initial = netadapt.cost(model, input_shape)
    costs = [initial]
    while not netadapt.done(len(costs) - 1, costs[-1], initial):
        candidates = netadapt.propose(model, input_shape, len(costs), initial)
        usable = [candidate for candidate in candidates if candidate.usable]
        assert usable
        winner = usable[generator.integers(len(usable))]
        model = winner.build()
        costs.append(winner.cost)
    return model, costs


@pytest.mark.parametrize("name", ["alexnet", "mobilenet", "resnet20"])
def test_a_whole_run_meets_the_budget(name):
    factory = {
        "alexnet": lambda: models.alexnet(width=0.125),
        "mobilenet": lambda: models.mobilenet(10, width=0.25),
        "resnet20": models.resnet20,
    }[name]
    netadapt = NetAdapt(step=0.05, budget=0.5, iterations=100)
    model, costs = run_without_training(netadapt, factory(), SMALL)
    assert costs[-1].macs <= 0.5 * costs[0].macs
    assert costs[-2].macs > 0.5 * costs[0].macs
    assert counted_cost(model, SMALL) == costs[-1]
    assert model.eval()(images(SMALL)).shape == (3, 10)


def test_several_budgets_at_once():
    budget = {"macs": 0.7, "size_bytes": 0.5, "parameters": 0.6}
    netadapt = NetAdapt(step=0.05, budget=budget, iterations=100)
    _, costs = run_without_training(netadapt, models.alexnet(width=0.125), SMALL)
    initial, final = costs[0], costs[-1]
    for name, share in budget.items():
        assert final.of(name) <= share * initial.of(name)
    assert any(costs[-2].of(name) > share * initial.of(name) for name, share in budget.items())


def test_the_resource_furthest_above_its_budget_leads():
    netadapt = NetAdapt(budget={"macs": 0.5, "size_bytes": 0.6}, step=0.1)
    initial = Cost(macs=1000, parameters=1, size_bytes=1000)
    assert netadapt.leading(initial, initial) == "macs"
    assert netadapt.leading(Cost(600, 1, 900), initial) == "size_bytes"
    assert netadapt.target(1, Cost(600, 1, 900), initial) == 800
    assert not netadapt.done(1, Cost(500, 1, 601), initial)
    assert netadapt.done(1, Cost(500, 1, 600), initial)


# ---------------------------------------------------------------------- the choice


def candidates_with(narrow, count=3):
    return NetAdapt(step=0.05).propose(narrow, SMALL)[:count]


def test_selection_by_loss_per_resource(narrow):
    candidates = candidates_with(narrow)
    current = cost_of(narrow, SMALL)
    saved = [current.macs - candidate.cost.macs for candidate in candidates]
    accuracies = [0.70, 0.72, 0.69]
    ratios = [(0.75 - value) / part for value, part in zip(accuracies, saved, strict=True)]
    assert NetAdapt().select(candidates, accuracies, 0.75, current) == int(np.argmin(ratios))


def test_a_candidate_that_saves_more_may_lose_more(narrow):
    small, large = NetAdapt(step=0.05).propose(narrow, SMALL)[5], None
    large = NetAdapt(step=0.2).propose(narrow, SMALL)[5]
    current = cost_of(narrow, SMALL)
    assert NetAdapt().select([small, large], [0.70, 0.68], 0.72, current) == 1
    assert NetAdapt(selection="accuracy").select([small, large], [0.70, 0.68], 0.72, current) == 0


def test_those_that_dropped_out_are_not_selected(narrow):
    candidates = candidates_with(narrow)
    current = cost_of(narrow, SMALL)
    assert NetAdapt().select(candidates, [math.nan, 0.1, math.nan], 0.9, current) == 1
    with pytest.raises(ValueError, match="no candidate has an accuracy"):
        NetAdapt().select(candidates, [math.nan] * 3, 0.9, current)
    with pytest.raises(ValueError, match="3 candidates, but 2 accuracies"):
        NetAdapt().select(candidates, [0.1, 0.2], 0.9, current)


@settings(max_examples=50)
@given(accuracies=st.lists(st.floats(0, 1), min_size=3, max_size=3), before=st.floats(0.1, 1))
def test_the_winner_is_never_dominated(narrow, accuracies, before):
    candidates = candidates_with(narrow)
    current = cost_of(narrow, SMALL)
    winner = NetAdapt().select(candidates, accuracies, before, current)
    saved = [current.macs - candidate.cost.macs for candidate in candidates]
    for other in range(3):
        better = accuracies[other] > accuracies[winner] and saved[other] == saved[winner]
        assert not better


# ---------------------------------------------------------------------- building


def test_untouched_tensors_are_shared(alexnet):
    for candidate in NetAdapt().propose(alexnet, SMALL):
        built = candidate.build()
        for (name, one), other in zip(alexnet.named_parameters(), built.parameters(), strict=True):
            same = one.data_ptr() == other.data_ptr()
            assert same == (one.shape == other.shape), name


def test_building_leaves_the_network_alone(narrow):
    before = {key: value.clone() for key, value in narrow.state_dict().items()}
    built = [candidate.build() for candidate in NetAdapt().propose(narrow, SMALL)]
    for model in built:
        model.features[1] = nn.Identity()
        model.train()
    assert isinstance(narrow.features[1], nn.ReLU)
    assert all(torch.equal(value, before[key]) for key, value in narrow.state_dict().items())


def test_a_copy_of_a_candidate_can_be_trained(narrow):
    candidate = NetAdapt().propose(narrow, SMALL)[2]
    model = copy.deepcopy(candidate.build())
    before = narrow.features[0].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(images(SMALL)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.features[0].weight, before)
    assert torch.equal(narrow.features[0].weight, before)


@pytest.mark.parametrize("name", ["residual", "grouped", "u-net"])
def test_a_described_network_has_the_same_candidates(name):
    factory, input_shape = PRUNABLE[name]
    model = shuffled(factory())
    other = build(describe(model, input_shape))
    other.load_state_dict(model.state_dict())
    netadapt = NetAdapt(step=0.1, conv_multiple=2)
    batch = images(input_shape)
    for one, two in zip(
        netadapt.propose(model, input_shape), netadapt.propose(other, input_shape), strict=True
    ):
        assert (one.block, one.cost, one.status) == (two.block, two.cost, two.status)
        assert {key: value.tolist() for key, value in one.kept.items()} == {
            key: value.tolist() for key, value in two.kept.items()
        }
        assert torch.equal(one.build()(batch), two.build()(batch))


# ---------------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0}, "step"),
        ({"step": 1.5}, "step"),
        ({"decay": 0}, "decay"),
        ({"decay": 1.1}, "decay"),
        ({"budget": 0}, "budget of macs is 0"),
        ({"budget": 1}, "budget of macs is 1"),
        ({"budget": float("nan")}, "budget of macs is nan"),
        ({"budget": {"macs": 0.5, "size_bytes": 2}}, "budget of size_bytes is 2"),
        ({"budget": {"size_bytes": 0.5}}, "resource is 'macs', but budget names only"),
        ({"budget": {}}, "resource is 'macs', but budget names only"),
        ({"budget": {"energy": 0.5}}, "budget"),
        ({"resource": "energy"}, "resource"),
        ({"iterations": 0}, "iterations"),
        ({"conv_multiple": 0}, "conv_multiple"),
        ({"linear_multiple": -8}, "linear_multiple"),
        ({"max_overshoot": 0.5}, "max_overshoot"),
        ({"ranking": "best"}, "ranking is 'best', but must be one of"),
        ({"selection": "luck"}, "selection"),
        ({"seed": -1}, "seed"),
        ({"latency_batch_size": 0}, "latency_batch_size"),
        ({"steps": 0.1}, "steps"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        NetAdapt(**arguments)


def test_settings_survive_json():
    adapter = TypeAdapter(NetAdapt)
    for netadapt in (NetAdapt(), NetAdapt(budget={"macs": 0.5, "size_bytes": 0.6}, ranking="l1")):
        assert adapter.validate_json(adapter.dump_json(netadapt)) == netadapt


def test_a_budget_that_can_not_be_met_is_refused_before_any_work():
    with pytest.raises(ValueError, match=r"budget of macs is 1e-05 .* still needs"):
        NetAdapt(budget=1e-5).check(models.alexnet(width=0.125), SMALL)
    NetAdapt(budget=0.05).check(models.alexnet(width=0.125), SMALL)


def test_multiples_count_when_they_are_kept(narrow):
    NetAdapt(budget=0.1).check(narrow, SMALL)
    with pytest.raises(ValueError, match=r"budget of macs is 0\.1"):
        NetAdapt(budget=0.1, relax_multiples=False).check(narrow, SMALL)


def test_a_network_without_blocks_is_refused():
    with pytest.raises(ValueError, match="no block of this network can be pruned"):
        NetAdapt().check(InputResidual(), (3, 8, 8))
