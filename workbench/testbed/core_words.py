"""Links of a topology in CORE's words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from workbench.testbed.core_wire import LinkType, message

if TYPE_CHECKING:
    from workbench.topology import End, Link, LinkOptions


def link_message(link: Link, options: LinkOptions | None) -> Any:  # noqa: ANN401
    """Return a link in CORE's words; no options leave it as fast as it goes."""
    interface = message("Interface")
    made = message("Link")(
        node1_id=link.one.node,
        node2_id=link.other.node,
        type=LinkType.WIRED,
        iface1=interface(**_end(link.one)),
        iface2=interface(**_end(link.other)),
    )
    if options is not None:
        made.options.CopyFrom(
            message("LinkOptions")(
                bandwidth=options.bandwidth_bps,
                delay=options.delay_us,
                jitter=options.jitter_us,
                loss=options.loss_percent,
                dup=options.duplicate_percent,
                buffer=options.buffer_packets,
                unidirectional=options.unidirectional,
            )
        )
    return made


def _end(end: End) -> dict[str, Any]:
    if not end.ip4:
        return {"id": end.interface}
    name = end.name or f"eth{end.interface}"
    return {"id": end.interface, "name": name, "ip4": end.ip4, "ip4_mask": end.ip4_mask}


def same_options(shown: Any, wanted: LinkOptions) -> bool:  # noqa: ANN401
    """Tell whether CORE's options of a link are those that were wanted."""
    return (shown.bandwidth, shown.delay, shown.jitter, shown.buffer) == (
        wanted.bandwidth_bps,
        wanted.delay_us,
        wanted.jitter_us,
        wanted.buffer_packets,
    ) and math.isclose(shown.loss, wanted.loss_percent, rel_tol=1e-3, abs_tol=1e-3)
