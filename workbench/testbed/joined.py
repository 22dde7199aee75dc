"""The testbed of a deployment: a Flower SuperLink that is there already, with nodes of its own.

Past one machine the network is not ours: clients are stock ``flower-supernode``s on other
machines, and their links are whatever the world gives. So nothing here shapes, cuts or measures
links; a search drives its rounds over them, and its run says how long they took.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from workbench.testbed.base import Network, Testbed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workbench.fleet import Fleet
    from workbench.testbed.base import Direction, LinkChange, Schedule


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SuperLinkTestbed(Testbed):
    """A Flower SuperLink and its SuperNodes, on whatever machines they are.

    The SuperLink must leave its runs' tasks to this process and not execute them itself:
    ``flower-superlink --isolation process --enable-supernode-auth --ssl-...``. Each node holds
    one client's share of the data (`workbench.federation.deployed.write_shares`).

    Whoever reaches the SuperLink's port can start runs there: keep it inside your network, or
    put a proxy with authentication before it. TLS protects what is sent, and node authentication
    keeps strangers from being clients.

    Parameters
    ----------
    address
        ``host:port`` of the SuperLink.
    certificates
        File with the certificates (PEM) that the SuperLink's own must be signed by; empty trusts
        those that the system trusts.
    insecure
        Speak without TLS, to a SuperLink that was started with ``--insecure``. Such a SuperLink
        cannot authenticate its nodes either.

    Raises
    ------
    ValueError
        If the address has no port, or certificates are given for a connection without TLS.
    """

    address: str = Field(pattern=r"^[^\s:/]+:\d{1,5}$")
    certificates: str = ""
    insecure: bool = False

    @model_validator(mode="after")
    def _check(self) -> SuperLinkTestbed:
        if self.insecure and self.certificates:
            raise ValueError(
                f"certificates is {self.certificates!r}, but insecure is True: without TLS there "
                "is nothing to check; leave one of them out"
            )
        return self

    def read_certificates(self) -> bytes | None:
        """Return the certificates, None to trust the system's.

        Raises
        ------
        FileNotFoundError
            If the file is not there.
        """
        if not self.certificates:
            return None
        path = Path(self.certificates)
        if not path.is_file():
            raise FileNotFoundError(
                f"certificates is {self.certificates!r}, and there is no such file"
            )
        return path.read_bytes()

    def up(self, fleet: Fleet) -> JoinedNetwork:
        """Return the network; nothing is sent before a search starts its engine on it."""
        self.read_certificates()
        return JoinedNetwork(self, fleet)


class JoinedNetwork(Network):
    """Links that are what they are: told by the fleet, neither shaped nor measured."""

    def __init__(self, testbed: SuperLinkTestbed, fleet: Fleet) -> None:
        self.testbed = testbed
        self.fleet = fleet
        self._began = time.monotonic()

    def now_s(self) -> float:
        """Seconds since the network was joined."""
        return time.monotonic() - self._began

    def rates_bps(self, direction: Direction = "down") -> NDArray[np.float64]:
        """Rate of each client's link as the fleet tells it, (N,) in bit/s."""
        del direction
        return self.fleet.rate_bps.copy()

    def present(self) -> NDArray[np.bool_]:
        """Which clients take part, (N,) bool: all; who is away does not answer."""
        return np.ones(len(self.fleet), dtype=bool)

    def links(self) -> pd.DataFrame:
        """One row a client; the requested rates are the fleet's, the measured ones unknown."""
        unknown = np.full(len(self.fleet), np.nan)
        return pd.DataFrame(
            {
                "client": list(self.fleet.names),
                "tier": [self.fleet.tiers[index].name for index in self.fleet.tier],
                "requested_down_bps": self.fleet.rate_bps,
                "measured_down_bps": unknown,
                "requested_up_bps": self.fleet.rate_bps,
                "measured_up_bps": unknown,
                "cut": np.zeros(len(self.fleet), dtype=bool),
                "present": self.present(),
            }
        )

    def set_rate(
        self, client: int | str, rate_bps: float, direction: Direction | None = None
    ) -> None:
        """Refuse: these links are not ours."""
        del client, rate_bps, direction
        self._refuse("set_rate")

    def follow(self, schedule: Schedule | None) -> None:
        """Refuse: these links are not ours."""
        if schedule is not None:
            self._refuse("follow")

    def cut(self, client: int | str) -> None:
        """Refuse: these links are not ours."""
        del client
        self._refuse("cut")

    def heal(self, client: int | str) -> None:
        """Refuse: these links are not ours."""
        del client
        self._refuse("heal")

    def remove(self, client: int | str) -> None:
        """Refuse: stop the client's SuperNode instead."""
        del client
        self._refuse("remove")

    def add(self, client: int | str) -> None:
        """Do nothing: a client is there when its SuperNode is."""
        self.fleet.index(client)

    def on_change(self, callback: Callable[[LinkChange], None]) -> Callable[[], None]:
        """Return at once: nothing here changes by itself."""
        del callback
        return lambda: None

    def close(self) -> None:
        """Do nothing: SuperLink and nodes stay as they are."""

    def _refuse(self, control: str) -> NoReturn:
        raise RuntimeError(
            f"{control} is not possible here: the links to {self.testbed.address} are real ones "
            "that this testbed does not control; use NamespaceTestbed() for links of your own"
        )
