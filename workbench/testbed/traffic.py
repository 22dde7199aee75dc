"""Traffic over a live network: send bytes and time them, keep links busy, record what they carry.

None of it needs a federation. It is what one looks at links with.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from workbench.testbed.base import Direction
    from workbench.testbed.namespaces import NamespaceNetwork

_CHUNK = 1 << 16
_ACCEPT_S = 20.0


@contextmanager
def connections(
    network: NamespaceNetwork, clients: Sequence[int]
) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Connect clients, by row, to the server over TCP; gives (client's end, server's end) each."""
    ends: list[tuple[socket.socket, socket.socket]] = []
    with closing(network.inside.socket()) as listener:
        listener.bind((network.inside.address(), 0))
        listener.listen(len(clients))
        listener.settimeout(_ACCEPT_S)
        try:
            for row in clients:
                near = network.inside.socket(row)
                near.settimeout(_ACCEPT_S)
                try:
                    near.connect(listener.getsockname())
                    far, _ = listener.accept()
                except BaseException:
                    near.close()
                    raise
                for end in (near, far):
                    end.settimeout(None)
                ends.append((near, far))
            yield ends
        finally:
            for pair in ends:
                for end in pair:
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                    end.close()


def transfer_s(
    network: NamespaceNetwork,
    clients: Sequence[int | str],
    size_bytes: int,
    direction: Direction = "down",
) -> NDArray[np.float64]:
    """Send a message to (or from) each of some clients, all at once, and time it.

    Returns
    -------
    (n,) float64
        Seconds from the first byte sent until the last one arrived, for each client; NaN where
        the connection ended before.

    Raises
    ------
    ValueError
        If ``size_bytes`` is below 1.
    TimeoutError
        If a client can't be connected because its link is cut.
    """
    if size_bytes < 1:
        raise ValueError(f"size_bytes is {size_bytes}, but must be at least 1")
    rows = [network.fleet.index(client) for client in clients]
    took = np.full(len(rows), np.nan)
    with connections(network, rows) as ends:
        begin = time.monotonic()

        def receive(place: int, end: socket.socket) -> None:
            left = size_bytes
            while left and (data := end.recv(min(left, 1 << 20))):
                left -= len(data)
            took[place] = time.monotonic() - begin if not left else np.nan

        def send(end: socket.socket) -> None:
            data = memoryview(bytes(_CHUNK))
            left = size_bytes
            while left:
                left -= end.send(data[: min(left, _CHUNK)])

        threads = []
        for place, (near, far) in enumerate(ends):
            sender, receiver = (far, near) if direction == "down" else (near, far)
            threads.append(threading.Thread(target=receive, args=[place, receiver]))
            threads.append(threading.Thread(target=send, args=[sender]))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return took


@contextmanager
def busy(
    network: NamespaceNetwork, clients: Sequence[int | str], direction: Direction = "down"
) -> Iterator[None]:
    """Keep links full in one direction as long as the block lasts."""
    rows = [network.fleet.index(client) for client in clients]
    stop = threading.Event()
    data = bytes(_CHUNK)

    def send(end: socket.socket) -> None:
        with suppress(OSError):
            while not stop.is_set():
                end.send(data)

    def receive(end: socket.socket) -> None:
        with suppress(OSError):
            while end.recv(1 << 20):
                pass

    with connections(network, rows) as ends:
        threads = []
        for near, far in ends:
            sender, receiver = (far, near) if direction == "down" else (near, far)
            threads.append(threading.Thread(target=send, args=[sender], daemon=True))
            threads.append(threading.Thread(target=receive, args=[receiver], daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for pair in ends:
                for end in pair:
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


class LinkRecorder:
    """Records the requested and the measured rate of every link while the block lasts.

    Parameters
    ----------
    network
        A live network.
    every_s
        Seconds between two samples.
    """

    def __init__(self, network: NamespaceNetwork, every_s: float = 0.25) -> None:
        if not every_s > 0:
            raise ValueError(f"every_s is {every_s}, but must be above 0")
        self._network = network
        self._every_s = every_s
        self._stop = threading.Event()
        self._samples: list[tuple[float, NDArray[np.float64], NDArray[np.int64]]] = []
        self._thread = threading.Thread(target=self._record, daemon=True)

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def table(self) -> pd.DataFrame:
        """One row a sample and client.

        Columns: time_s (since the recorder began), client, requested_down_bps, measured_down_bps,
        requested_up_bps, measured_up_bps. A measured rate is the mean since the sample before.
        """
        began = self._samples[0][0] if self._samples else 0.0
        parts = []
        for (then, _, before), (now, rates, after) in zip(
            self._samples, self._samples[1:], strict=False
        ):
            measured = (after - before) * 8 / (now - then)
            parts.append(
                pd.DataFrame(
                    {
                        "time_s": now - began,
                        "client": list(self._network.fleet.names),
                        "requested_down_bps": rates[0],
                        "measured_down_bps": measured[0],
                        "requested_up_bps": rates[1],
                        "measured_up_bps": measured[1],
                    }
                )
            )
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def _record(self) -> None:
        while not self._stop.wait(self._every_s):
            self._sample()

    def _sample(self) -> None:
        ways: tuple[Direction, Direction] = ("down", "up")
        rates = np.stack([self._network.rates_bps(way) for way in ways])
        now, carried = self._network.carried()
        self._samples.append((now, rates, carried))
