"""The engine of a deployment: a run at an existing SuperLink, driven from this process."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Self

import httpx

from workbench.federation import deployed, wire
from workbench.federation.driving import end_run, start_run
from workbench.federation.live_grid import SuperLinkLostError

if TYPE_CHECKING:
    from types import TracebackType

    from workbench.federation.live_grid import LiveGrid
    from workbench.testbed.joined import JoinedNetwork, SuperLinkTestbed


class JoinedEngine:
    """Drives a run at the SuperLink of a `SuperLinkTestbed`; use it as a context manager.

    Attributes
    ----------
    grid
        A Flower Grid whose nodes are the SuperLink's.
    """

    grid: LiveGrid

    def __init__(self, network: JoinedNetwork) -> None:
        self._testbed = network.testbed

    def __enter__(self) -> Self:
        try:
            self.grid = start_run(
                door_of(self._testbed),
                client=f"{deployed.MODULE}:app",
                files=deployed.FILES,
                give_up=lambda: True,
                why_lost=str,
            )
        except httpx.HTTPError as error:
            raise SuperLinkLostError(_why_not(self._testbed, error)) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        end_run(self.grid)


def door_of(testbed: SuperLinkTestbed) -> wire.Door:
    """Return the way to a testbed's SuperLink."""
    return wire.Door(
        testbed.address, certificates=testbed.read_certificates(), insecure=testbed.insecure
    )


def register_node(testbed: SuperLinkTestbed, public_key: bytes) -> int:
    """Let a node with this public key (PEM or OpenSSH) be a client; return its node id.

    It is needed where the SuperLink authenticates its nodes, and may be done as well with
    ``flwr supernode register``.

    Raises
    ------
    SuperLinkLostError
        If the SuperLink does not answer, or refuses.
    """
    control = door_of(testbed).client(wire.ControlHttpClient, [wire.Versions("flwr-cli")])
    try:
        return int(control.RegisterNode(wire.RegisterNodeRequest(public_key=public_key)).node_id)
    except httpx.HTTPError as error:
        raise SuperLinkLostError(_why_not(testbed, error)) from error
    finally:
        control.close()


def _why_not(testbed: SuperLinkTestbed, error: httpx.HTTPError) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        hint = (
            "its certificate is not trusted here: give the file of the certificates that it is "
            "signed by, SuperLinkTestbed(certificates=...); a SuperLink without TLS needs "
            "insecure=True"
        )
        return f"no connection to the SuperLink at {testbed.address}: {cause}; {hint}"
    if isinstance(error, httpx.HTTPStatusError):
        return f"the SuperLink at {testbed.address} refused: {error.response.text or error}"
    return (
        f"no connection to the SuperLink at {testbed.address}: {error or type(error).__name__}; is "
        "it running, and is its port reachable from here?"
    )
