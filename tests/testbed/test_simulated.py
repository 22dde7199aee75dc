"""The simulated network: virtual time, controls, and agreement with the schedule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from workbench.fleet import Fleet
from workbench.testbed.base import Direction, Segment
from workbench.testbed.replay import TraceSchedule
from workbench.testbed.schedules import ConstantSchedule, TierSchedule
from workbench.testbed.simulated import SimulatedTestbed
from workbench.tiers import Tier


def constant(fleet: Fleet, **options):
    return SimulatedTestbed(schedule=ConstantSchedule(), **options).up(fleet)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet.from_label_counts(np.ones((4, 2)), rate_bps=[8e6, 16e6, 80e6, 800e6])


def test_bytes_over_a_constant_link(fleet):
    with constant(fleet, latency_s=0.5, goodput=0.8) as net:
        durations = net.transfer_s([0, 1, 2, 0], [1e6, 1e6, 0, 3e6], 5.0, "down")
    np.testing.assert_allclose(durations, [1.75, 1.125, 0.5, 4.25])


def test_a_rate_that_changes_in_mid_transfer():
    tiers = (Tier(name="t", tier_class="low", low_bps=1e6, high_bps=4e6, step_bps=1e6),)
    fleet = Fleet.from_label_counts(np.ones((6, 2)), tiers=tiers, seed=2)
    schedule = TierSchedule(period_s=10, seed=5)
    net = SimulatedTestbed(schedule=schedule).up(fleet)
    start = np.array([0.0, 3, 9.5, 10, 25, 0])
    size_bytes = np.array([1e6, 5e6, 1e7, 2e7, 4e6, 0])
    for row, duration in enumerate(net.transfer_s(np.arange(6), size_bytes, start, "up")):
        # One client at a time, in steps of a millisecond.
        left, time_s = size_bytes[row] * 8, start[row]
        while left > 1e-6:
            rate = schedule.segment(fleet, time_s + 1e-9).up_bps[row]
            step = min(0.001, left / rate)
            left, time_s = left - step * rate, time_s + step
        assert duration == pytest.approx(time_s - start[row], abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**8), st.floats(0, 1e4))))
def test_messages_are_independent_of_each_other(messages):
    fleet = Fleet.from_label_counts(np.ones((4, 2)), seed=4)
    net = SimulatedTestbed().up(fleet)
    together = net.transfer_s(
        [client for client, _, _ in messages],
        [size for _, size, _ in messages],
        [start for _, _, start in messages],
    )
    alone = [float(net.transfer_s(*message)[0]) for message in messages]
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-9)


def test_compute(fleet):
    assert constant(fleet, device_macs_per_s=2e9).compute_s(1e10) == 5
    net = constant(fleet, device_macs_per_s=(1e9, 2e9, 4e9, 8e9))
    assert [net.compute_s(8e9, client) for client in ("client-0", 1, 2, "client-3")] == [8, 4, 2, 1]
    with pytest.raises(ValueError, match="device_macs_per_s has 3 values"):
        constant(fleet, device_macs_per_s=(1, 2, 3))
    with pytest.raises(ValueError, match="macs is -1"):
        net.compute_s(-1)


def test_controls_and_what_listeners_hear(fleet):
    net = constant(fleet)
    heard = []
    end = net.on_change(heard.append)
    net.set_rate("client-1", 5e6, "down")
    assert net.rates_bps("down").tolist() == [8e6, 5e6, 80e6, 800e6]
    assert net.rates_bps("up").tolist() == [8e6, 16e6, 80e6, 800e6]
    net.cut(1)
    net.cut(1)
    assert net.rates_bps("up")[1] == 0
    assert net.transfer_s(1, 100, 0.0, "up")[0] == math.inf
    assert net.present().all()
    net.heal(1)
    assert net.rates_bps("down")[1] == 5e6
    net.remove(2)
    assert net.present().tolist() == [True, True, False, True]
    assert net.rates_bps()[2] == 0
    net.add(2)
    assert net.rates_bps()[2] == 80e6
    assert [(change.what, change.client, change.down_bps) for change in heard] == [
        ("rate", "client-1", 5e6),
        ("cut", "client-1", 0),
        ("heal", "client-1", 5e6),
        ("remove", "client-2", 0),
        ("add", "client-2", 80e6),
    ]
    end()
    end()
    net.cut(0)
    assert len(heard) == 5
    table = net.links()
    assert table["cut"].tolist() == [True, False, False, False]
    assert table["requested_down_bps"].tolist() == [0, 5e6, 80e6, 800e6]


def test_a_rate_set_by_hand_outlives_the_schedule_until_the_next_one(fleet):
    net = SimulatedTestbed(schedule=TierSchedule(period_s=10)).up(fleet)
    net.set_rate(0, 1e6)
    net.advance(35)
    assert net.rates_bps()[0] == 1e6
    assert net.transfer_s(0, 1e6, 35.0)[0] == 8
    present = net.rates_bps()
    net.follow(None)
    net.advance(1000)
    assert (net.rates_bps() == present).all()
    net.follow(ConstantSchedule())
    assert (net.rates_bps() == fleet.rate_bps).all()


def test_healing_after_the_schedule_was_ended_gives_the_rate_without_the_cut(fleet):
    net = constant(fleet)
    net.cut(0)
    net.follow(None)
    assert net.rates_bps()[0] == 0
    net.heal(0)
    assert net.rates_bps()[0] == 8e6


def test_time_goes_forward_and_tells_what_changed():
    tiers = (
        Tier(name="one", tier_class="low", low_bps=1e6, high_bps=1e6, step_bps=1e6),
        Tier(name="many", tier_class="high", low_bps=1e6, high_bps=1e9, step_bps=1e6),
    )
    fleet = Fleet.from_label_counts(np.ones((2, 2)), tiers=tiers, tier=[0, 1])
    net = SimulatedTestbed(schedule=TierSchedule(period_s=10)).up(fleet)
    heard = []
    net.on_change(heard.append)
    net.advance(9.9)
    assert (net.now_s(), heard) == (9.9, [])
    net.advance(45)
    assert [(change.client, change.time_s) for change in heard] == [("client-1", 45)]
    for wrong in (44, math.inf, math.nan):
        with pytest.raises(ValueError, match="to_s"):
            net.advance(wrong)


def test_any_schedule_of_ones_own(fleet):
    class Blinking:
        """Every other second without a link."""

        def segment(self, fleet, time_s):
            second = math.floor(time_s)
            rates = fleet.rate_bps * (second % 2 == 0)
            return Segment(rates, rates * 2, second + 1.0)

    net = constant(fleet)
    net.follow(Blinking())
    assert net.transfer_s(0, 2.5e6, 0.0, "down")[0] == pytest.approx(4.5)
    assert net.transfer_s(0, 2.5e6, 0.0, "up")[0] == pytest.approx(2.25)


def test_traces_are_followed_in_each_direction(fleet, tmp_path):
    (tmp_path / "down").write_text("time_s,rate_bps\n0,8\n1,0\n")
    (tmp_path / "up").write_text("time_s,rate_bps\n0,80\n1,0\n")
    schedule = TraceSchedule([{"down": str(tmp_path / "down"), "up": str(tmp_path / "up")}])
    net = SimulatedTestbed(schedule=schedule).up(fleet)
    net.set_rate(3, 8.0, "down")
    np.testing.assert_allclose(net.transfer_s([0, 0, 3], 3, [0.0, 0.5, 0.0]), [5, 6, 3])
    np.testing.assert_allclose(net.transfer_s([0, 3], 3, 0.0, "up"), [0.3, 0.3])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([4], 1, 0.0), "client must lie in 0..3"),
        (([-1], 1, 0.0), "client must lie in 0..3"),
        (([0], -1, 0.0), "size_bytes"),
        (([0], math.inf, 0.0), "size_bytes"),
        (([0], 1, math.nan), "start_s"),
        (([0], 1, 0.0, "sideways"), "direction"),
    ],
)
def test_wrong_transfers_are_refused_by_name(fleet, arguments, named):
    with pytest.raises(ValueError, match=named):
        constant(fleet).transfer_s(*arguments)


def test_wrong_controls_are_refused(fleet):
    net = constant(fleet)
    with pytest.raises(ValueError, match="rate_bps is -1"):
        net.set_rate(0, -1)
    with pytest.raises(ValueError, match="direction"):
        net.set_rate(0, 1, "sideways")
    with pytest.raises(KeyError, match="no client 'nobody'"):
        net.cut("nobody")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"device_macs_per_s": 0}, "device_macs_per_s"),
        ({"latency_s": -1}, "latency_s"),
        ({"goodput": 1.2}, "goodput"),
        ({"schedule": "tiers"}, "schedule"),
        ({"speed": 1}, "speed"),
    ],
)
def test_wrong_testbeds_are_refused_by_name(arguments, named):
    with pytest.raises(ValidationError, match=named):
        SimulatedTestbed(**arguments)


def test_a_testbed_survives_its_config():
    adapter = TypeAdapter(SimulatedTestbed)
    for testbed in (
        SimulatedTestbed(),
        SimulatedTestbed(schedule=ConstantSchedule(), device_macs_per_s=(1.0, 2.0)),
        SimulatedTestbed(schedule=TraceSchedule(["ATT-LTE-driving"]), latency_s=0.1),
    ):
        assert adapter.validate_json(adapter.dump_json(testbed)) == testbed


def test_ten_thousand_clients_over_hours_of_recordings():
    fleet = Fleet.from_label_counts(np.ones((10_000, 2)), seed=1)
    schedule = TraceSchedule(["ATT-LTE-driving", "Verizon-EVDO-driving"], stagger_s=1)
    net = SimulatedTestbed(schedule=schedule).up(fleet)
    durations = net.transfer_s(np.arange(10_000), 2e8, 0.0, "up")
    assert np.isfinite(durations).all()
    assert durations.max() > 1000


@given(
    size=st.floats(0, 1e9),
    start=st.floats(0, 5000),
    client=st.integers(0, 27),
    direction=st.sampled_from(["down", "up"]),
)
def test_one_message_takes_what_many_take(
    counted_fleet: Fleet, size: float, start: float, client: int, direction: Direction
) -> None:
    network = SimulatedTestbed(latency_s=0.01).up(counted_fleet)
    network.cut(3)
    network.set_rate(5, 1e6, "up")
    one = network.transfer_one_s(client, size, start, direction)
    many = network.transfer_s(np.arange(28), size, start, direction)
    assert one == pytest.approx(many[client], rel=1e-12)
