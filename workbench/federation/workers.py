"""Worker processes for the in-process Grid: several clients at once, and still bit for bit.

Threads would share torch's random generator and Python's lock, so that a run would neither repeat
nor be faster. Workers are forked from this process with all that it has loaded, which takes
milliseconds. Weights pass through memory that both sides share: a request's arrays are written
once, however many clients get them, and a reply's arrays are read where the worker wrote them.
Replies are handed out in the order of the requests, whichever worker is faster.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import warnings
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Execute = Callable[[Message], tuple[Message, bool]]
    """Runs a message in this process; returns the reply and whether the node now keeps state."""

MOST_BYTES = 64 * 2**20
"""Models above this size are not trained side by side: they fill the cores and the memory."""

_SLOTS = 4
_ALIGNMENT = 64


class WorkerDiedError(RuntimeError):
    """A worker process ended in the middle of its work; the message says how."""


@dataclass
class _Worker:
    pid: int
    connection: Connection
    slots: list[int] = field(default_factory=lambda: list(range(_SLOTS)))
    running: int = 0


class WorkerPool:
    """Run messages in forked processes.

    Parameters
    ----------
    execute
        What a worker does with a message.
    workers
        Number of processes.
    arena_bytes, slot_bytes
        Room for the arrays of all requests of a batch, and of one reply.
    """

    def __init__(self, execute: Execute, workers: int, arena_bytes: int, slot_bytes: int) -> None:
        self.arena_bytes = arena_bytes
        self.slot_bytes = slot_bytes
        self._arena = mmap.mmap(-1, max(arena_bytes, mmap.PAGESIZE))
        self._replies = [
            mmap.mmap(-1, max(_SLOTS * slot_bytes, mmap.PAGESIZE)) for _ in range(workers)
        ]
        self._home: dict[int, int] = {}
        self._workers: list[_Worker] = []
        for number in range(workers):
            self._workers.append(self._fork(execute, number))

    # ------------------------------------------------------------------ the parent's side

    def run(self, messages: Sequence[Message]) -> Iterator[tuple[Message, RecordDict | str]]:
        """Yield each message with its reply's content, or with the reason of its failure.

        The arrays of a content are views that hold until the next one is asked for.

        Raises
        ------
        WorkerDiedError
            If a worker ended, for example because memory ran out.
        """
        arrays = self._write_requests(messages)
        waiting = deque(range(len(messages)))
        arrived: dict[int, tuple[_Worker, int, Any]] = {}
        for number, message in enumerate(messages):
            while number not in arrived:
                self._dispatch(messages, waiting, arrays)
                self._receive(messages, arrived)
            worker, slot, answer = arrived.pop(number)
            if isinstance(answer, str):
                yield message, answer
            else:
                yield message, _decode(answer, self._slot(worker, slot))
            worker.slots.append(slot)

    def close(self) -> None:
        """End the workers; a second call does nothing."""
        for worker in self._workers:
            worker.connection.close()
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
        self._workers = []

    def _write_requests(self, messages: Sequence[Message]) -> dict[int, tuple[int, int]]:
        """Copy the arrays of all requests into the arena, each once; return where they lie."""
        places: dict[int, tuple[int, int]] = {}
        view = memoryview(self._arena)
        offset = 0
        for message in messages:
            for record in message.content.values():
                if not isinstance(record, ArrayRecord):
                    continue
                for array in record.values():
                    if id(array) in places:
                        continue
                    view[offset : offset + len(array.data)] = array.data
                    places[id(array)] = (offset, len(array.data))
                    offset += -(-len(array.data) // _ALIGNMENT) * _ALIGNMENT
        return places

    def _dispatch(
        self,
        messages: Sequence[Message],
        waiting: deque[int],
        arrays: dict[int, tuple[int, int]],
    ) -> None:
        """Send on what can be sent: at most two messages a worker, kept state to its keeper."""
        for number in list(waiting):
            node = messages[number].metadata.dst_node_id
            home = self._home.get(node)
            able = self._workers if home is None else [self._workers[home]]
            able = [worker for worker in able if worker.running < 2 and worker.slots]
            if not able:
                if home is None:
                    return
                continue
            worker = min(able, key=lambda each: each.running)
            waiting.remove(number)
            worker.running += 1
            content = _encode(messages[number].content, arrays)
            metadata = dict(messages[number].metadata.__dict__)
            worker.connection.send((number, worker.slots.pop(0), metadata, content))

    def _receive(
        self,
        messages: Sequence[Message],
        arrived: dict[int, tuple[_Worker, int, Any]],
    ) -> None:
        """Wait for at least one answer and take in all that are there."""
        ready = wait([worker.connection for worker in self._workers if worker.running])
        for place, worker in enumerate(list(self._workers)):
            if worker.connection not in ready:
                continue
            try:
                number, slot, keeps, answer = worker.connection.recv()
            except (EOFError, ConnectionError) as error:
                _, status = os.waitpid(worker.pid, 0)
                self._workers.remove(worker)
                code = os.waitstatus_to_exitcode(status)
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
                raise WorkerDiedError(f"a worker process ended with {how}") from error
            worker.running -= 1
            node = messages[number].metadata.dst_node_id
            if keeps:
                self._home[node] = place
            else:
                self._home.pop(node, None)
            arrived[number] = (worker, slot, answer)

    def _slot(self, worker: _Worker, slot: int) -> memoryview:
        view = memoryview(self._replies[self._workers.index(worker)])
        return view[slot * self.slot_bytes : (slot + 1) * self.slot_bytes]

    # ------------------------------------------------------------------ the worker's side

    def _fork(self, execute: Execute, number: int) -> _Worker:
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            # The child computes with one thread and touches nothing that others may have locked.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            self._serve(execute, number, ours, theirs)
        theirs.close()
        return _Worker(pid, Connection(ours.detach()))

    def _serve(
        self, execute: Execute, number: int, ours: socket.socket, theirs: socket.socket
    ) -> NoReturn:
        """Answer messages until the parent closes the connection."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            ours.close()
            for other in self._workers:
                other.connection.close()
            torch.set_num_threads(1)
            connection = Connection(theirs.detach())
            arena = memoryview(self._arena).toreadonly()
            replies = memoryview(self._replies[number])
            while True:
                try:
                    place, slot, metadata, content = connection.recv()
                except EOFError:
                    break
                begin = slot * self.slot_bytes
                room = replies[begin : begin + self.slot_bytes]
                decoded = _decode(content, arena)
                message = Message(content=decoded, metadata=_metadata(metadata))  # type: ignore[call-overload]  # the form for internal use
                reply, keeps = execute(message)
                connection.send((place, slot, keeps, _answer(reply, room)))
        finally:
            os._exit(0)


def _answer(reply: Message, room: memoryview) -> list[Any] | str:
    """Return a reply as plain data, its arrays in shared memory; or the reason of a failure."""
    if reply.has_error():
        return reply.error.reason or "no reason given"
    needed, _ = arena_bytes([reply])
    if needed > len(room):
        return f"the reply has {needed} bytes of arrays, but there is room for {len(room)}"
    return _encode(reply.content, _write(reply.content, room))


def _write(content: RecordDict, room: memoryview) -> dict[int, tuple[int, int]]:
    """Copy the arrays of a content into shared memory and return where they lie."""
    places: dict[int, tuple[int, int]] = {}
    offset = 0
    for record in content.values():
        if isinstance(record, ArrayRecord):
            for array in record.values():
                room[offset : offset + len(array.data)] = array.data
                places[id(array)] = (offset, len(array.data))
                offset += -(-len(array.data) // _ALIGNMENT) * _ALIGNMENT
    return places


def _encode(content: RecordDict, places: dict[int, tuple[int, int]]) -> list[Any]:
    """Return a content as plain data, with the places of its arrays instead of their bytes."""
    plain: list[Any] = []
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays = {
                key: (array.dtype, array.shape, array.stype, *places[id(array)])
                for key, array in record.items()
            }
            plain.append((name, "arrays", arrays))
        elif isinstance(record, ConfigRecord):
            plain.append((name, "config", dict(record)))
        elif isinstance(record, MetricRecord):
            plain.append((name, "metrics", dict(record)))
    return plain


def _decode(plain: list[Any], memory: memoryview) -> RecordDict:
    """Return the content of plain data; its arrays are views of the memory."""
    content = RecordDict()
    for name, kind, entries in plain:
        if kind == "config":
            content[name] = ConfigRecord(entries)
        elif kind == "metrics":
            content[name] = MetricRecord(entries)
        else:
            record = ArrayRecord()
            for key, (dtype, shape, stype, begin, size) in entries.items():
                array = Array(dtype, shape, stype, b"")
                array.data = memory[begin : begin + size]  # type: ignore[assignment]  # a buffer
                record[key] = array
            content[name] = record
    return content


def _metadata(entries: dict[str, Any]) -> Metadata:
    metadata = Metadata.__new__(Metadata)
    metadata.__dict__.update(entries)
    return metadata


def arena_bytes(messages: Sequence[Message]) -> tuple[int, int]:
    """Return the room that the arrays of these requests need together, and the largest of them."""
    seen: dict[int, int] = {}
    largest = 0
    for message in messages:
        own = 0
        for record in message.content.values():
            if isinstance(record, ArrayRecord):
                for array in record.values():
                    size = -(-len(array.data) // _ALIGNMENT) * _ALIGNMENT
                    seen[id(array)] = size
                    own += size
        largest = max(largest, own)
    return sum(seen.values()), largest
