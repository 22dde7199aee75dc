"""A ClientApp for tests of live engines, which is also made in containers: it needs no test."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp


class PortableApp(ClientApp):
    """Takes this file along."""

    def pack(self, client, folder):
        del client
        shutil.copy(__file__, folder / "live_app.py")
        return "live_app:make_app"


def make_app(folder: Path | None = None) -> ClientApp:
    """Make an app that adds its client's row + 1, and does what the message's config says."""
    del folder
    app = PortableApp()

    @app.train()
    def train(message, context):
        row = context.node_config["partition-id"]
        config = message.content["config"]
        weights = message.content["weights"]["float32"].numpy()
        time.sleep(config["sleep_s"])
        if config["fail"]:
            raise ZeroDivisionError(f"client {row} was told to fail")
        if config.get("memory_mb"):
            np.ones(int(config["memory_mb"] * 131_072))
        calls = context.state.setdefault("calls", MetricRecord({"count": 0}))
        calls["count"] += 1
        added = weights + np.float32(row + 1)
        metrics = {"row": row, "count": calls["count"], "clients": context.node_config["clients"]}
        content = {
            "weights": ArrayRecord({"float32": Array(added)}),
            "metrics": MetricRecord(metrics),
        }
        return Message(RecordDict(content), reply_to=message)

    return app
