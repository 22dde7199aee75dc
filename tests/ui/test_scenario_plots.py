"""Figures of a session: every node where the file puts it, every round that was measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workbench.scenario import Scenario
from workbench.tiers import scenario_folder
from workbench.ui import scenario_plots


@pytest.mark.parametrize("name", ["teaching-7", "nafnas-56"])
def test_each_node_stands_where_the_file_puts_it(name: str) -> None:
    scenario = Scenario.read(scenario_folder() / f"{name}.xml")
    shown = scenario_plots.session(scenario)
    wires, *clients, others = shown.data
    assert len(wires.x) == 3 * len(scenario.topology.links)
    found = {
        (float(x), float(y)): text
        for trace in clients
        for x, y, text in zip(trace.x, trace.y, trace.text, strict=True)
    }
    assert len(found) == len(scenario)
    for row, number in enumerate(scenario.clients):
        node = scenario.topology.node(number)
        assert found[node.x, node.y] == scenario.names[row]
    assert set(others.text) == {"server", "switch"}
    assert len({trace.marker.symbol for trace in clients}) == len(clients)
    assert shown.layout.yaxis.autorange == "reversed", "CORE counts from the upper left corner"


def test_tiers_and_rates_are_told_on_hovering() -> None:
    scenario = Scenario.read(scenario_folder() / "teaching-7.xml")
    told = {
        text: (tier, float(rate))
        for trace in scenario_plots.session(scenario).data[1:-1]
        for text, (tier, rate) in zip(trace.text, trace.customdata, strict=True)
    }
    for row, name in enumerate(scenario.names):
        tier, rate = told[name]
        assert tier == scenario.tiers[scenario.tier[row]].name
        np.testing.assert_allclose(rate * 1e6, scenario.rate_bps[row])


def test_rounds_of_each_testbed_stand_beside_their_prediction() -> None:
    rounds = pd.DataFrame(
        {
            "testbed": ["docker", "docker", "core"],
            "round": [1, 2, 1],
            "measured_s": [1.0, 2.0, 3.0],
            "predicted_s": [0.9, 1.9, 2.9],
        }
    )
    shown = scenario_plots.rounds_beside(rounds)
    assert [trace.name for trace in shown.data] == [
        "docker",
        "docker, predicted",
        "core",
        "core, predicted",
    ]
    assert list(shown.data[0].y) == [1.0, 2.0]
    assert list(shown.data[3].y) == [2.9]
    assert len(scenario_plots.rounds_beside(rounds.head(0)).data) == 0
