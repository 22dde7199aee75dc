"""Recorded rates from files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.testbed.traces import load_trace, shipped_traces, trace_folder


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "link.trace"
        path.write_text(text)
        return path

    return write


def test_all_shipped_traces_load_and_are_described():
    described = (trace_folder() / "README.md").read_text()
    assert len(shipped_traces()) == 7
    for path in trace_folder().glob("*.csv"):
        trace = load_trace(path.name)
        assert trace.duration_s > 100
        assert 0.1e6 < trace.mean_bps < 100e6
        name = path.name.split(".")[0]
        assert name in shipped_traces()
        assert f"{trace.mean_bps / 1e6:.2f}" in next(
            line for line in described.splitlines() if line.startswith(f"| {name} |")
        )


def test_shipped_traces_equal_the_given_ones(workbench_data):
    for path in (workbench_data / "traces").glob("*.csv"):
        assert load_trace(path).sha256 == load_trace(path.name).sha256


def test_csv(write):
    trace = load_trace(write("time_s,rate_bps\n0,8\n2,0\n5,16\n"))
    assert trace.time_s.tolist() == [0, 2, 5, 8]
    assert trace.rate_bps.tolist() == [8, 0, 16]
    assert trace.mean_bps == pytest.approx((16 + 48) / 8)
    assert "3 s without any" in repr(trace)


def test_packets(write):
    # Two packets in the first second (one exactly at its end), none in the second, and one in
    # the half second that is left.
    trace = load_trace(write("1\n1000\n2500\n"))
    assert trace.time_s.tolist() == [0, 1, 2, 2.5]
    assert trace.rate_bps.tolist() == [2 * 12032, 0, 2 * 12032]


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=300), st.sampled_from([0.1, 1, 2.5]))
def test_no_packet_is_lost_or_made(tmp_path_factory, times, bin_s):
    times = sorted(times)
    path = tmp_path_factory.getbasetemp() / "packets"
    path.write_text("".join(f"{time}\n" for time in times))
    if times[-1] == 0:
        with pytest.raises(ValueError, match="0 ms"):
            load_trace(path)
        return
    trace = load_trace(path, bin_s=bin_s)
    assert trace.duration_s == times[-1] / 1000
    assert (np.diff(trace.time_s) > 0).all()
    bits = trace.rate_bps * np.diff(trace.time_s)
    assert bits.sum() == pytest.approx(12032 * len(times))
    # At the end of each bin, what was delivered up to then has been carried.
    delivered = [sum(time / 1000 <= edge + 1e-12 for time in times) for edge in trace.time_s[1:]]
    np.testing.assert_allclose(np.cumsum(bits), np.array(delivered) * 12032, rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1"),
        ("hello\n", "line 1: 'hello'"),
        ("time_s,rate_bps\n0,8\n1,-8\n", "line 3: rate_bps is -8"),
        ("time_s,rate_bps\n0,8\n1,nan\n", "line 3: rate_bps"),
        ("time_s,rate_bps\n0,8\n1,8,9\n", "line 3"),
        ("time_s,rate_bps\n0,8\n1\n", "line 3"),
        ("time_s,rate_bps\n1,8\n2,8\n", "line 2: time_s is 1.0, but must be 0"),
        ("time_s,rate_bps\n0,8\n2,8\n2,8\n", "line 4: time_s is 2.0, but must be above 2"),
        ("time_s,rate_bps\n0,8\n", "1 lines"),
        ("time_s,rate_bps\n0,0\n1,0\n", "outage"),
        ("5\n4\n", "line 2: 4 ms is before"),
        ("5\n-4\n", "line 2"),
        ("5\n4.5\n", "line 2"),
        ("5\n٤\n", "line 2"),
        ("0\n0\n", "0 ms"),
    ],
)
def test_wrong_files_are_refused_with_the_line(write, text, message):
    path = write(text)
    with pytest.raises(ValueError, match=r"link\.trace") as caught:
        load_trace(path)
    assert message in str(caught.value)


def test_binary_files_and_missing_ones(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no text file"):
        load_trace(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="ATT-LTE-driving"):
        load_trace("nothing.csv")
    (tmp_path / "y").write_text("5\n")
    with pytest.raises(ValueError, match="bin_s"):
        load_trace(tmp_path / "y", bin_s=0)
