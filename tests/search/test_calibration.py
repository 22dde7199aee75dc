"""Predicted against measured: a simulated run that passes for a live one must fit exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest

import workbench as wb
from workbench.search.calibration import message_table, round_table
from workbench.ui.live_plots import calibration


@pytest.fixture
def as_if_live(tmp_path, search):
    """Return a function: a run whose links lose a share of their speed, written down as live."""

    def make(goodput: float, *, dropping: bool = False) -> wb.Run:
        policy = wb.SearchPolicy(
            accuracy="local" if dropping else "fused",
            dropping=wb.EarlyDropping() if dropping else None,
        )
        schedule = wb.TierSchedule(period_s=0.02)  # rates change in mid-transfer
        search(testbed=wb.SimulatedTestbed(schedule=schedule, goodput=goodput), policy=policy).run(
            tmp_path, progress=False
        )
        config = json.loads((tmp_path / "config.json").read_text())
        config["testbed"] |= {"type": "NamespaceTestbed"}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return wb.Run(tmp_path)

    return make


@pytest.mark.parametrize("dropping", [False, True])
def test_a_run_over_ideal_links_fits_exactly(as_if_live, dropping):
    run = as_if_live(0.956, dropping=dropping)
    messages = message_table(run)
    np.testing.assert_allclose(messages["predicted_s"], messages["measured_s"], rtol=1e-9)
    assert (messages["bound_s"] < messages["predicted_s"]).all()
    rounds = round_table(run)
    np.testing.assert_allclose(rounds["over_predicted"], 0, atol=1e-9)
    np.testing.assert_allclose(rounds["measured_s"], run.rounds()["duration_s"], rtol=1e-6)
    assert (rounds["over_bound"] > 0).all()
    assert set(rounds["slowest"]) <= set(run.fleet.names)


def test_what_the_simulation_does_not_know_shows(as_if_live):
    rounds = round_table(as_if_live(0.8))
    assert (rounds["over_predicted"] > 0.02).all()


def test_the_figure_shows_every_message_and_round(as_if_live):
    run = as_if_live(0.956)
    shown = {trace.name: trace for trace in calibration(run).data}
    assert len(shown["one client's message"].x) == len(message_table(run))
    assert list(shown["a round"].y) == list(round_table(run)["measured_s"])


def test_a_simulated_run_is_refused(tmp_path, search):
    run = search().run(tmp_path, progress=False)
    with pytest.raises(ValueError, match="was simulated"):
        message_table(run)
