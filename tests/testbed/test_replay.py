"""The schedule that follows recordings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from workbench.fleet import Fleet
from workbench.testbed.base import Schedule
from workbench.testbed.replay import LinkTrace, TraceFile, TraceSchedule
from workbench.testbed.schedules import AnySchedule
from workbench.testbed.timing import finish_by_segments
from workbench.testbed.traces import load_trace, shipped_traces


@pytest.fixture(scope="module")
def two_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    (folder / "a.csv").write_text("time_s,rate_bps\n0,8\n1,0\n2,24\n")
    (folder / "b.csv").write_text("time_s,rate_bps\n0,80\n3,16\n")
    return str(folder / "a.csv"), str(folder / "b.csv")


def fleet_of(clients: int) -> Fleet:
    return Fleet.from_label_counts(np.ones((clients, 2)), seed=1)


def test_each_link_and_direction_has_its_own_recording(two_files):
    a, b = two_files
    schedule = TraceSchedule([LinkTrace(down=a, up=b), b])
    assert isinstance(schedule, Schedule)
    first = schedule.segment(fleet_of(3), 0)
    assert first.down_bps.tolist() == [8, 80, 8]
    assert first.up_bps.tolist() == [80, 80, 80]
    assert first.until_s == 1
    outage = schedule.segment(fleet_of(3), 1.5)
    assert outage.down_bps.tolist() == [0, 80, 0]
    assert outage.until_s == 2
    # The recording a is 3 s long, b is 6 s.
    again = schedule.segment(fleet_of(3), 3)
    assert again.down_bps.tolist() == [8, 16, 8]


def test_without_a_loop_the_last_rate_stays(two_files):
    schedule = TraceSchedule(two_files, loop=False)
    segment = schedule.segment(fleet_of(2), 1000)
    assert segment.down_bps.tolist() == [24, 16]
    assert segment.until_s == math.inf


def test_assignment_and_stagger(two_files):
    schedule = TraceSchedule(two_files, assignment=(1, 0, 0), stagger_s=1)
    assert schedule.segment(fleet_of(3), 0).down_bps.tolist() == [80, 0, 24]
    with pytest.raises(ValueError, match="3 entries, but the fleet has 4"):
        schedule.segment(fleet_of(4), 0)


@given(
    st.booleans(),
    st.sampled_from([0, 1, 7]),
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 2000), st.integers(0, 30)),
        min_size=1,
        max_size=8,
    ),
)
def test_both_ways_to_time_a_transfer_agree(two_files, loop, stagger_s, transfers):
    schedule = TraceSchedule(two_files, loop=loop, stagger_s=stagger_s)
    fleet = fleet_of(5)
    client, bits, start = (np.array(column) for column in zip(*transfers, strict=True))

    def segment_at(time_s):
        segment = schedule.segment(fleet, time_s)
        return segment.up_bps[client], segment.until_s

    walked = finish_by_segments(segment_at, bits.astype(float), start.astype(float))
    looked_up = schedule.finish_s(fleet, "up", client, bits.astype(float), start.astype(float))
    np.testing.assert_allclose(looked_up, walked, atol=1e-6)


def test_shipped_recordings_have_both_directions():
    schedule = TraceSchedule(shipped_traces())
    by_name = {link.down.file.split(".")[0]: link for link in schedule.links}
    assert by_name["ATT-LTE-driving"].up.file == "ATT-LTE-driving.up.csv"
    assert by_name["TMobile-LTE-driving"].up is None
    segment = schedule.segment(fleet_of(7), 100.5)
    for row, name in enumerate(shipped_traces()):
        assert segment.down_bps[row] == load_trace(f"{name}.down.csv").rate_bps[100]


def test_the_config_holds_the_content_and_refuses_another(tmp_path):
    adapter = TypeAdapter(AnySchedule)
    path = tmp_path / "own.csv"
    path.write_text("time_s,rate_bps\n0,8\n1,9\n")
    schedule = TraceSchedule([str(path), "ATT-LTE-driving"], stagger_s=2)
    config = adapter.dump_json(schedule)
    assert load_trace(path).sha256.encode() in config
    assert adapter.validate_json(config) == schedule
    path.write_text("time_s,rate_bps\n0,8\n1,10\n")
    with pytest.raises(ValidationError, match=r"own\.csv has SHA-256 .* is expected"):
        adapter.validate_json(config)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"links": []}, "links"),
        ({"links": ["ATT-LTE-driving"], "stagger_s": -1}, "stagger_s"),
        ({"links": ["ATT-LTE-driving"], "assignment": (0, 1)}, "assignment holds 1"),
        ({"links": [3]}, "links"),
    ],
)
def test_wrong_values_are_refused_by_name(arguments, named):
    with pytest.raises(ValidationError, match=named):
        TraceSchedule(**arguments)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"no trace nowhere\.csv"):
        TraceFile("nowhere.csv")
