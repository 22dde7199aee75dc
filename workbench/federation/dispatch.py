"""Jobs over groups: send each job to the clients of a free group, and judge what comes back.

Nothing here knows what a message asks for. Replies are taken in as they come; no group waits for
another, and nobody waits for a client beyond the deadline.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from workbench.federation import flower, payload
from workbench.federation.aggregation import WeightedMean, fused_mean
from workbench.federation.records import ClientRecord, Group, Job, Outcome
from workbench.federation.timekeeping import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flwr.serverapp import Grid

    from workbench.federation.nodes import Nodes
    from workbench.federation.records import Status
    from workbench.federation.timekeeping import Timekeeper

_POLL_S = 0.02


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RoundLimits:
    """How long a round waits, and for how many.

    Parameters
    ----------
    deadline_s
        Seconds that a group's round may last; later replies are left out. None waits for all.
    min_replies
        Replies that a group needs; with fewer its candidate is lost in this round.
    """

    deadline_s: float | None = Field(default=None, gt=0)
    min_replies: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Request:
    """What to ask of a job's clients: whom, in which message, and what it costs them."""

    kind: str
    clients: Callable[[Job, Group], Sequence[int]]
    content: Callable[[Job, int], RecordDict]
    macs: Callable[[Job, int], float]
    weights: bool
    """Whether replies have to bring weights."""


@dataclass
class _Running:
    """A job on its group, with the messages that are still out."""

    outcome: Outcome
    request: Request
    waiting: set[str] = field(default_factory=set)
    mean: WeightedMean | None = None
    loss_sum: float = 0.0
    correct: int = 0


@dataclass(frozen=True)
class _Sent:
    running: _Running
    record: ClientRecord


class Dispatcher:
    """Run jobs on groups of clients over a Grid; see `workbench.federation.rounds.RoundDriver`."""

    def __init__(
        self, grid: Grid, timekeeper: Timekeeper, nodes: Nodes, limits: RoundLimits
    ) -> None:
        self._grid = grid
        self._time = timekeeper
        self._nodes = nodes
        self._limits = limits
        self._sent: dict[str, _Sent] = {}

    def run(
        self,
        jobs: Sequence[Job],
        groups: Sequence[Group],
        request: Request,
        fixed: Mapping[int, int] | None = None,
    ) -> list[Outcome]:
        """Run every job on a group as soon as one is free; ``fixed`` names a job's only group."""
        begin = self._time.now_s()
        queue = list(jobs)
        free = dict.fromkeys(range(len(groups)), begin)
        running: dict[int, _Running] = {}
        done: dict[int, Outcome] = {}
        while queue or running:
            while (found := self._next(queue, free, running, fixed)) is not None:
                job, place = found
                queue.remove(job)
                running[place] = self._start(job, groups[place], free.pop(place), request)
            self._collect(running)
            for place in [place for place, job in running.items() if not job.waiting]:
                outcome = self._finish(running.pop(place))
                done[outcome.job.candidate] = outcome
                free[place] = outcome.end_s
        outcomes = [done[job.candidate] for job in jobs]
        self._time.advance(max((outcome.end_s for outcome in outcomes), default=begin))
        return outcomes

    def _next(
        self,
        queue: Sequence[Job],
        free: Mapping[int, float],
        running: Mapping[int, _Running],
        fixed: Mapping[int, int] | None,
    ) -> tuple[Job, int] | None:
        """Choose the job to start next and the group that is free first; None to wait."""
        if fixed is None:
            pairs = [(free[place], place, queue[0]) for place in free] if queue else []
        else:
            pairs = [
                (free[place], place, job)
                for job in queue
                if (place := fixed[job.candidate]) in free
            ]
        if not pairs:
            return None
        since, place, job = min(pairs, key=lambda pair: pair[:2])
        # In virtual time a running job may turn out to have ended before this group was free.
        certain = all(other.outcome.start_s >= since for other in running.values())
        return (job, place) if certain or self._time.waits else None

    def _start(self, job: Job, group: Group, since: float, request: Request) -> _Running:
        start = self._time.now_s() if self._time.waits else since
        running = _Running(Outcome(job, group.number, start), request)
        messages, sent = [], []
        for client in request.clients(job, group):
            content = request.content(job, client)
            message = Message(
                content,
                self._nodes.node_id[client],
                request.kind,
                group_id=f"{job.candidate}",
                ttl=self._limits.deadline_s if self._time.waits else None,
            )
            messages.append(message)
            record = ClientRecord(
                client=client,
                candidate=job.candidate,
                group=group.number,
                message=request.kind,
                status="ok",
                bytes_down=payload.message_bytes(content),
                macs=request.macs(job, client),
            )
            sent.append(_Sent(running, record))
        for message_id, note in zip(self._grid.push_messages(messages), sent, strict=True):
            self._sent[message_id] = note
            running.waiting.add(message_id)
        return running

    # ------------------------------------------------------------------ replies

    def _collect(self, running: Mapping[int, _Running]) -> None:
        """Take in all replies that are there; if none is, wait a moment and mind the deadline."""
        if not self._sent:
            return
        idle = True
        for reply in self._grid.pull_messages(list(self._sent)):
            sent = self._sent.pop(reply.metadata.reply_to_message_id, None)
            if sent is not None:
                idle = False
                sent.running.waiting.discard(reply.metadata.reply_to_message_id)
                self._take(reply, sent)
        if self._time.waits:
            self._expire(running)
        if idle:
            time.sleep(_POLL_S)

    def _expire(self, running: Mapping[int, _Running]) -> None:
        """Stop waiting for the clients whose group is past its deadline."""
        limit = self._limits.deadline_s
        now = self._time.now_s()
        for job in running.values():
            if limit is None or now < job.outcome.start_s + limit:
                continue
            for message_id in job.waiting:
                sent = self._sent.pop(message_id)
                reason = f"no reply within {limit:g} s"
                record = replace(sent.record, status="late", reason=reason, end_s=now)
                job.outcome.clients.append(record)
            job.waiting.clear()

    def _take(self, reply: Message, sent: _Sent) -> None:
        """Judge one reply, add what it brought to its job, and write its record."""
        outcome = sent.running.outcome
        bytes_up = payload.message_bytes(reply.content) if reply.has_content() else 0
        metrics = _metrics(reply)
        timing = self._time.timing(
            Exchange(
                client=sent.record.client,
                start_s=outcome.start_s,
                bytes_down=sent.record.bytes_down,
                bytes_up=bytes_up,
                macs=sent.record.macs,
                measured_compute_s=_number(metrics, "compute_s"),
            )
        )
        limit = self._limits.deadline_s
        status: Status = "ok"
        reason = ""
        if reply.has_error() and reply.error.code == flower.LATE:
            # The Grid may find before `_expire` does that a message's time is over.
            status, reason = "late", reply.error.reason or "no reply in its time"
        elif reply.has_error():
            status, reason = "failed", f"{reply.error.reason or f'error {reply.error.code}'}"
        elif not math.isfinite(timing.end_s):
            status, reason = "unreachable", "the link never carries the message"
        elif limit is not None and timing.end_s > outcome.start_s + limit:
            status, reason = "late", f"replied after {timing.end_s - outcome.start_s:.1f} s"
        else:
            try:
                self._add(reply, sent, metrics)
            except (payload.PayloadError, KeyError, TypeError, ValueError) as error:
                status, reason = "refused", str(error)
        record = replace(
            sent.record,
            status=status,
            reason=reason[:500],
            bytes_up=bytes_up,
            train_samples=int(_number(metrics, "train_samples")),
            test_samples=int(_number(metrics, "test_samples")),
            transfer_s=timing.transfer_s,
            compute_s=timing.compute_s,
            end_s=timing.end_s,
        )
        outcome.clients.append(record)

    def _add(self, reply: Message, sent: _Sent, metrics: Mapping[str, Any]) -> None:
        """Add weights and figures of a reply to its job, after checking them."""
        running = sent.running
        expected = int(self._nodes.test_samples[sent.record.client])
        tested = int(metrics.get("test_samples", 0))
        correct = int(metrics.get("test_correct", 0))
        loss_sum = float(metrics.get("test_loss_sum", 0.0))
        if tested not in {0, expected} or not 0 <= correct <= tested:
            raise ValueError(
                f"{correct} of {tested} test samples correct; the client has {expected}"
            )
        trained = int(self._nodes.train_samples[sent.record.client])
        if running.request.kind == MessageType.TRAIN and int(metrics["train_samples"]) != trained:
            raise ValueError(f"{metrics['train_samples']} training samples; it has {trained}")
        if "weights" in reply.content:
            if running.mean is None:
                running.mean = WeightedMean(running.outcome.job.weights)
            record = cast("ArrayRecord", reply.content["weights"])
            running.mean.add(payload.from_record(record), trained)
        elif running.request.weights:
            raise ValueError("the reply holds no weights")
        running.correct += correct
        running.loss_sum += loss_sum
        running.outcome.test_samples += tested

    def _finish(self, running: _Running) -> Outcome:
        """Fuse what a job's clients returned (DecNAS, section 4.3)."""
        outcome = running.outcome
        limit = self._limits.deadline_s
        latest = outcome.start_s + limit if limit is not None else math.inf
        ends = [min(record.end_s, latest) for record in outcome.clients]
        outcome.end_s = max((end for end in ends if math.isfinite(end)), default=outcome.start_s)
        outcome.clients.sort(key=lambda record: record.client)
        replies = len(outcome.replied)
        if replies < self._limits.min_replies:
            outcome.lost = (
                f"{replies} of {len(outcome.clients)} replies counted, but "
                f"{self._limits.min_replies} are needed{_most(outcome.clients)}"
            )
            return outcome
        if running.mean is not None:
            outcome.weights = running.mean.result()
        outcome.accuracy = fused_mean(running.correct, outcome.test_samples)
        outcome.loss = fused_mean(running.loss_sum, outcome.test_samples)
        return outcome


def _most(records: Sequence[ClientRecord]) -> str:
    """Name the most frequent failure of a group, for a message."""
    reasons = Counter(
        f"{record.status}: {record.reason}" for record in records if record.status != "ok"
    )
    return f"; most often {reasons.most_common(1)[0][0]}" if reasons else ""


def _metrics(reply: Message) -> Mapping[str, Any]:
    if not reply.has_content() or "metrics" not in reply.content:
        return {}
    return cast("MetricRecord", reply.content["metrics"])


def _number(metrics: Mapping[str, Any], name: str) -> float:
    value = metrics.get(name, 0.0)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
