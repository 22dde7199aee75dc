"""Figures of pruning show the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench import models
from workbench.pruning.cost import cost_of
from workbench.pruning.netadapt import NetAdapt
from workbench.ui import pruning_plots

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def model():
    return models.alexnet(width=0.125)


def test_candidate_costs(model):
    candidates = NetAdapt(step=0.05).propose(model, SHAPE)
    before = cost_of(model, SHAPE)
    figure = pruning_plots.candidate_costs(candidates, before)
    assert isinstance(figure, go.Figure)
    macs, size = figure.data
    assert list(macs.y) == [candidate.block for candidate in candidates]
    expected = [100 * candidate.cost.macs / before.macs for candidate in candidates]
    np.testing.assert_allclose(macs.x, expected)
    assert macs.marker.pattern.shape != size.marker.pattern.shape
    assert figure.layout.shapes[0].x0 == pytest.approx(95)


def test_filter_norms():
    figure = pruning_plots.filter_norms([3.0, 1.0, 2.0, 5.0], [0, 3], "conv")
    stays, removed = figure.data
    assert list(stays.y) == [5, 3]
    assert list(removed.y) == [2, 1]
    assert list(removed.customdata) == [2, 1]
    assert stays.marker.symbol != removed.marker.symbol


def test_schedule_is_the_one_of_netadapt(model):
    netadapt = NetAdapt(step=0.1, decay=0.9, budget=0.6, iterations=8)
    initial = cost_of(model, SHAPE)
    targets = pruning_plots.schedule_targets(netadapt, initial)
    assert targets[1] == pytest.approx(netadapt.target(1, initial, initial))
    assert targets[-1] == 0.6 * initial.macs
    assert len(targets) == 9
    assert len(pruning_plots.schedule(netadapt, initial).data[0].y) == 9


def test_trade_off_tells_methods_apart():
    table = pd.DataFrame({"macs": [2e6, 1e6], "accuracy": [0.9, 0.8]})
    figure = pruning_plots.trade_off({"one": table, "other": table}, "title")
    one, other = figure.data
    assert list(one.x) == [2, 1]
    assert one.line.dash != other.line.dash
    assert one.marker.symbol != other.marker.symbol


def test_widths_in_percent():
    figure = pruning_plots.widths({"a": {"x": 5}, "b": {"x": 2, "y": 4}}, {"x": 10, "y": 8})
    assert list(figure.data[0].y) == [50, 100]
    assert list(figure.data[1].y) == [20, 50]
