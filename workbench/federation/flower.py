"""What every engine needs of Flower's internals, and the check that they are the known ones."""

from __future__ import annotations

from importlib.metadata import version

from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SUPPORTED = "1.41"
"""Flower's minor version whose internals are used; they move between minor versions."""

RAISED = int(ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
"""Error code of a reply when the ClientApp raised."""
LATE = int(ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
"""Error code of a reply that did not come before the message expired."""


def check_version() -> None:
    """Refuse a Flower whose internals are not known.

    Raises
    ------
    RuntimeError
        If another minor version is installed.
    """
    found = version("flwr")
    if not found.startswith(f"{SUPPORTED}."):
        raise RuntimeError(
            f"flwr {found} is installed, but its internals are known for {SUPPORTED}.* only; "
            f"install it with: pip install 'flwr=={SUPPORTED}.0'"
        )


def ensure_task_identity() -> None:
    """Give this process a task identity, without which no message can be made; keep a live one."""
    check_version()
    if TaskIdentity._run_id is None:  # noqa: SLF001  # the property raises when it is unset
        TaskIdentity.run_id = 0
        TaskIdentity.task_id = 0
        TaskIdentity.node_id = 0


def empty_run() -> Run:
    """Return the run that an engine without a SuperLink reports."""
    return Run.create_empty(0)
