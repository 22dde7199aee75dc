"""Makes gRPC and forks get along; loaded before anything else, because gRPC asks only once.

Live testbeds fork the notebook's process. What gRPC does in forks so that it could go on working
there makes them abort once it is in use, and nobody uses it there.
"""

from __future__ import annotations

import os
import sys

_SETTING = "GRPC_ENABLE_FORK_SUPPORT"
_OFF = {"0", "false", "no"}

TOO_LATE = "grpc" in sys.modules and os.environ.get(_SETTING, "").lower() not in _OFF
"""Whether something has loaded gRPC before."""

os.environ[_SETTING] = "0"


def why_no_grpc() -> str:
    """Return why gRPC must not be used in a process that forks; empty if it may."""
    if not TOO_LATE:
        return ""
    return (
        "gRPC was loaded before the workbench and would break the processes of live testbeds; "
        f"restart and import workbench first, or set {_SETTING}=0 before Python starts"
    )
