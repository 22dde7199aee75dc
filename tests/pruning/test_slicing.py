"""Slicing tensors, copying networks, and memory that is used again."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from workbench.pruning import buffers, slicing
from workbench.pruning.buffers import BufferPool
from workbench.pruning.cloning import clone_sharing_tensors
from workbench.pruning.slicing import take


@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    repeat=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_take_is_numpy_indexing(shape, repeat, seed):
    generator = np.random.default_rng(seed)
    # Every second dimension is flattened from channels and places, as a linear layer's input is.
    shape[1] *= repeat
    array = generator.random(shape)
    units = np.flatnonzero(generator.random(shape[1] // repeat) < 0.6)
    index = (units[:, None] * repeat + np.arange(repeat)).ravel()
    rows = np.flatnonzero(generator.random(shape[0]) < 0.6)
    cuts = [(0, rows), (1, index)] if seed % 2 else [(1, index)]
    if not len(index) or not len(rows):
        return
    expected = array[rows][:, index] if seed % 2 else array[:, index]
    found = take(torch.from_numpy(array), cuts)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert found.is_contiguous()


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 6))
def test_run_length_cuts_where_the_index_does(keep, repeat):
    index = np.flatnonzero(np.repeat(keep, repeat))
    if not len(index):
        return
    run = slicing._run_length(index, len(keep) * repeat)
    assert run % repeat == 0
    starts = index[::run]
    np.testing.assert_array_equal((starts[:, None] + np.arange(run)).ravel(), index)
    assert not (starts % run).any()


# ---------------------------------------------------------------------- buffers


def test_a_buffer_comes_back_when_its_tensor_is_gone(monkeypatch):
    monkeypatch.setattr(buffers, "SMALLEST", 8)
    pool = BufferPool(limit_bytes=10_000)
    tensor = pool.empty((10, 10), torch.float32)
    address = tensor.data_ptr()
    view = tensor[3:]  # somebody still looks at a part of it
    del tensor
    gc.collect()
    assert pool.idle_bytes == 0
    del view
    gc.collect()
    assert pool.idle_bytes == 400
    again = pool.empty((9, 11), torch.float32)
    assert again.data_ptr() == address
    assert again.shape == (9, 11)
    assert pool.idle_bytes == 0


def test_live_tensors_never_share_memory(monkeypatch):
    monkeypatch.setattr(buffers, "SMALLEST", 8)
    pool = BufferPool(limit_bytes=100_000)
    generator = np.random.default_rng(0)
    live: list[tuple[torch.Tensor, int]] = []
    for number in range(300):
        tensor = pool.empty((int(generator.integers(1, 40)), 5), torch.float32)
        tensor.fill_(number)
        live.append((tensor, number))
        if generator.random() < 0.6:
            live.pop(int(generator.integers(len(live))))
        del tensor
        assert all(bool((kept == value).all()) for kept, value in live)


def test_idle_memory_is_limited(monkeypatch):
    monkeypatch.setattr(buffers, "SMALLEST", 8)
    pool = BufferPool(limit_bytes=1000)
    tensors = [pool.empty((100,), torch.float32) for _ in range(5)]
    del tensors
    gc.collect()
    assert pool.idle_bytes == 800
    pool.clear()
    assert pool.idle_bytes == 0


def test_a_much_larger_buffer_is_not_wasted(monkeypatch):
    monkeypatch.setattr(buffers, "SMALLEST", 8)
    pool = BufferPool(limit_bytes=10_000)
    large = pool.empty((1000,), torch.float32)
    del large
    gc.collect()
    small = pool.empty((100,), torch.float32)
    assert small.untyped_storage().nbytes() == 400
    assert pool.idle_bytes == 4000


# ---------------------------------------------------------------------- copies


class Odd(nn.Module):
    """Holds what networks hold: lists of modules, tensors that are no buffers, settings."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.order = [self.layers[1], self.layers[0]]
        self.scale = torch.tensor([2.0, 3.0, 4.0])
        self.register_buffer("offset", torch.ones(3), persistent=False)
        self.settings = {"power": 2, "names": ["a", "b"]}

    def forward(self, x):
        for layer in self.order:
            x = layer(x) * self.scale + self.offset
        return x ** self.settings["power"]


def test_a_clone_shares_tensors_and_nothing_else():
    model = Odd().eval()
    clone = clone_sharing_tensors(model)
    assert type(clone) is Odd
    assert not clone.training
    x = torch.randn(2, 3)
    assert torch.equal(clone(x), model(x))
    for one, other in zip(model.parameters(), clone.parameters(), strict=True):
        assert one is other
    assert clone.offset is model.offset
    assert clone.order[0] is clone.layers[1]
    assert clone.layers[0] is not model.layers[0]
    clone.settings["power"] = 3
    clone.settings["names"].append("c")
    clone.layers[0] = nn.Identity()
    clone.scale += 1
    assert model.settings == {"power": 2, "names": ["a", "b"]}
    assert isinstance(model.layers[0], nn.Linear)
    assert model.scale.tolist() == [2, 3, 4]
    assert list(clone.state_dict()) != list(model.state_dict())


def test_hooks_are_copied():
    model, calls = nn.Linear(2, 2), []
    model.register_forward_hook(lambda *_: calls.append(1))
    clone_sharing_tensors(model)(torch.zeros(1, 2))
    assert calls == [1]


class Stubborn(nn.Module):
    """Has an own idea of how it is copied."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.copies = 0

    def forward(self, x):
        return self.layer(x)

    def __deepcopy__(self, memo):
        copied = Stubborn()
        copied.layer = copy.deepcopy(self.layer, memo)
        copied.copies = self.copies + 1
        return copied


def test_a_class_that_copies_itself_is_asked():
    model = Stubborn()
    clone = clone_sharing_tensors(model)
    assert clone.copies == 1
    assert clone.layer.weight is model.layer.weight


@pytest.mark.parametrize("tied", [True, False])
def test_shared_modules_stay_shared(tied):
    first = nn.Linear(2, 2)
    model = nn.Sequential(first, nn.ReLU(), first if tied else nn.Linear(2, 2))
    clone = clone_sharing_tensors(model)
    assert (clone[0] is clone[2]) == tied
