"""Latency from a table: interpolated in closed form, kept on disk, and true to the whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from torch import nn

from tests.pruning.networks import PRUNABLE
from workbench import models
from workbench.pruning import latency, segments
from workbench.pruning.blocks import find_blocks
from workbench.pruning.cost import block_costs, cost_of
from workbench.pruning.latency import Grid, LatencyTable, SegmentTimes, measured_latency
from workbench.pruning.netadapt import NetAdapt
from workbench.pruning.segments import segments_of
from workbench.pruning.tracing import trace

SHAPE = (3, 32, 32)


@pytest.fixture
def formula(monkeypatch, tmp_path):
    """A machine on which every segment takes a time that is a formula of its widths."""
    calls = []

    def seconds(segment, inputs, outputs, batch_size, repeats):  # noqa: ARG001
        calls.append((segment.key, inputs, outputs))
        return 1e-6 * (2 + 0.5 * inputs + 0.25 * outputs + 0.01 * inputs * outputs) * batch_size

    monkeypatch.setattr(segments.Segment, "seconds", seconds)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(latency, "_SHARED", {})
    return calls


@given(
    inputs=st.lists(st.integers(1, 100), min_size=2, max_size=5, unique=True),
    outputs=st.lists(st.integers(1, 100), min_size=2, max_size=5, unique=True),
    seed=st.integers(0, 99),
)
def test_interpolation_is_bilinear(inputs, outputs, seed):
    generator = np.random.default_rng(seed)
    rows, columns = np.array(sorted(inputs)), np.array(sorted(outputs))
    seconds = 1 + generator.random((len(rows), len(columns)))
    one = generator.integers(rows[0], rows[-1] + 1, 20)
    other = generator.integers(columns[0], columns[-1] + 1, 20)
    expected = RegularGridInterpolator((rows, columns), seconds)(np.stack([one, other], axis=1))
    np.testing.assert_allclose(Grid(rows, columns, seconds).at(one, other), expected)


def test_nothing_takes_no_time():
    grid = Grid(np.array([10, 20]), np.array([1]), np.array([[1.0], [9.0]]))
    assert grid.at(1, 1) == 0.5  # the line would be far below zero


@pytest.mark.usefixtures("formula")
def test_a_table_of_a_formula_gives_the_formula(tmp_path):
    model = models.alexnet(width=0.25)
    table = LatencyTable.load(folder=tmp_path)
    assert table.measure(model, SHAPE, progress=False) > 0
    expected = sum(
        1e-6 * (2 + 0.5 * i + 0.25 * o + 0.01 * i * o)
        for i, o in (segment.widths for segment in segments_of(model, trace(model, SHAPE)))
    )
    assert table.predict(model, SHAPE) == pytest.approx(expected)


@pytest.mark.usefixtures("formula")
@pytest.mark.parametrize("name", ["alexnet", "mobilenet", "resnet20", *PRUNABLE])
def test_every_width_costs_what_the_network_that_is_built_costs(name, tmp_path):
    zoo = {
        "alexnet": (lambda: models.alexnet(width=0.1), SHAPE),
        "mobilenet": (lambda: models.mobilenet(10, width=0.1), SHAPE),
        "resnet20": (lambda: models.resnet20(width=0.5), SHAPE),
    }
    factory, input_shape = {**PRUNABLE, **zoo}[name]
    model = factory()
    table = LatencyTable.load(folder=tmp_path)
    netadapt = NetAdapt(step=0.1, conv_multiple=2)
    times = SegmentTimes.of(model, trace(model, input_shape), table)
    blocks = find_blocks(model, input_shape)
    for candidate in netadapt.propose(model, input_shape):
        block = blocks.block(candidate.block)
        order = np.argsort(~candidate._units, kind="stable")
        costs = block_costs(blocks, block, block.widths(order), times)
        built = cost_of(candidate.build(), input_shape, table)
        kept = int(candidate._units.sum())
        assert costs.at(kept).latency_s == pytest.approx(built.latency_s, rel=1e-9)


@pytest.mark.usefixtures("formula")
def test_a_search_by_latency_meets_its_budget():
    model = models.alexnet(width=0.25)
    netadapt = NetAdapt(resource="latency", budget=0.6, step=0.1, iterations=50)
    netadapt.check(model, SHAPE)
    initial = netadapt.cost(model, SHAPE)
    current, iteration = initial, 0
    while not netadapt.done(iteration, current, initial):
        iteration += 1
        candidates = netadapt.propose(model, SHAPE, iteration, initial)
        usable = [candidate for candidate in candidates if candidate.usable]
        winner = min(usable, key=lambda candidate: candidate.cost.parameters)
        assert winner.cost.latency_s <= winner.target
        model, current = winner.build(), winner.cost
        assert netadapt.cost(model, SHAPE).latency_s == pytest.approx(current.latency_s)
    assert current.latency_s <= 0.6 * initial.latency_s
    with pytest.raises(ValueError, match=r"budget of latency is 0\.0001"):
        NetAdapt(resource="latency", budget=1e-4).check(model, SHAPE)


@pytest.mark.usefixtures("formula")
def test_latency_beside_macs():
    netadapt = NetAdapt(budget={"macs": 0.5, "latency": 0.9})
    cost = netadapt.cost(models.alexnet(width=0.1), SHAPE)
    assert cost.latency_s > 0
    assert netadapt.leading(cost, cost) == "macs"
    assert NetAdapt().cost(models.alexnet(width=0.1), SHAPE).latency_s is None


def test_the_table_is_kept_and_used_again(formula, tmp_path):
    model = models.resnet20(width=0.5)
    first = LatencyTable.load(folder=tmp_path)
    assert first.measure(model, SHAPE, progress=False) > 0
    measured = len(formula)
    again = LatencyTable.load(folder=tmp_path)
    assert again.measure(model, SHAPE, progress=False) == 0
    assert len(formula) == measured
    assert again.predict(model, SHAPE) == first.predict(model, SHAPE)
    # a narrower network needs nothing new, a wider one does
    assert again.measure(models.resnet20(width=0.25), SHAPE, progress=False) == 0
    assert again.measure(models.resnet20(width=1), SHAPE, progress=False) > 0
    # another batch size is another table
    other = LatencyTable.load(batch_size=4, folder=tmp_path)
    assert other.path != again.path
    assert not other.grids


@pytest.mark.usefixtures("formula")
@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"a": 1}', '{"a": {"inputs": [1], "outputs": [1], "seconds": []}}']
)
def test_a_damaged_table_is_measured_again(tmp_path, content):
    model = models.resnet20(width=0.25)
    table = LatencyTable.load(folder=tmp_path)
    table.measure(model, SHAPE, progress=False)
    table.path.write_text(content)
    again = LatencyTable.load(folder=tmp_path)
    assert not again.grids
    assert again.measure(model, SHAPE, progress=False) > 0
    assert json.loads(table.path.read_text())


@pytest.mark.usefixtures("formula")
def test_two_tables_do_not_overwrite_each_other(tmp_path):
    one, two = LatencyTable.load(folder=tmp_path), LatencyTable.load(folder=tmp_path)
    one.measure(models.resnet20(width=0.25), SHAPE, progress=False)
    two.measure(models.alexnet(width=0.1), SHAPE, progress=False)
    both = LatencyTable.load(folder=tmp_path)
    assert both.measure(models.resnet20(width=0.25), SHAPE, progress=False) == 0
    assert both.measure(models.alexnet(width=0.1), SHAPE, progress=False) == 0


def test_a_disturbed_measurement_is_taken_back():
    seconds = np.array([[1.0, 9.0, 3.0], [2.0, 3.0, 4.0]])
    smoothed = latency._smoothed(seconds)
    np.testing.assert_array_equal(smoothed, [[1, 3, 3], [2, 3, 4]])


def test_segments_cover_all_modules():
    model = models.alexnet(width=0.1)
    found = segments_of(model, trace(model, SHAPE))
    assert [segment.head.name for segment in found] == [
        *(f"features.{number}" for number in (0, 3, 6, 8, 10)),
        *(f"classifier.{number}" for number in (1, 4, 6)),
    ]
    # activations, pools and dropouts are timed with the layer before them
    assert sum(len(segment.parts) for segment in found) == sum(
        1 for module in model.modules() if not list(module.children())
    )


def test_the_sum_of_segments_is_near_the_whole(tmp_path):
    # Large layers, so that the time of Python itself does not matter much.
    model = nn.Sequential(
        nn.Conv2d(8, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 32, 3, padding=1), nn.MaxPool2d(2)
    )
    # Others may use the machine, too: the test is that at an undisturbed moment it is no other
    # order of magnitude.
    ratios = []
    while len(ratios) < 6 and not any(1 / 6 < ratio < 6 for ratio in ratios):
        table = LatencyTable.load(folder=tmp_path / str(len(ratios)))
        table.measure(model, (8, 32, 32), progress=False)
        ratios.append(float(table.check(model, (8, 32, 32)).ratio[0]))
    assert any(1 / 6 < ratio < 6 for ratio in ratios), ratios


@pytest.mark.parametrize("name", ["grouped", "inverted residual", "u-net", "signal", "perceptron"])
def test_every_kind_of_layer_can_be_timed(name):
    factory, input_shape = PRUNABLE[name]
    model = factory()
    table = LatencyTable(repeats=1)
    assert table.measure(model, input_shape, progress=False) > 0
    assert table.predict(model, input_shape) > 0
    assert table.path is None


def test_measuring_leaves_the_network_as_it_was():
    model = models.resnet20(width=0.25)
    model.stages.eval()
    mean = model.bn.running_mean.clone()
    assert measured_latency(model, SHAPE, batch_size=2, repeats=2) > 0
    assert model.training
    assert not model.stages.training
    assert torch.equal(model.bn.running_mean, mean)


def test_wrong_batch_sizes_are_named():
    with pytest.raises(ValueError, match="batch_size is 0"):
        LatencyTable.load(batch_size=0)
