"""The driver: equal to plain training, exact in its accounts, and unmoved by bad clients."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from tests.federation.conftest import Federation, job_of, network
from workbench.data.dataset import Dataset
from workbench.federation import flower, payload, training
from workbench.federation.client import make_client_app
from workbench.federation.dispatch import RoundLimits
from workbench.federation.local_grid import LocalGrid
from workbench.federation.nodes import discover
from workbench.federation.records import Group, Outcome
from workbench.federation.rounds import RoundDriver, RoundKey, client_seed
from workbench.federation.strategies import FedAvg, FedProx, LearningRateSchedule
from workbench.federation.timekeeping import VirtualTime
from workbench.fleet import Fleet
from workbench.testbed.simulated import SimulatedTestbed

KEY = RoundKey(iteration=1, round=1, rounds=3, seed=11)
ONE_STEP = FedAvg(learning_rate=0.1, momentum=0.0, weight_decay=0.0, batch_size=0)


def group(*clients: int, number: int = 0) -> Group:
    return Group(number, np.array(clients, dtype=np.int64))


def flat_of(outcome: Outcome) -> np.ndarray:
    assert outcome.weights is not None, outcome.lost
    return outcome.weights["float32"]


# ---------------------------------------------------------------------- what is trained


def test_one_client_is_plain_training_bit_for_bit(digits: Dataset, seven: Fleet) -> None:
    federation = Federation(digits, seven)
    strategy = FedAvg(learning_rate=0.05, batch_size=16)
    [outcome] = federation.driver.train([job_of(network())], [group(2)], strategy, KEY)

    plain = network()
    rows = seven.train_indices[2]
    settings = training.LocalSettings(1, 16, 0.05, 0.9, 1e-4, 0.0, client_seed(KEY, 0, 2))
    images = digits.images(rows).contiguous(memory_format=torch.channels_last)
    training.train(plain, images, torch.from_numpy(digits.labels[rows]), settings)
    for name, array in payload.flatten(plain).items():
        assert outcome.weights is not None
        assert np.array_equal(outcome.weights[name], array), name


def test_full_batch_steps_equal_centralised_gradient_descent(digits: Dataset, seven: Fleet) -> None:
    federation = Federation(digits, seven)
    job = job_of(network(norm=False))
    for number in (1, 2, 3):
        key = replace(KEY, round=number)
        [outcome] = federation.driver.train([job], [group(*range(7))], ONE_STEP, key)
        job = replace(job, weights=outcome.weights)

    central = network(norm=False)
    rows = np.concatenate(seven.train_indices)
    images, labels = digits.images(rows), torch.from_numpy(digits.labels[rows])
    for _ in range(3):
        loss = nn.functional.cross_entropy(central(images), labels)
        gradients = torch.autograd.grad(loss, list(central.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(central.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=0.1)
    np.testing.assert_allclose(
        job.weights["float32"], payload.flatten(central)["float32"], rtol=0, atol=1e-6
    )


def test_groups_train_their_own_candidates(digits: Dataset, seven: Fleet) -> None:
    both = Federation(digits, seven).driver.train(
        [job_of(network(1), 0), job_of(network(2), 1)],
        [group(0, 1, 2), group(3, 4, number=1)],
        ONE_STEP,
        KEY,
    )
    for place, clients in ((0, (0, 1, 2)), (1, (3, 4))):
        alone = Federation(digits, seven).driver.train(
            [job_of(network(place + 1), place)], [group(*clients)], ONE_STEP, KEY
        )
        assert np.array_equal(flat_of(both[place]), flat_of(alone[0]))
        assert both[place].replied == list(clients)


def test_a_round_repeats_bit_for_bit(digits: Dataset, seven: Fleet) -> None:
    results = [
        flat_of(
            Federation(digits, seven).driver.train(
                [job_of(network())], [group(*range(7))], FedProx(mu=0.1), KEY
            )[0]
        )
        for _ in range(2)
    ]
    assert np.array_equal(*results)


def test_the_learning_rate_follows_its_schedule(digits: Dataset, seven: Fleet) -> None:
    def change(schedule: LearningRateSchedule, number: int) -> np.ndarray:
        strategy = replace(ONE_STEP, schedule=schedule)
        job = job_of(network(norm=False))
        driver = Federation(digits, seven).driver
        [outcome] = driver.train([job], [group(0)], strategy, replace(KEY, round=number))
        return flat_of(outcome) - job.weights["float32"]

    full = change(LearningRateSchedule(), 3)
    tenth = change(LearningRateSchedule(kind="step", gamma=0.1, every=2), 3)
    np.testing.assert_allclose(tenth, full / 10, rtol=0, atol=1e-6)
    cosine = change(LearningRateSchedule(kind="cosine"), 3)
    np.testing.assert_allclose(cosine, full * 0.25, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------- tests and fusion


def test_accuracy_is_fused_by_test_samples(digits: Dataset, seven: Fleet) -> None:
    model = network()
    [outcome] = Federation(digits, seven).driver.evaluate([job_of(model)], [group(1, 3, 5)])
    rows = np.concatenate([seven.test_indices[client] for client in (1, 3, 5)])
    result = training.test(model, digits.images(rows), torch.from_numpy(digits.labels[rows]))
    assert outcome.accuracy == result.correct / result.samples
    assert outcome.loss == pytest.approx(result.loss_sum / result.samples, rel=1e-5)
    assert outcome.test_samples == len(rows)


def test_held_weights_come_when_they_are_asked_for(digits: Dataset, seven: Fleet) -> None:
    federation = Federation(digits, seven)
    jobs = [job_of(network(1), 0), job_of(network(2), 1)]
    groups = [group(0, 1), group(2, 3, number=1)]
    held = federation.driver.train(jobs, groups, ONE_STEP, KEY, test=True, hold=True)
    assert all(outcome.weights is None and not outcome.lost for outcome in held)
    assert all(record.bytes_up < 500 for outcome in held for record in outcome.clients)
    assert all(0 <= outcome.accuracy <= 1 for outcome in held)
    [uploaded] = federation.driver.upload([held[1]], KEY)
    direct = Federation(digits, seven).driver.train(jobs, groups, ONE_STEP, KEY)
    assert np.array_equal(flat_of(uploaded), flat_of(direct[1]))


def test_fewer_groups_than_candidates(digits: Dataset, seven: Fleet) -> None:
    """A candidate waits for the group that is free first, also when weights are held."""
    jobs = [job_of(network(seed), seed) for seed in range(5)]
    groups = [group(0, 1, 2), group(3, 4, number=1)]
    federation = Federation(digits, seven)
    held = federation.driver.train(jobs, groups, ONE_STEP, KEY, hold=True)
    uploaded = federation.driver.upload(held, KEY)
    direct = Federation(digits, seven).driver.train(jobs, groups, ONE_STEP, KEY)
    assert [outcome.job.candidate for outcome in direct] == list(range(5))
    for one, other in zip(uploaded, direct, strict=True):
        assert np.array_equal(flat_of(one), flat_of(other))
    assert {outcome.group for outcome in direct[:2]} == {0, 1}
    busy: dict[int, float] = {0: 0.0, 1: 0.0}
    for outcome in direct:
        assert outcome.start_s == pytest.approx(busy[outcome.group])
        assert busy[outcome.group] == min(busy.values())
        busy[outcome.group] = outcome.end_s
    assert federation.network.now_s() > max(busy.values()) * 0.5


# ---------------------------------------------------------------------- time and accounts


class CountingGrid(LocalGrid):
    """A grid that counts what goes over it."""

    down = 0
    up = 0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        kept = list(messages)
        self.down += sum(payload.message_bytes(message.content) for message in kept)
        return super().push_messages(kept)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for reply in super().pull_messages(message_ids):
            if reply.has_content():
                self.up += payload.message_bytes(reply.content)
            yield reply


def test_the_accounts_are_what_went_over_the_grid(digits: Dataset, seven: Fleet) -> None:
    network_ = SimulatedTestbed().up(seven)
    grid = CountingGrid(make_client_app(digits, seven), len(seven))
    nodes = discover(grid, len(seven))
    grid.down = grid.up = 0
    driver = RoundDriver(grid, VirtualTime(network_), nodes, RoundLimits())
    jobs = [job_of(network(1), 0), job_of(network(2), 1)]
    groups = [group(0, 1, 2), group(3, 4, 5, 6, number=1)]
    outcomes = driver.train(jobs, groups, FedAvg(local_epochs=2), KEY, test=True, hold=True)
    outcomes += driver.upload(outcomes[:1], KEY)
    outcomes += driver.evaluate(jobs, groups)
    records = [record for outcome in outcomes for record in outcome.clients]
    assert sum(record.bytes_down for record in records) == grid.down
    assert sum(record.bytes_up for record in records) == grid.up
    trained = next(record for record in records if record.client == 3 and record.message == "train")
    macs = jobs[1].macs_per_sample
    train, test = len(seven.train_indices[3]), len(seven.test_indices[3])
    assert trained.macs == macs * (3 * 2 * train + test)
    assert (trained.train_samples, trained.test_samples) == (train, test)


def test_a_round_lasts_as_long_as_its_slowest_client(digits: Dataset, seven: Fleet) -> None:
    federation = Federation(digits, seven, testbed=SimulatedTestbed(device_macs_per_s=1e8))
    job = job_of(network())
    [outcome] = federation.driver.train([job], [group(*range(7))], ONE_STEP, KEY)
    expected = [
        8 * (record.bytes_down + record.bytes_up) / seven.rate_bps[record.client]
        + 3 * job.macs_per_sample * len(seven.train_indices[record.client]) / 1e8
        for record in outcome.clients
    ]
    assert [record.end_s for record in outcome.clients] == pytest.approx(expected)
    assert outcome.duration_s == pytest.approx(max(expected))
    assert federation.network.now_s() == pytest.approx(max(expected))


def test_late_clients_are_left_out(digits: Dataset, seven: Fleet) -> None:
    free = Federation(digits, seven)
    [everyone] = free.driver.train([job_of(network())], [group(*range(7))], ONE_STEP, KEY)
    ends = sorted(record.end_s for record in everyone.clients)
    limit = (ends[3] + ends[4]) / 2
    limited = Federation(digits, seven, RoundLimits(deadline_s=limit))
    [outcome] = limited.driver.train([job_of(network())], [group(*range(7))], ONE_STEP, KEY)
    on_time = [record.client for record in everyone.clients if record.end_s <= limit]
    assert outcome.replied == on_time
    assert {record.status for record in outcome.clients} == {"ok", "late"}
    assert outcome.duration_s == pytest.approx(limit)
    [alone] = Federation(digits, seven).driver.train(
        [job_of(network())], [group(*on_time)], ONE_STEP, KEY
    )
    assert np.array_equal(flat_of(outcome), flat_of(alone))


def test_a_cut_client_is_unreachable_and_the_round_ends(digits: Dataset, seven: Fleet) -> None:
    federation = Federation(digits, seven)
    federation.network.cut(3)
    [outcome] = federation.driver.train([job_of(network())], [group(*range(7))], ONE_STEP, KEY)
    assert outcome.clients[3].status == "unreachable"
    assert len(outcome.replied) == 6
    assert math.isfinite(outcome.end_s)


# ---------------------------------------------------------------------- clients that misbehave


def misbehaving(change: Any) -> Any:
    """Wrap a ClientApp: ``change(client, message, reply)`` may replace a reply, or raise."""

    def wrap(app: ClientApp) -> Any:
        def call(message: Message, context: Context) -> Message:
            reply = app(message, context)
            client = int(context.node_config["partition-id"])
            if message.metadata.message_type == "query":
                return reply
            return change(client, message, reply) or reply

        return call

    return wrap


def spoil(kind: str) -> Any:
    def change(client: int, message: Message, reply: Message) -> Message | None:
        if client != 2 or message.metadata.message_type != "train":
            return None
        if kind == "raise":
            raise RuntimeError("the disk is full")
        if kind == "expire":
            return Message(Error(flower.LATE, "no reply in its time"), reply_to=message)
        content = RecordDict(copy.copy(dict(reply.content)))
        if kind == "nothing":
            content = RecordDict()
        elif kind == "samples":
            metrics = copy.copy(content["metrics"])
            metrics["train_samples"] = 10**9
            content["metrics"] = metrics
        else:
            content["weights"] = payload.to_record(spoilt(kind, reply.content["weights"]))
        return Message(content, reply_to=message)

    return misbehaving(change)


def spoilt(kind: str, weights: Any) -> payload.Flat:
    flat = {name: array.copy() for name, array in payload.from_record(weights).items()}
    if kind == "nan":
        flat["float32"][5] = np.nan
    elif kind == "shape":
        flat["float32"] = flat["float32"][:-1]
    else:
        flat["float64"] = flat.pop("float32").astype(np.float64)
    return flat


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("raise", "failed", "the disk is full"),
        ("expire", "late", "no reply in its time"),
        ("nan", "refused", "not finite"),
        ("shape", "refused", "elements"),
        ("dtype", "refused", "float64"),
        ("nothing", "refused", ""),
        ("samples", "refused", "1000000000"),
    ],
)
def test_a_bad_client_is_left_out_and_named(
    digits: Dataset, seven: Fleet, kind: str, status: str, reason: str
) -> None:
    federation = Federation(digits, seven, wrap=spoil(kind))
    [outcome] = federation.driver.train([job_of(network())], [group(*range(7))], ONE_STEP, KEY)
    assert outcome.clients[2].status == status
    assert reason in outcome.clients[2].reason
    others = [client for client in range(7) if client != 2]
    assert outcome.replied == others
    [clean] = Federation(digits, seven).driver.train(
        [job_of(network())], [group(*others)], ONE_STEP, KEY
    )
    assert np.array_equal(flat_of(outcome), flat_of(clean))


def test_a_group_without_replies_loses_its_candidate_alone(digits: Dataset, seven: Fleet) -> None:
    def change(client: int, _message: Message, _reply: Message) -> None:
        if client in {0, 1}:
            raise RuntimeError("gone")

    federation = Federation(digits, seven, wrap=misbehaving(change))
    outcomes = federation.driver.train(
        [job_of(network(1), 0), job_of(network(2), 1)],
        [group(0, 1), group(2, 3, number=1)],
        ONE_STEP,
        KEY,
    )
    assert outcomes[0].weights is None
    assert "gone" in outcomes[0].lost
    assert outcomes[1].weights is not None
    assert not outcomes[1].lost


def test_a_minimum_of_replies_holds(digits: Dataset, seven: Fleet) -> None:
    federation = Federation(digits, seven, RoundLimits(min_replies=3))
    jobs = [job_of(network(1), 0), job_of(network(2), 1)]
    groups = [group(0, 1), group(2, 3, 4, number=1)]
    outcomes = federation.driver.train(jobs, groups, ONE_STEP, KEY)
    assert [bool(outcome.lost) for outcome in outcomes] == [True, False]


def test_clients_without_samples_get_no_message(digits: Dataset) -> None:
    empty = np.empty(0, dtype=np.int64)
    fleet = Fleet.dirichlet(digits, clients=3, alpha=1.0, seed=0)
    fleet = replace(
        fleet,
        train_indices=(empty, *fleet.train_indices[1:]),
        test_indices=(fleet.test_indices[0], empty, fleet.test_indices[2]),
    )
    driver = Federation(digits, fleet).driver
    [trained] = driver.train([job_of(network())], [group(0, 1, 2)], ONE_STEP, KEY)
    [tested] = driver.evaluate([job_of(network())], [group(0, 1, 2)])
    assert trained.replied == [1, 2]
    assert tested.replied == [0, 2]


def test_an_empty_group_loses_its_candidate(digits: Dataset, seven: Fleet) -> None:
    [outcome] = Federation(digits, seven).driver.train(
        [job_of(network())], [group()], ONE_STEP, KEY
    )
    assert outcome.lost


@pytest.mark.parametrize(
    "settings",
    [
        {"deadline_s": 0},
        {"deadline_s": -1.0},
        {"min_replies": 0},
    ],
)
def test_limits_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        RoundLimits(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"rounds": 0},
        {"local_epochs": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1e-4},
        {"batch_size": -1},
        {"mu": -0.1},
    ],
)
def test_training_settings_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        FedProx(**settings)
