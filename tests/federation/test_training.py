"""Local training: the same as a plain loop, chance from the seed alone, FedProx's gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.federation.conftest import network
from workbench.federation import training
from workbench.federation.training import LocalSettings, batches

SETTINGS = LocalSettings(
    local_epochs=2,
    batch_size=8,
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=1e-3,
    proximal=0.0,
    seed=5,
)


def samples(n: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 1, 32, 32, generator=generator)
    return images, torch.randint(0, 10, (n,), generator=generator)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def test_equals_a_plain_loop_bit_for_bit() -> None:
    images, labels = samples()
    model, plain = network(), network()
    training.train(model, images, labels, SETTINGS)
    order = np.random.default_rng(SETTINGS.seed)
    optimizer = torch.optim.SGD(
        plain.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, fused=True
    )
    plain.train()
    with torch.random.fork_rng():
        torch.manual_seed(SETTINGS.seed)
        for _ in range(2):
            rows = torch.from_numpy(order.permutation(30))
            for batch in rows.split(8):
                optimizer.zero_grad()
                inputs = images[batch].contiguous(memory_format=torch.channels_last)
                nn.functional.cross_entropy(plain(inputs), labels[batch]).backward()
                optimizer.step()
    assert torch.equal(weights(model), weights(plain))


def test_large_networks_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = samples()
    settings = replace(SETTINGS, proximal=0.1)
    whole, piecewise = network(), network()
    training.train(whole, images, labels, settings)
    monkeypatch.setattr(training, "_LARGE_BYTES", 0)
    training.train(piecewise, images, labels, settings)
    assert torch.equal(weights(whole), weights(piecewise))
    assert all(parameter.grad is None for parameter in piecewise.parameters())
    assert not any(parameter._post_accumulate_grad_hooks for parameter in piecewise.parameters())


def test_chance_comes_from_the_seed_alone() -> None:
    images, labels = samples()
    results = []
    for global_seed, seed in ((1, 5), (2, 5), (1, 6)):
        model = network()
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        training.train(model, images, labels, replace(SETTINGS, seed=seed))
        assert torch.equal(before, torch.random.get_rng_state())
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_proximal_term_is_in_the_gradient() -> None:
    images, labels = samples(8)
    settings = replace(
        SETTINGS, batch_size=0, momentum=0.0, weight_decay=0.0, proximal=0.7, learning_rate=0.1
    )
    model, plain = network(norm=False), network(norm=False)
    training.train(model, images, labels, settings)
    start = [parameter.detach().clone() for parameter in plain.parameters()]
    for _ in range(2):
        loss = nn.functional.cross_entropy(plain(images), labels)
        loss = loss + 0.35 * sum(
            ((p - s) ** 2).sum() for p, s in zip(plain.parameters(), start, strict=True)
        )
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(plain.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=0.1)
    torch.testing.assert_close(weights(model), weights(plain), rtol=0, atol=1e-6)


def test_a_test_changes_nothing() -> None:
    images, labels = samples()
    model = network()
    before = weights(model)
    result = training.test(model, images, labels)
    assert torch.equal(before, weights(model))
    model.eval()
    assert result.correct == int((model(images).argmax(1) == labels).sum())
    assert result.samples == 30
    expected = float(nn.functional.cross_entropy(model(images), labels, reduction="sum").detach())
    assert result.loss_sum == pytest.approx(expected)


def test_every_sample_is_in_one_batch_an_epoch() -> None:
    for n, size, whole, sizes in (
        (10, 4, False, [4, 4, 2]),
        (9, 4, False, [4, 4, 1]),
        (9, 4, True, [4, 5]),
        (1, 4, True, [1]),
        (7, 0, True, [7]),
        (0, 4, True, [0]),
    ):
        found = list(batches(n, size, np.random.default_rng(0), whole=whole))
        assert [len(batch) for batch in found] == sizes
        assert sorted(np.concatenate([*found, np.empty(0, int)]).tolist()) == list(range(n))


def test_a_trailing_sample_does_not_break_batch_norm() -> None:
    images, labels = samples(9)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 4), nn.BatchNorm1d(4), nn.Linear(4, 10))
    loss = training.train(model, images, labels, SETTINGS)
    assert np.isfinite(loss)
