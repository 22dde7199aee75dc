"""Traffic over live links: what is timed and recorded is what the simulation predicts."""

from __future__ import annotations

import time

import numpy as np
import pytest

import workbench as wb
from workbench.testbed.traffic import LinkRecorder, busy, transfer_s

pytestmark = [pytest.mark.namespaces, pytest.mark.usefixtures("live_machine")]

RATES = [2e6, 8e6, 40e6]


@pytest.fixture(scope="module")
def network():
    ones = np.ones((len(RATES), 2), dtype=int)
    fleet = wb.Fleet.from_label_counts(ones, rate_bps=RATES)
    with wb.NamespaceTestbed(schedule=wb.ConstantSchedule()).up(fleet) as up:
        yield up


@pytest.mark.parametrize("direction", ["down", "up"])
def test_messages_take_what_the_simulation_predicts(network, direction):
    size = 400_000
    simulated = wb.SimulatedTestbed(schedule=wb.ConstantSchedule(), goodput=0.956)
    predicted = simulated.up(network.fleet).transfer_s([0, 1, 2], size, 0.0, direction)
    measured = transfer_s(network, [0, 1, 2], size, direction)
    assert (measured > 0.95 * predicted).all()  # a burst of 2 ms is saved up
    assert (measured < 1.15 * predicted + 0.3).all()  # a machine with other work to do


def test_a_recorder_sees_what_is_carried_and_asked_for(network):
    with LinkRecorder(network, every_s=0.1) as recorder, busy(network, ["client-1"]):
        time.sleep(1)
        network.set_rate("client-1", 4e6)
        time.sleep(1)
    network.set_rate("client-1", 8e6)
    table = recorder.table()
    assert len(table) == len(RATES) * (table["time_s"].nunique())
    busy_one = table[table["client"] == "client-1"]
    assert set(busy_one["requested_down_bps"]) == {8e6, 4e6}
    late = busy_one[busy_one["time_s"] > 1.3]
    assert 3.5e6 < late["measured_down_bps"].median() < 4.2e6
    idle = table[table["client"] == "client-0"]
    assert idle["measured_down_bps"].max() < 0.1e6


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("rates", [[100e6, 30e6, 6e6, 12e6], [30e6, 0, 12e6, 0, 40e6]])
def test_a_busy_link_that_becomes_slower_goes_on(network, direction, rates):
    """A queue may hold packets larger than the new burst, and may sleep; neither must block it."""
    way = ["down", "up"].index(direction)
    with busy(network, ["client-2"], direction):
        for rate in rates:
            network.set_rate("client-2", rate)
            time.sleep(0.7)  # what was queued goes first
            began, before = network.carried()
            time.sleep(0.5)
            ended, after = network.carried()
            measured = 8 * (after - before)[way, 2] / (ended - began)
            if rate != rates[0]:
                assert 0.85 * rate <= measured <= 1.1 * rate, f"at {rate / 1e6:g} Mbit/s"
    network.set_rate("client-2", 40e6)


def test_links_follow_recorded_rates_with_outages(network, tmp_path):
    (tmp_path / "down.csv").write_text(
        "time_s,rate_bps\n0,8000000\n1.5,0\n3,20000000\n4.5,1\n6,1\n"
    )
    (tmp_path / "up.csv").write_text("time_s,rate_bps\n0,3000000\n6,3000000\n")
    trace = wb.LinkTrace(down=tmp_path / "down.csv", up=tmp_path / "up.csv")
    schedule = wb.TraceSchedule([trace], loop=False)
    testbed = wb.NamespaceTestbed(schedule=schedule)
    simulated = wb.SimulatedTestbed(schedule=schedule).up(network.fleet)
    with testbed.up(network.fleet) as net, LinkRecorder(net, every_s=0.1) as recorder:
        begun = net.now_s()
        with busy(net, [2]):
            time.sleep(5.5 - net.now_s())
        table = recorder.table()
    table = table[table["client"] == "client-2"].assign(now_s=table["time_s"] + begun)
    for begin, end, rate in ((0.7, 1.4, 8e6), (1.8, 2.9, 0.0), (3.7, 4.4, 20e6), (4.8, 5.4, 1.0)):
        part = table[table["now_s"].between(begin, end)]
        simulated.advance(begin)
        assert simulated.rates_bps()[2] == rate
        assert set(part["requested_down_bps"]) == {rate}
        # A busy machine cannot always send enough, nor look at its clock when it should.
        measured = part["measured_down_bps"].rolling(3).mean().max()
        assert measured == pytest.approx(rate, rel=0.15, abs=30_000)
        assert set(part["requested_up_bps"]) == {3e6}


def test_wrong_values_are_refused(network):
    with pytest.raises(ValueError, match="size_bytes is 0"):
        transfer_s(network, [0], 0)
    with pytest.raises(ValueError, match="every_s is 0"):
        LinkRecorder(network, every_s=0)
    with pytest.raises(KeyError, match="no client 9"):
        transfer_s(network, [9], 100)
