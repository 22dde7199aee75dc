"""What a live testbed is made of, in words that every system understands: addresses and delays."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX_LENGTH = 16
INNER = "link"
"""The interface of a link in a client's namespace. Never ``eth0``: a slip into the host's namespace
must not meet an interface of that name."""


def address(host: int) -> str:
    """Return the IPv4 address of a host of the testbed, 1 being the server.

    The range is set aside for measurements (RFC 2544) and not routed anywhere.
    """
    return f"198.18.{host >> 8}.{host & 255}"


@dataclass(frozen=True)
class Delay:
    """What every link adds to its rate, in each direction."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0

    @property
    def wanted(self) -> bool:
        """Tell whether any of it is asked for."""
        return bool(self.latency_s or self.jitter_s or self.loss)
