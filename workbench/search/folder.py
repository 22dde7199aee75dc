"""The run folder, as the search writes it: config, manifest, events, models, checkpoint.

Everything but the events is written to a temporary file, synced, and renamed, so that a file is
either whole or not there. The checkpoint is written last and says how long the events were; what
stands behind that belongs to a round that did not end, and is cut off on resumption.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from safetensors.numpy import load_file, save
from safetensors.torch import load_file as load_tensors

from workbench.pruning import codec
from workbench.search import changes
from workbench.search import config as settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from workbench.fleet import Fleet

FORMAT = 1
_PACKAGES = ("flwr", "numpy", "pandas", "torch", "torch-pruning", "safetensors")


class RunFolderError(RuntimeError):
    """A folder that can't take this run: it can't be written, is in use, or holds another run."""


class RunFolder:
    """The folder of one run, locked by this process while it is open."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: int | None = None

    # ------------------------------------------------------------------ opening

    def open(self, config: Mapping[str, Any]) -> Self:
        """Create the folder for a config, or open the one that holds the same config.

        Raises
        ------
        RunFolderError
            If the folder can't be written, another process writes it, or it holds something else;
            a config that differs is named entry by entry.
        """
        try:
            (self.path / "models").mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "run.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunFolderError(
                f"{self.path} can't be written: {error.strerror}; name a folder that can"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise RunFolderError(f"{self.path} is in use by another process") from error
        try:
            self._adopt(config)
        except BaseException:
            self.close()
            raise
        return self

    def _adopt(self, config: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(config))
        known = self.path / "config.json"
        if known.exists():
            before = json.loads(known.read_text("utf-8"))
            # What was changed while the search ran is no other config: its events tell of it.
            now = changes.changed_config(before, self.kept_events("change"))
            found = settings.differences(before, wanted)
            if found and settings.differences(now, wanted):
                raise RunFolderError(
                    f"{self.path} holds a run with another config: {'; '.join(found)}. "
                    "Use another folder, or the same settings to go on with that run"
                )
            return
        others = [entry.name for entry in self.path.iterdir() if entry.name not in _OWN]
        if others:
            raise RunFolderError(
                f"{self.path} holds {sorted(others)[:3]} and no run; name an empty or new folder"
            )
        self.write_json("manifest.json", manifest())
        self.write_json("config.json", wanted)

    def close(self) -> None:
        """Give the folder free."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ events

    def append(self, event: Mapping[str, Any]) -> None:
        """Append one event as a line of JSON, and see it on the disk."""
        line = json.dumps(event, allow_nan=True, separators=(",", ":")) + "\n"
        with (self.path / "events.jsonl").open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def kept_events(self, *names: str) -> list[dict[str, Any]]:
        """Events of these kinds that a resumed run goes on from."""
        checkpoint, events = self.path / "checkpoint.json", self.path / "events.jsonl"
        if not (checkpoint.exists() and events.exists()):
            return []
        length = json.loads(checkpoint.read_text("utf-8"))["events_bytes"]
        starts = tuple(f'{{"event":"{name}"'.encode() for name in names)
        lines = events.read_bytes()[:length].splitlines()
        return [json.loads(line) for line in lines if line.startswith(starts)]

    # ------------------------------------------------------------------ checkpoint

    def save_checkpoint(
        self, state: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
    ) -> None:
        """Keep the state after a complete round; the one before stays until this one is whole."""
        events = self.path / "events.jsonl"
        place = f"checkpoint-{time.time_ns()}.safetensors"
        self._write(place, save({name: np.ascontiguousarray(a) for name, a in tensors.items()}))
        self.write_json(
            "checkpoint.json",
            {
                **state,
                "events_bytes": events.stat().st_size if events.exists() else 0,
                "tensors": place,
            },
        )
        for old in self.path.glob("checkpoint-*.safetensors"):
            if old.name != place:
                old.unlink()

    def load_checkpoint(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """Return the last state and its tensors, and cut off events that came after it."""
        path = self.path / "checkpoint.json"
        if not path.exists():
            # Killed before the first complete round: nothing that was written counts.
            (self.path / "events.jsonl").unlink(missing_ok=True)
            return None
        state = json.loads(path.read_text("utf-8"))
        events = self.path / "events.jsonl"
        if events.exists():
            os.truncate(events, state["events_bytes"])
        return state, load_file(self.path / state["tensors"])

    # ------------------------------------------------------------------ files

    def write_fleet(self, fleet: Fleet) -> None:
        """Keep the fleet, so that a run can be read without the data set."""
        if not (self.path / "fleet.npz").exists():
            buffer = io.BytesIO()
            np.savez_compressed(
                buffer,
                label_counts=fleet.label_counts,
                tier=fleet.tier,
                rate_bps=fleet.rate_bps,
                names=np.array(fleet.names),
                tiers=np.array(json.dumps(settings.describe(fleet.tiers))),
            )
            self._write("fleet.npz", buffer.getvalue())

    def read_model(self, name: str) -> tuple[nn.Module, str]:
        """Return a model that `write_model` wrote, and its description."""
        return read_model(self.path, name)

    def write_model(self, name: str, description: str, weights: bytes) -> None:
        """Write a global model: its description, and its weights as safetensors."""
        self._write(f"models/{name}.safetensors", weights)
        self._write(f"models/{name}.json", description.encode())

    def write_json(self, name: str, data: object) -> None:
        """Write a JSON file, whole or not at all."""
        self._write(name, (json.dumps(data, indent=1) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        target = self.path / name
        scratch = target.with_name(f".{target.name}.part")
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)


def read_model(path: Path, name: str) -> tuple[nn.Module, str]:
    """Return a model of a run folder, and its description.

    Raises
    ------
    FileNotFoundError
        If the run has no such model.
    """
    description = (path / "models" / f"{name}.json").read_text("utf-8")
    model = codec.build(description)
    model.load_state_dict(load_tensors(path / "models" / f"{name}.safetensors"))
    return model, description


_OWN = {"models", "run.lock", "manifest.json", ".manifest.json.part", ".config.json.part"}


def manifest() -> dict[str, Any]:
    """Return what this run was made with: versions, git commit, machine."""
    return {
        "format": FORMAT,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "workbench": _own_version(),
        "git_commit": _git_commit(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "argv": sys.argv[:1],
    }


def _own_version() -> str:
    with contextlib.suppress(Exception):
        return version("federated-nas-workbench")
    return "unknown"


def _git_commit() -> str | None:
    """Return the commit of the package's checkout, if it is one."""
    git = shutil.which("git")
    if git is None:
        return None
    result = subprocess.run(  # noqa: S603  # a fixed command
        [git, "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None
