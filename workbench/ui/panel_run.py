"""A run that is still growing, and its events as sentences."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from workbench.search.run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class FollowedRun:
    """The run of a folder as it stands now; only what is new is read again.

    A run that goes on may have lost the events of a round that had not ended: then everything is
    read again.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._run: Run | None = None
        self._read_bytes = 0
        self._last_line = b""

    def at(self, path: Path) -> Run | None:
        """Return the run in ``path``, or None if there is none yet."""
        events = path / "events.jsonl"
        if not (path / "config.json").exists() or not (path / "manifest.json").exists():
            self._path = self._run = None
            return None
        size = events.stat().st_size if events.exists() else 0
        if path != self._path or self._run is None or not self._continues(events, size):
            self._path, self._run = path, Run(path)
            self._read_bytes, self._last_line = 0, b""
            self._run.__dict__["events"] = []
        if size > self._read_bytes:
            with events.open("rb") as file:
                file.seek(self._read_bytes)
                new = file.read().split(b"\n")[:-1]
            # A new object, because a Run is a picture of one moment.
            known = self._run.events + [json.loads(line) for line in new]
            self._run = Run(path)
            self._run.__dict__["events"] = known
            self._read_bytes += sum(len(line) + 1 for line in new)
            self._last_line = new[-1] if new else self._last_line
        return self._run

    def _continues(self, events: Path, size: int) -> bool:
        """Whether the file still holds what was read of it."""
        if size < self._read_bytes:
            return False
        if not self._last_line:
            return True
        with events.open("rb") as file:
            file.seek(self._read_bytes - len(self._last_line) - 1)
            return file.read(len(self._last_line)) == self._last_line


def sentence(event: Mapping[str, Any]) -> str:
    """Say in words what an event tells, for the log."""
    kind, iteration = event["event"], event["iteration"]
    where = "pre-training" if iteration == 0 else f"iteration {iteration}"
    if event["phase"] == "tune":
        where = "tuning"
    described = {
        "propose": _propose, "group": _group, "round": _round, "test": _test, "select": _select,
        "stop": _stop, "tuned": _tuned, "change": _change, "link": _link,
    }  # fmt: skip
    text = described[kind](event) if kind in described else kind
    return f"{_clock(event['time_s'])}  {where}: {text}"


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(int(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _propose(event: Mapping[str, Any]) -> str:
    usable = sum(entry["status"] == "ok" for entry in event["candidates"])
    return f"{len(event['candidates'])} candidates proposed, {usable} usable"


def _group(event: Mapping[str, Any]) -> str:
    grouping = event["grouping"]
    emd = grouping["emd"]
    return (
        f"{event['groups']} groups by {grouping['strategy']}, mean EMD {sum(emd) / len(emd):.3f}, "
        f"{len(grouping['swaps'])} swaps"
    )


def _round(event: Mapping[str, Any]) -> str:
    statuses = event["clients"].get("status", [])
    bad = {name: statuses.count(name) for name in dict.fromkeys(statuses) if name != "ok"}
    replies = sum(entry["replies"] for entry in event["candidates"])
    text = f"round {event['round']} of {event['rounds']} took {event['duration_s']:.1f} s, "
    text += f"{replies} replies"
    if bad:
        text += "; " + ", ".join(f"{count} {name}" for name, count in bad.items())
    if event["lost"]:
        text += f"; candidates lost: {', '.join(event['lost'])}"
    return text


def _test(event: Mapping[str, Any]) -> str:
    best = max((entry["accuracy"] or 0 for entry in event["candidates"]), default=0)
    several = len(event["candidates"]) > 1
    return f"{event['of']} tested, {'best accuracy' if several else 'accuracy'} {best:.3f}"


def _select(event: Mapping[str, Any]) -> str:
    block = f"{event['block']} was pruned, " if event["block"] else ""
    accuracy = "unknown" if event["accuracy"] is None else f"{event['accuracy']:.3f}"
    return f"{block}accuracy {accuracy}, {event['macs'] / 1e6:.2f} MMACs"


def _stop(event: Mapping[str, Any]) -> str:
    return f"the search ends: {event['reason']}"


def _tuned(event: Mapping[str, Any]) -> str:
    return f"the network of iteration {event['of']} has accuracy {event['accuracy'] or 0:.3f}"


def _change(event: Mapping[str, Any]) -> str:
    value = dict(event["value"])
    kind = value.pop("type", "")
    shown = ", ".join(f"{key}={entry}" for key, entry in value.items() if entry is not None)
    return f"{event['setting']} changed to {kind}({shown})"


def _link(event: Mapping[str, Any]) -> str:
    what = {
        "cut": "link cut", "heal": "link healed", "remove": "taken out", "add": "put back",
    }  # fmt: skip
    if event["what"] == "rate":
        return f"{event['client']}: rate set to {event['asked_bps'] / 1e6:g} Mbit/s"
    return f"{event['client']}: {what[event['what']]}"
