"""The token bucket of a rate, and the kernel's messages for it; no privilege is needed here."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.testbed import shaping
from workbench.testbed.shaping import HIGHEST_RATE_BPS, LOWEST_RATE_BPS, Bucket, Shaper

FRAME = 1514


@given(st.floats(LOWEST_RATE_BPS, HIGHEST_RATE_BPS))
def test_a_bucket_lets_its_rate_pass(rate_bps):
    bucket = Bucket.for_rate(rate_bps)
    assert bucket.rate_bytes_per_s == pytest.approx(rate_bps / 8, abs=0.5)
    assert bucket.burst_bytes >= 2 * FRAME  # else frames of full length are dropped
    assert bucket.burst_bytes <= max(3200, rate_bps / 8 * 0.0021)
    assert bucket.queue_bytes >= bucket.burst_bytes
    # Every figure has to fit into 32 bits of the kernel's message.
    assert max(vars(bucket).values()) < 2**32


def test_the_bucket_of_an_outage_lets_no_frame_pass():
    assert Bucket.for_rate(0).burst_bytes < 60


@given(
    st.one_of(st.floats(max_value=LOWEST_RATE_BPS), st.floats(min_value=HIGHEST_RATE_BPS * 1.01))
)
def test_other_rates_are_refused(rate_bps):
    if rate_bps in {0, LOWEST_RATE_BPS}:
        return
    with pytest.raises(ValueError, match="rate_bps is"):
        Bucket.for_rate(rate_bps)


class Kernel:
    """Takes a shaper's message and answers as it is told."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.got = b""

    def send(self, data):
        self.got = data

    def recv(self, _):
        return self.answers.pop(0)

    def close(self):
        pass


def shaper_with(*answers) -> tuple[Shaper, Kernel]:
    shaper = object.__new__(Shaper)
    shaper._socket = kernel = Kernel(*answers)
    shaper._parent = 0xFFFFFFFF
    shaper._sequence = 0
    shaper._largest, shaper._unsettled, shaper._names = {}, {}, {}
    shaper._nudge = lambda _: None
    return shaper, kernel


def message(kind, sequence, body):
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body


def verdict(sequence, code=0):
    return message(2, sequence, struct.pack("=i", code) + bytes(16))


@given(st.floats(1e3, 1e10), st.integers(1, 2**31 - 1))
def test_the_message_says_what_the_bucket_says(rate_bps, interface):
    shaper, kernel = shaper_with(verdict(1))
    shaper.set_rate(interface, rate_bps)
    length, kind, flags, _, _ = struct.unpack_from("=IHHII", kernel.got)
    assert (length, kind, flags) == (len(kernel.got), 36, 0x505)
    family = kernel.got[16]
    index, handle, parent = struct.unpack_from("=iII", kernel.got, 20)
    assert (family, index, handle, parent) == (0, interface, 0, 0xFFFFFFFF)
    attributes = kernel.got[36:]
    assert shaping._find(attributes, 1) == b"tbf\0"
    options = shaping._find(attributes, 2)
    bucket = Bucket.for_rate(rate_bps)
    parameters = shaping._find(options, 1)
    assert struct.unpack_from("=I", parameters, 8)[0] == bucket.rate_bytes_per_s
    assert struct.unpack_from("=I", parameters, 24)[0] == bucket.queue_bytes
    assert struct.unpack("=I", shaping._find(options, 6))[0] == bucket.burst_bytes


def test_a_refusal_of_the_kernel_is_an_error():
    shaper, _ = shaper_with(verdict(1, code=-2))
    with pytest.raises(OSError, match="refused to shape a link"):
        shaper.set_rate(3, 1e6)


@given(st.integers(0, 2**63), st.booleans())
def test_the_counter_is_read_out_of_the_answer(passed, together):
    basic = shaping._attribute(1, struct.pack("=QI", passed, 7) + bytes(4))
    body = bytes(20) + shaping._attribute(1, b"tbf\0") + shaping._attribute(7, basic)
    late = message(36, 0, body)  # an answer to somebody else's question
    answers = [late + message(36, 1, body), verdict(1)]
    shaper, _ = shaper_with(*([b"".join(answers)] if together else answers))
    assert shaper.passed_bytes(3) == passed


class Queue:
    """An interface's queue: what burst it was last given, and how much waits in it."""

    def __init__(self, shaper):
        self.bursts = []
        self.waiting = 0
        shaper._apply = lambda _, __, burst: self.bursts.append(burst)
        shaper._waiting = lambda _: self.waiting


def burst_of(rate_bps):
    return Bucket.for_rate(rate_bps).burst_bytes


def test_a_burst_shrinks_only_when_nothing_waits_that_is_larger():
    shaper, _ = shaper_with()
    queue = Queue(shaper)
    for rate in (100e6, 5e6, 0, 20e6):
        shaper.set_rate(2, rate)
    # Without this a merged packet of 25 kB would wait for a burst of 3.2 kB for ever.
    assert queue.bursts == [burst_of(100e6), burst_of(100e6), burst_of(0), burst_of(100e6)]
    queue.waiting = 3
    assert not shaper.settle()
    assert len(queue.bursts) == 4
    queue.waiting = 0
    assert shaper.settle()
    assert queue.bursts[4:] == [burst_of(20e6)]
    assert shaper.settle()
    shaper.set_rate(2, 5e6)
    assert queue.bursts[5:] == [burst_of(20e6)]
    shaper.forget(2)
    assert shaper.settle()
    shaper.set_rate(2, 5e6)
    assert queue.bursts[6:] == [burst_of(5e6)]


def test_a_packet_that_slips_in_gets_its_burst_back():
    shaper, _ = shaper_with()
    queue = Queue(shaper)
    shaper.set_rate(2, 100e6)
    shaper.set_rate(2, 5e6)
    waiting = iter([0, 1, 0, 0])
    shaper._waiting = lambda _: next(waiting)
    assert not shaper.settle()
    assert queue.bursts[2:] == [burst_of(5e6), burst_of(100e6)]
    assert shaper.settle()
    assert queue.bursts[4:] == [burst_of(5e6)]


def test_a_queue_is_nudged_when_it_gets_another_rate():
    """Else the kernel sleeps until the first packet could have left at the old rate."""
    shaper, _ = shaper_with()
    queue = Queue(shaper)
    nudged = []
    shaper._nudge = lambda interface: nudged.append((interface, len(queue.bursts)))
    for rate in (20e6, 5e6, 0, 5e6):
        shaper.set_rate(2, rate)
    assert nudged == [(2, 2), (2, 4)]  # after the change, not before; an outage wakes nobody


class Frames:
    """Takes frames for interfaces whose queues are full, or refuses for another reason."""

    def __init__(self, code):
        self.code = code
        self.sent = []

    def sendto(self, frame, flags, address):
        self.sent.append((frame, flags, address))
        raise OSError(self.code, "no")


@pytest.mark.parametrize(("code", "matters"), [(errno.ENOBUFS, False), (errno.ENETDOWN, True)])
def test_a_full_queue_counts_as_nudged(code, matters):
    shaper, _ = shaper_with()
    shaper._names[2] = "port-4"
    shaper._frames = frames = Frames(code)
    if matters:
        with pytest.raises(OSError, match="no"):
            Shaper._nudge(shaper, 2)
    else:
        Shaper._nudge(shaper, 2)
    [(frame, flags, address)] = frames.sent
    assert len(frame) == 16
    assert frame[0] & 1  # no station's own address
    assert (flags, address) == (socket.MSG_DONTWAIT, ("port-4", 0))
