"""A run on disk: what a search left behind, as tables."""

from __future__ import annotations

import html
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.fleet import Fleet
from workbench.grouping.result import Grouping
from workbench.pruning.export import ExportFormat, export_model
from workbench.search import config as settings
from workbench.search.folder import read_model

if TYPE_CHECKING:
    from torch import nn


class Run:
    """A run folder, read. It may still be growing: `reload` reads it again.

    Raises
    ------
    FileNotFoundError
        If there is no run in the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "config.json").exists():
            raise FileNotFoundError(f"{self.path} holds no run: it has no config.json")
        self.config: dict[str, Any] = json.loads((self.path / "config.json").read_text("utf-8"))
        self.manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_text("utf-8"))

    # ------------------------------------------------------------------ as it was written

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """All events, oldest first; a last line that was cut off is left out."""
        path = self.path / "events.jsonl"
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def of(self, *names: str) -> list[dict[str, Any]]:
        """Events of these kinds."""
        return [event for event in self.events if event["event"] in names]

    def reload(self) -> Run:
        """Return this run as it stands now."""
        return Run(self.path)

    @cached_property
    def checkpoint(self) -> dict[str, Any]:
        """The last checkpoint's state; empty before the first."""
        path = self.path / "checkpoint.json"
        return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}

    @property
    def finished(self) -> bool:
        """Whether the search came to its end."""
        return self.checkpoint.get("phase") == "done"

    @property
    def iterations(self) -> int:
        """Complete iterations, without pre-training."""
        return max((event["iteration"] for event in self.of("select")), default=0)

    @cached_property
    def fleet(self) -> Fleet:
        """The fleet, without its samples: label counts, tiers and first link rates."""
        with np.load(self.path / "fleet.npz", allow_pickle=False) as data:
            return Fleet.from_label_counts(
                data["label_counts"],
                tiers=settings.restore(json.loads(str(data["tiers"]))),
                tier=data["tier"],
                rate_bps=data["rate_bps"],
                names=[str(name) for name in data["names"]],
            )

    # ------------------------------------------------------------------ as tables

    def frontier(self) -> pd.DataFrame:
        """One row an iteration: what the network costs, and how good it is.

        Columns: iteration (0 is the pre-trained network), block that was pruned, macs, parameters,
        size_bytes, accuracy (fused over the whole fleet's test samples), duration_s.
        """
        rows = [
            {
                "iteration": event["iteration"],
                "block": event["block"],
                "macs": event["macs"],
                "parameters": event["parameters"],
                "size_bytes": event["size_bytes"],
                "accuracy": _number(event["accuracy"]),
                "duration_s": event["duration_s"],
            }
            for event in self.of("select")
        ]
        return pd.DataFrame(
            rows,
            columns=[
                "iteration", "block", "macs", "parameters", "size_bytes", "accuracy", "duration_s",
            ],
        )  # fmt: skip

    def rounds(self) -> pd.DataFrame:
        """One row a round: iteration, round, start_s, duration_s, candidates, replies, lost."""
        rows = [
            {
                "phase": event["phase"],
                "iteration": event["iteration"],
                "round": event["round"],
                "start_s": event["start_s"],
                "duration_s": event["duration_s"],
                "candidates": len(event["candidates"]),
                "replies": sum(entry["replies"] for entry in event["candidates"]),
                "dropped": len(event["dropped"]),
                "lost": len(event["lost"]),
            }
            for event in self.of("round")
        ]
        names = "phase iteration round start_s duration_s candidates replies dropped lost"
        return pd.DataFrame(rows, columns=names.split())

    def candidates(self) -> pd.DataFrame:
        """One row a candidate and iteration: block, costs, accuracy on its group, selected."""
        rows = [
            {"iteration": event["iteration"], **entry, "accuracy": _number(entry["accuracy"]),
             "selected": entry["candidate"] == event["candidate"]}
            for event in self.of("select")
            for entry in event["candidates"]
        ]  # fmt: skip
        names = "iteration candidate block macs parameters size_bytes accuracy selected"
        return pd.DataFrame(rows, columns=names.split())

    def accounting(self) -> pd.DataFrame:
        """One row a message to a client: what it cost in bytes, samples, MACs and seconds.

        Columns: phase, iteration, round (0 for a test), client, candidate, group, message, status,
        reason, bytes_down, bytes_up, train_samples, test_samples, macs, transfer_s, compute_s,
        end_s.
        """
        parts = [
            pd.DataFrame(event["clients"]).assign(
                phase=event["phase"],
                iteration=event["iteration"],
                round=event.get("round", 0),
                of=event.get("of", "train"),
            )
            for event in self.of("round", "test")
            if event["clients"]["client"]
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def client_costs(self) -> pd.Series[float]:
        """Return what the search cost an average client, as DecNAS counts in Table 3 and Figure 6.

        uplink_bytes, downlink_bytes, macs, transfer_s and compute_s are means over all clients and
        leave out pre-training and tuning; total_bytes is the traffic of all clients in everything.
        """
        table = self.accounting()
        names = {
            "bytes_up": "uplink_bytes",
            "bytes_down": "downlink_bytes",
            "macs": "macs",
            "transfer_s": "transfer_s",
            "compute_s": "compute_s",
        }
        if table.empty:
            return pd.Series(dict.fromkeys([*names.values(), "total_bytes"], 0.0))
        search = table[(table["iteration"] > 0) & (table["phase"] == "search")]
        totals = search[list(names)].replace([np.inf], np.nan).sum()
        costs = totals.rename(names) / len(self.fleet)
        costs["total_bytes"] = float(table["bytes_up"].sum() + table["bytes_down"].sum())
        return costs

    def failures(self) -> pd.DataFrame:
        """Who failed when, and why: the rows of the accounting that did not end well."""
        table = self.accounting()
        if table.empty:
            return table
        names = ["iteration", "round", "client", "candidate", "message", "status", "reason"]
        return table.loc[table["status"] != "ok", names].reset_index(drop=True)

    def grouping(self, iteration: int) -> Grouping:
        """Return the grouping of an iteration.

        Raises
        ------
        KeyError
            If the run has no such iteration.
        """
        found = [event for event in self.of("group") if event["iteration"] == iteration]
        if not found:
            known = sorted({event["iteration"] for event in self.of("group")})
            raise KeyError(f"no grouping of iteration {iteration}; there are {known}")
        fleet = self.fleet.with_rates(found[-1]["rate_bps"])
        return Grouping.from_dict(found[-1]["grouping"], fleet)

    def model(self, iteration: int) -> nn.Module:
        """Return the global model of an iteration, with its weights.

        Raises
        ------
        FileNotFoundError
            If the run has no such iteration.
        """
        return read_model(self.path, f"iteration_{iteration:03d}")[0]

    def export(
        self,
        iteration: int,
        format: ExportFormat = "safetensors",  # noqa: A002  # the word that people use
        path: str | Path | None = None,
    ) -> Path:
        """Write an iteration's global model to a file that can be deployed.

        Parameters
        ----------
        iteration
            0 for the pre-trained network.
        format
            ``safetensors``, ``torchscript`` or ``onnx``.
        path
            The file; by default ``exports/`` in the run folder.

        Returns
        -------
        Path
            Where it was written.

        Raises
        ------
        FileNotFoundError
            If the run has no such iteration.
        ValueError
            If the format is none of the three.
        """
        model = self.model(iteration)
        shape = self.config["dataset"]["input_shape"]
        if path is None:
            ending = {"torchscript": "pt"}.get(format, format)
            path = self.path / "exports" / f"iteration_{iteration:03d}.{ending}"
            path.parent.mkdir(exist_ok=True)
        return export_model(model, shape, path, format)

    def report(self, path: str | Path) -> Path:
        """Write this run as one HTML file: figures, tables, settings, versions and seeds.

        The file needs no network, and can be printed; the run need not be finished.

        Returns
        -------
        Path
            Where it was written.

        Raises
        ------
        ValueError
            If the run has no result yet.
        """
        # A run knows nothing of figures; only this convenience does, when it is asked for.
        from workbench.ui.run_report import write_run_report  # noqa: PLC0415

        return write_run_report(self, path)

    # ------------------------------------------------------------------ how it shows itself

    def __repr__(self) -> str:
        state = "finished" if self.finished else "not finished"
        return f"Run({str(self.path)!r}, {self.iterations} iterations, {state})"

    def _repr_html_(self) -> str:
        table = self.frontier()
        if table.empty:
            return f"<p>{html.escape(repr(self))}</p>"
        first, last = table.iloc[0], table.iloc[-1]
        shown = pd.DataFrame(
            {
                "iteration": table["iteration"],
                "pruned block": table["block"],
                "MMACs": table["macs"] / 1e6,
                "MB": table["size_bytes"] / 1e6,
                "accuracy": table["accuracy"],
                "duration (s)": table["duration_s"],
            }
        )
        return (
            f"<p><b>{html.escape(str(self.path))}</b>: {self.iterations} iterations"
            f"{'' if self.finished else ' (not finished)'}, MACs "
            f"{last['macs'] / first['macs'] - 1:+.1%}, size "
            f"{last['size_bytes'] / first['size_bytes'] - 1:+.1%}, accuracy "
            f"{first['accuracy']:.3f} → {last['accuracy']:.3f}</p>"
            + shown.to_html(index=False, float_format="{:.3f}".format)
        )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
