"""Who the nodes of a Grid are: node ids are random, so each is asked which client it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from flwr.app import Message, MessageType, MetricRecord, RecordDict

if TYPE_CHECKING:
    from flwr.serverapp import Grid
    from numpy.typing import NDArray

_POLL_S = 0.02


@dataclass(frozen=True)
class Nodes:
    """Who the nodes are: for each client its node id and its numbers of samples."""

    node_id: list[int]
    train_samples: NDArray[np.int64]
    test_samples: NDArray[np.int64]


def discover(grid: Grid, clients: int, timeout_s: float = 60.0) -> Nodes:
    """Ask every node which client it is, and return their ids and sample counts by client.

    Raises
    ------
    RuntimeError
        If clients do not answer in time or two nodes are the same client; it names them.
    """
    node_of: dict[int, int] = {}
    train, test = np.zeros(clients, dtype=np.int64), np.zeros(clients, dtype=np.int64)
    end = time.monotonic() + timeout_s
    asked: set[int] = set()
    pending: set[str] = set()
    while len(node_of) < clients:
        new = [node for node in grid.get_node_ids() if node not in asked]
        asked.update(new)
        pending.update(
            grid.push_messages([Message(RecordDict(), node, MessageType.QUERY) for node in new])
        )
        for reply in grid.pull_messages(list(pending)):
            pending.discard(reply.metadata.reply_to_message_id)
            if reply.has_error():
                raise RuntimeError(f"a node did not say who it is: {reply.error.reason}")
            metrics = cast("MetricRecord", reply.content["metrics"])
            client = int(cast("int", metrics["partition"]))
            if not 0 <= client < clients or client in node_of:
                raise RuntimeError(
                    f"a node says it is client {client}; {clients} are expected, once"
                )
            node_of[client] = reply.metadata.src_node_id
            train[client], test[client] = metrics["train_samples"], metrics["test_samples"]
        if len(node_of) < clients:
            if time.monotonic() > end:
                missing = [client for client in range(clients) if client not in node_of]
                raise RuntimeError(f"clients {missing} did not answer within {timeout_s:g} s")
            time.sleep(_POLL_S)
    return Nodes([node_of[client] for client in range(clients)], train, test)
