"""Bridge, links and addresses of a live testbed, by way of pyroute2.

pyroute2 is always asked without a namespace, by a process that is inside the right one as a
whole: its own way of opening a socket elsewhere forks a process per link.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from workbench.testbed import linux
from workbench.testbed.addresses import INNER, PREFIX_LENGTH, address

if TYPE_CHECKING:
    from workbench.testbed.addresses import Delay

_BRIDGE = "switch"
_SETTINGS = {
    # Allowed on every machine. BBR, which some hosts prefer, takes a second to see a new rate.
    "ipv4/tcp_congestion_control": "reno",
    # After a cut TCP would else wait for as long again as the cut took before it sends.
    "ipv4/tcp_rto_max_ms": "2000",
    # Packets that a cut link drops where they are sent are tried again every 0.5 s: the usual 15
    # attempts are over in 8 s. Programs know better for how long to wait.
    "ipv4/tcp_retries2": "255",
    # The same for connections that are closed: a server that answers over a link that has just been
    # cut, and closes, would else give the answer up after 11 s, and its client wait for ever.
    "ipv4/tcp_orphan_retries": "255",
    # Keep IPv6 from greeting every other client: 210 links would all get 210 greetings.
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
}


class Switch:
    """The bridge in the present network namespace, and what is plugged into it."""

    def __init__(self, delay: Delay) -> None:
        self._delay = delay
        self._route = IPRoute()
        _set_up_namespace()
        self._route.link("add", ifname=_BRIDGE, kind="bridge")
        self._bridge = self._index(self._route, _BRIDGE)
        self._route.link("set", index=self._bridge, state="up")
        if delay.wanted:
            self._add_delay(self._route, self._bridge)  # refused here rather than half-way
            self._route.tc("del", index=self._bridge, handle=0, parent=0xFFFFFFFF)

    def prepare(self, host_network: int) -> None:
        """Ready the namespace that this process has just made and entered.

        Raises
        ------
        RuntimeError
            If it is the host's, or if it has an interface already.
        """
        if linux.namespace_id() == host_network:
            raise RuntimeError("still in the host's network namespace; nothing was touched")
        _set_up_namespace()
        with IPRoute() as route:
            real = [
                link.get("ifname")
                for link in route.get_links()
                if link.get(("linkinfo", "kind")) is None and link.get("ifname") != "lo"
            ]
            if real:
                raise RuntimeError(f"a new namespace shows the interfaces {real}; not touched")
            route.link("set", index=1, state="up")

    def plug(self, name: str, namespace: int, home: int, host: int) -> tuple[int, int]:
        """Join a namespace to the bridge; return the indices of port and inner interface."""
        port_name = f"port-{host}"
        self._route.link(
            "add",
            ifname=port_name,
            kind="veth",
            peer={"ifname": INNER, "net_ns_fd": namespace},
        )
        port = self._index(self._route, port_name)
        self._route.link("set", index=port, master=self._bridge, state="up", ifalias=name)
        if self._delay.wanted and host != 1:
            self._add_delay(self._route, port)
        with linux.inside(namespace, home), IPRoute() as route:
            inner = self._index(route, INNER)
            route.addr("add", index=inner, address=address(host), prefixlen=PREFIX_LENGTH)
            route.link("set", index=inner, state="up")
            if self._delay.wanted and host != 1:
                self._add_delay(route, inner)
        return port, inner

    def unplug(self, port: int) -> None:
        """Remove a link; its other end goes with it."""
        self._route.link("del", index=port)

    def _add_delay(self, route: IPRoute, interface: int) -> None:
        try:
            route.tc(
                "add",
                "netem",
                index=interface,
                handle=0x10000,
                delay=round(self._delay.latency_s * 1e6),
                jitter=round(self._delay.jitter_s * 1e6),
                loss=self._delay.loss * 100,
                limit=10_000,
            )
        except NetlinkError as error:
            raise RuntimeError(
                "this kernel has no netem, so a link cannot have delay, jitter or loss "
                f"({os.strerror(error.code)}); set latency_s, jitter_s and loss to 0, or use a "
                "kernel with the module sch_netem"
            ) from error

    @staticmethod
    def _index(route: IPRoute, name: str) -> int:
        found = route.link_lookup(ifname=name)
        if not found:
            raise RuntimeError(f"the interface {name} was made but cannot be found")
        return int(found[0])


def _set_up_namespace() -> None:
    """Set what a new namespace would else take from the host, or from the kernel's defaults."""
    for setting, value in _SETTINGS.items():
        with suppress(OSError):  # older kernels lack some of them
            Path(f"/proc/sys/net/{setting}").write_text(value)
