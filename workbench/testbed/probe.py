"""What this machine's kernel allows a live testbed: tried out, not guessed from versions."""

from __future__ import annotations

from workbench.testbed import linux
from workbench.testbed.addresses import Delay
from workbench.testbed.enclosure import Enclosure


def why_no_namespaces(*, rootless: bool | None = None) -> str:
    """Return why a namespace testbed can't be put up here, and what helps; empty if it can.

    ``rootless`` asks for one inside a user namespace, None for whichever this user may have. A
    testbed without clients is put up and taken down, links are shaped in it.
    """
    return _try(Delay(), rootless=rootless)


def why_no_delay() -> str:
    """Return why links can't have delay, jitter and loss here; empty if they can."""
    return _try(Delay(latency_s=0.001), rootless=None)


def is_root() -> bool:
    """Tell whether this process needs no user namespace for a testbed."""
    return linux.may_administer()


def _try(delay: Delay, *, rootless: bool | None) -> str:
    try:
        enclosure = Enclosure(delay, rootless=rootless)
    except (OSError, RuntimeError) as error:
        return str(error)
    try:
        enclosure.ask(do="add", row=0, name="probe", down_bps=1e6, up_bps=1e6)
    except (OSError, RuntimeError) as error:
        return (
            f"links cannot be shaped here: {error}; load the kernel's modules veth, bridge and "
            "sch_tbf (modprobe), or use a kernel that has them"
        )
    finally:
        enclosure.close()
    return ""
