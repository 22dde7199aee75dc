"""What a round leaves behind: for each client what it cost, and for each candidate its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.federation.payload import Flat

Status = Literal["ok", "late", "failed", "refused", "absent", "unreachable"]
"""How a client's part ended: ``late`` missed the deadline, ``failed`` answered with an error,
``refused`` sent weights or figures that can't be used, ``absent`` was away, ``unreachable`` has a
link that never carries the message."""


@dataclass(frozen=True)
class ClientRecord:
    """One message to one client and its reply; ``message`` is its type (train, evaluate, ...)."""

    client: int
    candidate: int
    group: int
    message: str
    status: Status
    reason: str = ""
    bytes_down: int = 0
    bytes_up: int = 0
    train_samples: int = 0
    test_samples: int = 0
    macs: float = 0.0
    transfer_s: float = 0.0
    compute_s: float = 0.0
    end_s: float = 0.0


@dataclass
class Job:
    """A model that a group of clients is to train or to test."""

    candidate: int
    architecture: str
    weights: Flat
    macs_per_sample: int


@dataclass
class Outcome:
    """What came of one job in one round.

    ``weights`` is None while clients hold theirs back, and where too few replied (``lost`` then
    says why). Accuracy and loss are fused by test samples, NaN where nothing was tested.
    """

    job: Job
    group: int
    start_s: float
    end_s: float = 0.0
    weights: Flat | None = None
    accuracy: float = float("nan")
    loss: float = float("nan")
    test_samples: int = 0
    lost: str = ""
    clients: list[ClientRecord] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        """Seconds from the first message to the last reply that counted."""
        return self.end_s - self.start_s

    @property
    def replied(self) -> list[int]:
        """Rows of the clients whose replies counted."""
        return [record.client for record in self.clients if record.status == "ok"]


@dataclass(frozen=True)
class Group:
    """Rows of the clients that work together, ascending by number."""

    number: int
    clients: NDArray[Any]


def columns(records: Sequence[ClientRecord]) -> dict[str, list[Any]]:
    """Return records column by column, JSON-able and compact."""
    return {
        entry.name: [getattr(record, entry.name) for record in records]
        for entry in fields(ClientRecord)
    }
