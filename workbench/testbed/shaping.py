"""Shape one direction of a link with the kernel's token bucket, and read what it let pass.

A token bucket on one end of a veth pair limits only what leaves that end, so a link needs two.
Its messages are built here and not by a library because they are the hot path: all links of a
fleet change within a fraction of a second, and both directions of all links are read once a
second. Counters are read from the bucket because the interface itself counts a merged packet's
headers once: at 400 Mbit/s it reports 4% less than what the link carried.

Source: ``include/uapi/linux/pkt_sched.h`` and ``rtnetlink.h`` of the Linux kernel.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

LOWEST_RATE_BPS = 8.0
HIGHEST_RATE_BPS = 30e9
_ROUTE_NETLINK = 0
_ERROR, _NEW_QDISC, _GET_QDISC = 2, 36, 38
_REQUEST, _ACKNOWLEDGE, _ECHO, _REPLACE, _CREATE = 0x1, 0x4, 0x8, 0x100, 0x400
_KIND, _OPTIONS, _STATISTICS = 1, 2, 7
_BUCKET_PARAMETERS, _BUCKET_BURST = 1, 6
_BASIC_STATISTICS, _QUEUE_STATISTICS = 1, 3
_ETHERNET = 1
_ROOT = 0xFFFFFFFF
_BELOW_DELAY = 0x00010001
_GET_NAME = 0x8910
_NUDGE = bytes.fromhex("0180c2000001 000000000000 88b5 0000")
"""A frame that goes no further than the other end of a link, which drops it: addressed to what no
bridge forwards, of the type that is set aside for private use."""


@dataclass(frozen=True)
class Bucket:
    """The token bucket for a rate; sizes in bytes.

    A burst of 2 ms and a queue of 100 ms keep the rate within 0.5% from 2.5 to 400 Mbit/s; less
    of either loses throughput.
    """

    rate_bytes_per_s: int
    burst_bytes: int
    queue_bytes: int

    @classmethod
    def for_rate(cls, rate_bps: float) -> Bucket:
        """Return the bucket that lets ``rate_bps`` pass, Ethernet headers included.

        The bucket of rate 0 lets nothing pass: no packet fits into a burst of one byte. What
        waits in the queue stays there, as in a modem that has lost its signal.

        Raises
        ------
        ValueError
            If the rate is neither 0 nor between 8 bit/s and 30 Gbit/s.
        """
        if rate_bps == 0:
            return cls(rate_bytes_per_s=1, burst_bytes=1, queue_bytes=15_000)
        if not LOWEST_RATE_BPS <= rate_bps <= HIGHEST_RATE_BPS:
            raise ValueError(
                f"rate_bps is {rate_bps:g}; a link can be shaped to 0 or from "
                f"{LOWEST_RATE_BPS:g} to {HIGHEST_RATE_BPS:g} bit/s"
            )
        rate = rate_bps / 8
        return cls(
            rate_bytes_per_s=round(rate),
            burst_bytes=max(3200, round(rate * 0.002)),
            queue_bytes=max(15_000, round(rate * 0.1)),
        )


class Shaper:
    """Sets and reads the token buckets of one network namespace.

    It must be made inside that namespace: its socket stays there wherever the process goes.
    """

    def __init__(self, *, delayed: bool = False) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _ROUTE_NETLINK)
        self._socket.bind((0, 0))
        self._frames: socket.socket | None = None
        with suppress(PermissionError):  # without CAP_NET_RAW outages end a little later
            self._frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._parent = _BELOW_DELAY if delayed else _ROOT
        self._sequence = 0
        self._largest: dict[int, int] = {}
        """By interface the largest packet, in bytes, that may wait in its queue."""
        self._unsettled: dict[int, Bucket] = {}
        """Buckets whose burst is still larger than it should be."""
        self._names: dict[int, str] = {}

    def set_rate(self, interface: int, rate_bps: float) -> None:
        """Limit what leaves an interface; packets that wait are kept.

        The kernel takes in merged packets up to the size of the burst, and one that is larger
        than a burst that was made smaller since would block its queue for ever. So a burst
        shrinks only once nothing waits that came in under the old one: see `settle`.

        The kernel also goes on sleeping until the time at which the first packet could have left
        at the old rate, which after an outage is never, unless something new is sent; TCP sends
        nothing new while its packets wait here. So the queue is nudged.
        """
        bucket = Bucket.for_rate(rate_bps)
        shaped = interface in self._largest
        largest = max(self._largest.get(interface, 0), bucket.burst_bytes)
        self._apply(interface, bucket, largest if rate_bps else bucket.burst_bytes)
        self._largest[interface] = largest
        if shaped and rate_bps:
            self._nudge(interface)
        if rate_bps and largest > bucket.burst_bytes:
            self._unsettled[interface] = bucket
        else:
            self._unsettled.pop(interface, None)

    def settle(self) -> bool:
        """Shrink the bursts of interfaces whose queues are empty; True if no one is left."""
        for interface, bucket in list(self._unsettled.items()):
            if self._waiting(interface):
                continue
            self._apply(interface, bucket, bucket.burst_bytes)
            if self._waiting(interface):
                # Something came in just before: it may be too large for the new burst.
                self._apply(interface, bucket, self._largest[interface])
                continue
            self._largest[interface] = bucket.burst_bytes
            del self._unsettled[interface]
        return not self._unsettled

    def forget(self, interface: int) -> None:
        """Forget an interface that is not there any more."""
        for known in (self._largest, self._unsettled, self._names):
            known.pop(interface, None)

    def _apply(self, interface: int, bucket: Bucket, burst_bytes: int) -> None:
        rate = struct.pack("=BBHhHI", 0, _ETHERNET, 0, 0, 0, bucket.rate_bytes_per_s)
        peak = bytes(len(rate))
        parameters = rate + peak + struct.pack("=III", bucket.queue_bytes, 0, 0)
        options = _attribute(_BUCKET_PARAMETERS, parameters) + _attribute(
            _BUCKET_BURST, struct.pack("=I", burst_bytes)
        )
        body = self._about(interface) + _attribute(_KIND, b"tbf\0") + _attribute(_OPTIONS, options)
        self._ask(_NEW_QDISC, _CREATE | _REPLACE, body)

    def _nudge(self, interface: int) -> None:
        """Have the kernel look at an interface's queue now."""
        import fcntl  # noqa: PLC0415  # not every system has it, and this module is read on all

        if self._frames is None:
            return
        if interface not in self._names:
            asked = fcntl.ioctl(self._frames, _GET_NAME, struct.pack("=16si20x", b"", interface))
            self._names[interface] = asked[:16].rstrip(b"\0").decode()
        try:
            self._frames.sendto(_NUDGE, socket.MSG_DONTWAIT, (self._names[interface], 0))
        except OSError as error:
            # A full queue was looked at all the same.
            if error.errno not in (errno.ENOBUFS, errno.EAGAIN):
                raise

    def _waiting(self, interface: int) -> int:
        """Return the packets that wait in an interface's queue."""
        return int(struct.unpack_from("=I", self._statistics(interface, _QUEUE_STATISTICS))[0])

    def _statistics(self, interface: int, kind: int) -> bytes:
        answer = self._ask(_GET_QDISC, _ECHO, self._about(interface))
        return _find(_find(answer[36:], _STATISTICS), kind)

    def passed_bytes(self, interface: int) -> int:
        """Return the bytes that left an interface through its bucket since it was made."""
        return int(struct.unpack_from("=Q", self._statistics(interface, _BASIC_STATISTICS))[0])

    def close(self) -> None:
        """Close the sockets."""
        self._socket.close()
        if self._frames is not None:
            self._frames.close()

    def _about(self, interface: int) -> bytes:
        return struct.pack("=BxHiIII", socket.AF_UNSPEC, 0, interface, 0, self._parent, 0)

    def _ask(self, kind: int, flags: int, body: bytes) -> bytes:
        """Send a request and return the message that answers it, if any, after the kernel's ok."""
        self._sequence += 1
        header = struct.pack(
            "=IHHII", 16 + len(body), kind, _REQUEST | _ACKNOWLEDGE | flags, self._sequence, 0
        )
        self._socket.send(header + body)
        answer = b""
        while True:
            data = self._socket.recv(65536)
            while data:
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
                message, data = data[:length], data[(length + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                if kind != _ERROR:
                    answer = message
                    continue
                code = -struct.unpack_from("=i", message, 16)[0]
                if code:
                    raise OSError(code, f"the kernel refused to shape a link: {os.strerror(code)}")
                return answer


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _find(attributes: bytes, wanted: int) -> bytes:
    """Return the value of the attribute ``wanted`` out of a row of attributes."""
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind & 0x3FFF == wanted:
            return attributes[4:length]
        attributes = attributes[(length + 3) & ~3 :]
    raise LookupError(f"the kernel's answer has no attribute {wanted}")
