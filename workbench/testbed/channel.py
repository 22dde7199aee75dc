"""A private channel between a notebook and the processes of its testbed.

It is a pair of connected, nameless unix sockets: nothing is bound, nothing is listed in the file
system, and only a process that was handed an end can use it. Messages are JSON; file descriptors
(sockets, namespaces, processes) travel beside them.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from typing import Any

_LARGEST_MESSAGE = 1 << 20
_MOST_DESCRIPTORS = 16


class ChannelClosedError(ConnectionError):
    """The process at the other end is gone."""


class Channel:
    """One end of the pair."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST_MESSAGE)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Make both ends; descriptors are not passed on by exec."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def from_descriptor(cls, descriptor: int) -> Channel:
        """Make an end of a descriptor that was received or inherited."""
        return cls(socket.socket(fileno=descriptor))

    def detach(self) -> int:
        """Give up this end and return its descriptor."""
        return self._socket.detach()

    def fileno(self) -> int:
        """Return the descriptor, so that the end can be polled."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        """Send one message.

        Raises
        ------
        ChannelClosedError
            If the other end is gone.
        """
        data = json.dumps(message).encode()
        try:
            socket.send_fds(self._socket, [data], descriptors or [])
        except (BrokenPipeError, ConnectionResetError, OSError) as error:
            raise ChannelClosedError(str(error)) from error

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for one message; the descriptors that came with it belong to the caller.

        Raises
        ------
        ChannelClosedError
            If the other end is gone.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, _LARGEST_MESSAGE, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise ChannelClosedError(str(error)) from error
        if not data:
            raise ChannelClosedError("the other end was closed")
        return json.loads(data), list(descriptors)

    def request(self, **question: object) -> tuple[Any, list[int]]:
        """Ask and wait for the answer; threads take turns.

        Raises
        ------
        ChannelClosedError
            If the other end is gone.
        RuntimeError
            If the other end could not do it; the message is its reason.
        """
        with self._lock:
            self.send(question)
            answer, descriptors = self.receive()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer.get("value"), descriptors

    def forget(self) -> None:
        """Close this process's copy of the end; others that share it go on."""
        self._socket.close()

    def close(self) -> None:
        """Close the end for all who share it."""
        with suppress(OSError):
            # Wakes a thread that waits in receive, which closing alone does not.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
