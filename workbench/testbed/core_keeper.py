"""The keeper of a CORE testbed: it enters nodes that CORE has made, and makes none itself.

CORE's daemon keeps nodes and links; a node is a namespace with a process of CORE's in it. This
keeper holds descriptors of those namespaces while the testbed is up, opens sockets and starts
programs in them, and limits and counts what passes their links, as the keeper of a namespace
testbed does with its own. What it does not have to give back it does not touch: nodes and links
are CORE's to remove.
"""

from __future__ import annotations

import os

from pyroute2 import IPRoute

from workbench.testbed import linux
from workbench.testbed.keeper import Answer, Keeper, Link
from workbench.testbed.shaping import Shaper


class CoreKeeper(Keeper):
    """Knows how to take over what CORE has made; see `Keeper` for the rest."""

    def do_server(self, process: int, ports: int) -> Answer:
        """Take over the server's node, given a process in it.

        ``ports`` is a process in the namespace of the switch's interfaces, the daemon's own.
        """
        os.close(self._server)
        self._server = self._new_namespace(process)
        self._ports = os.open(f"/proc/{ports}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with linux.inside(self._ports, self._home):
            self._shaper = Shaper()
        return Answer()

    def do_adopt(
        self,
        *,
        row: int,
        process: int,
        inner: str,
        port: str,
        down_bps: float | None,
        up_bps: float | None,
    ) -> Answer:
        """Take over a client's node, given a process in it, and the two ends of its link.

        Rates of None leave the link to CORE, which shapes it.
        """
        namespace = self._new_namespace(process)
        try:
            with linux.inside(self._ports, self._home):
                down = _index(port)
            with linux.inside(namespace, self._home):
                up = _index(inner)
                shaper = Shaper()
            if down_bps is not None and up_bps is not None:
                self._shaper.set_rate(down, down_bps)
                shaper.set_rate(up, up_bps)
        except BaseException:
            os.close(namespace)
            raise
        self._links[row] = Link(namespace, down, up, shaper)
        return Answer()

    def do_remove(self, row: int) -> Answer:
        """Leave a client's node and kill what was started in it; CORE removes the node."""
        self._kill_inside(self._namespace(row))
        link = self._links.pop(row)
        self._shaper.forget(link.down)
        self._unsettled.discard(link.shaper)
        link.shaper.close()
        os.close(link.namespace)
        return Answer()


def _index(name: str) -> int:
    with IPRoute() as route:
        found = route.link_lookup(ifname=name)
    if not found:
        raise LookupError(f"CORE has made no interface {name} here")
    return int(found[0])
