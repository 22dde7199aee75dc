"""The ClientApp: what every client runs, in process, in Flower's simulation, and live.

It answers four kinds of message:

- ``query``: which partition this node holds, with its label counts;
- ``train``: load the weights, train, optionally test, and return the new weights (or, where
  weights are to be held back, only the figures);
- ``train.upload``: return the weights that the last training held back;
- ``evaluate``: load the weights and test them.

A message carries the architecture as a declarative description and the weights as flat arrays;
no code of the sender is run.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from workbench.federation import payload, share, training
from workbench.pruning import codec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from workbench.data.dataset import Dataset
    from workbench.fleet import Fleet

UPLOAD = "train.upload"
"""Message type that asks for weights which a training held back."""

_CACHED_MODELS = 2
"""Modules that are kept however large they are: what one client trains, the next one trains."""
_CACHED_BYTES = 256 * 2**20
"""Room for more modules, and for samples: in every round the same candidates come round again."""


@dataclass
class ClientState:
    """What the clients of one process share: data, and modules that are loaded again in place."""

    dataset: Dataset
    fleet: Fleet
    device: torch.device
    lends_weights: bool = False
    """Whether a reply's weights may lie in the module's own memory: whoever runs the ClientApp
    sets this if it takes each reply in before the next message is executed."""
    module_bytes: int = _CACHED_BYTES
    """Room for modules that came round before; a process for each client needs less of it."""
    modules: OrderedDict[str, payload.FlatModule] = field(default_factory=OrderedDict)
    samples: OrderedDict[tuple[int, bool], tuple[torch.Tensor, torch.Tensor]] = field(
        default_factory=OrderedDict
    )
    sample_bytes: int = 0

    def module(self, description: str) -> payload.FlatModule:
        """Return the module of a description; its weights are whatever was there last."""
        if description not in self.modules:
            built = codec.build(description).to(self.device)
            self.modules[description] = payload.FlatModule(built)
            while len(self.modules) > _CACHED_MODELS and (
                sum(module.nbytes for module in self.modules.values()) > self.module_bytes
            ):
                self.modules.popitem(last=False)
        self.modules.move_to_end(description)
        return self.modules[description]

    def data(self, client: int, *, test: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a client's training or test samples as (n, C, H, W) images and (n,) labels."""
        key = (client, test)
        if key not in self.samples:
            rows = (self.fleet.test_indices if test else self.fleet.train_indices)[client]
            images = self.dataset.images(rows).to(self.device)
            images = images.contiguous(memory_format=training.memory_format(images))
            labels = torch.from_numpy(self.dataset.labels[rows]).to(self.device)
            self.samples[key] = (images, labels)
            self.sample_bytes += images.nbytes
            # On a GPU everything stays: data is loaded once, client after client.
            while self.device.type == "cpu" and self.sample_bytes > _CACHED_BYTES:
                _, (oldest, _) = self.samples.popitem(last=False)
                self.sample_bytes -= oldest.nbytes
            return images, labels
        self.samples.move_to_end(key)
        return self.samples[key]


class Clients(ClientApp):
    """A ClientApp together with what its clients share; see `make_client_app`."""

    def __init__(self, state: ClientState) -> None:
        super().__init__()
        self.state = state

    def pack(self, client: int, folder: Path) -> str:
        """Write a client's share into a folder; return what makes the app of it in a container."""
        share.write(self.state.dataset, self.state.fleet, client, folder)
        return f"{__name__}:unpack"


def unpack(folder: Path) -> Clients:
    """Make the ClientApp of one client's share; it computes on the CPU."""
    return make_client_app(*share.read(folder))


def make_client_app(dataset: Dataset, fleet: Fleet, device: str = "cpu") -> Clients:
    """Make the ClientApp over a dataset and a fleet.

    Which client a node is stands in its node config, ``partition-id``.
    """
    state = ClientState(dataset, fleet, torch.device(device))
    app = Clients(state)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        client = _client(context, fleet)
        metrics: dict[str, Any] = {
            "partition": client,
            "train_samples": len(fleet.train_indices[client]),
            "test_samples": len(fleet.test_indices[client]),
            "label_counts": [int(count) for count in fleet.label_counts[client]],
        }
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = _client(context, fleet)
        config = cast("ConfigRecord", message.content["config"])
        flat = _received(message, state)
        images, labels = state.data(client, test=False)
        begin = time.perf_counter()
        loss = training.train(flat.module, images, labels, _local_settings(config))
        metrics: dict[str, Any] = {"loss": loss, "train_samples": len(labels)}
        if config["test"]:
            metrics |= _tested(flat.module, *state.data(client, test=True))
        metrics["compute_s"] = time.perf_counter() - begin
        hold = str(config["hold"])
        lend = state.lends_weights and not hold
        weights = payload.to_record(flat.weights(lend=lend))
        content = RecordDict({"metrics": MetricRecord(metrics)})
        if hold:
            _hold(context, hold, weights)
        else:
            content["weights"] = weights
        return Message(content, reply_to=message)

    @app.train("upload")
    def upload(message: Message, context: Context) -> Message:
        name = str(cast("ConfigRecord", message.content["config"])["hold"])
        if name not in context.state:
            raise RuntimeError(f"client {_client(context, fleet)} holds no weights named {name}")
        held = context.state.pop(name)
        return Message(RecordDict({"weights": held}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        client = _client(context, fleet)
        flat = _received(message, state)
        begin = time.perf_counter()
        metrics = _tested(flat.module, *state.data(client, test=True))
        metrics["compute_s"] = time.perf_counter() - begin
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    return app


def held_key(iteration: int, round_number: int, candidate: int) -> str:
    """Return the name under which a client keeps weights that were not asked for yet."""
    return f"held.{iteration}.{round_number}.{candidate}"


def _hold(context: Context, name: str, weights: ArrayRecord) -> None:
    """Keep weights until they are asked for, and forget those of earlier rounds."""
    present = name.rpartition(".")[0]
    for other in [key for key in context.state if key.startswith("held.")]:
        if other.rpartition(".")[0] != present:
            del context.state[other]
    context.state[name] = weights


def _client(context: Context, fleet: Fleet) -> int:
    client = int(cast("int", context.node_config["partition-id"]))
    if not 0 <= client < len(fleet):
        raise ValueError(f"partition-id is {client}; the fleet has 0..{len(fleet) - 1}")
    return client


def _received(message: Message, state: ClientState) -> payload.FlatModule:
    config = cast("ConfigRecord", message.content["config"])
    flat = state.module(str(config["architecture"]))
    flat.load(payload.from_record(cast("ArrayRecord", message.content["weights"])))
    return flat


def _local_settings(config: ConfigRecord) -> training.LocalSettings:
    names = training.LocalSettings.__dataclass_fields__
    return training.LocalSettings(**{name: cast("Any", config[name]) for name in names})


def local_config(settings: training.LocalSettings) -> dict[str, Any]:
    """Return the settings as entries of a message's config."""
    return asdict(settings)


def _tested(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    result = training.test(module, images, labels)
    return {
        "test_loss_sum": result.loss_sum,
        "test_correct": result.correct,
        "test_samples": result.samples,
    }
