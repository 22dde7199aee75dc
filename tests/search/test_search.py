"""The loop as a whole: what it leaves behind, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.search import small
from workbench.federation.dispatch import RoundLimits
from workbench.fleet import Fleet
from workbench.grouping.baselines import NetworkAwareGrouping, RandomGrouping
from workbench.pruning.cost import cost_of
from workbench.pruning.netadapt import NetAdapt
from workbench.search.policies import (
    CELEBA_ROUNDS,
    IMAGENET_ROUNDS,
    Availability,
    DynamicRounds,
    EarlyDropping,
    SearchPolicy,
    survivors,
)
from workbench.search.search import Search
from workbench.testbed.simulated import SimulatedTestbed


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_search_shrinks_the_network(search: Callable[..., Search], tmp_path: Path) -> None:
    run = search().run(tmp_path, progress=False)
    table = run.frontier()
    assert table["iteration"].tolist() == [0, 1, 2]
    assert table["macs"].is_monotonic_decreasing
    initial = table["macs"][0]
    for iteration in (1, 2):
        target = table["macs"][iteration - 1] - 0.1 * initial * 0.96 ** (iteration - 1)
        assert table["macs"][iteration] <= target
        built = cost_of(run.model(iteration), (1, 32, 32))
        assert built.macs == table["macs"][iteration]
        assert built.size_bytes == table["size_bytes"][iteration]
    assert table["accuracy"].between(0, 1).all()
    assert (table["duration_s"] > 0).all()


def test_the_best_candidate_wins(search: Callable[..., Search], tmp_path: Path) -> None:
    run = search().run(tmp_path, progress=False)
    before = run.frontier().set_index("iteration")
    for iteration, rows in run.candidates().groupby("iteration"):
        last = before.loc[iteration - 1]
        merit = (last["accuracy"] - rows["accuracy"]) / (1 - rows["macs"] / last["macs"])
        assert rows["selected"].sum() == 1
        assert merit[rows["selected"]].item() == pytest.approx(merit.min())


def test_groups_and_sizes_go_together(search: Callable[..., Search], tmp_path: Path) -> None:
    run = search(grouping=NetworkAwareGrouping()).run(tmp_path, progress=False)
    for event in run.of("group"):
        assert event["sizes_bytes"] == sorted(event["sizes_bytes"], reverse=True)
        grouping = run.grouping(event["iteration"])
        slowest = [grouping.rate_bps[grouping.members(g)].min() for g in range(grouping.groups)]
        assert slowest == sorted(slowest, reverse=True)
    table = run.accounting()
    trained = table[(table["message"] == "train") & (table["iteration"] > 0)]
    assert (trained["group"] == trained["candidate"]).all()


def test_rates_of_the_moment_decide(search: Callable[..., Search], tmp_path: Path) -> None:
    """The second iteration groups by the rates that the schedule has drawn by then."""
    slow = SimulatedTestbed(device_macs_per_s=2e4)
    run = search(testbed=slow).run(tmp_path, progress=False)
    first, second = (np.array(event["rate_bps"]) for event in run.of("group"))
    assert run.of("group")[1]["time_s"] > 300
    assert not np.array_equal(first, second)


def test_the_last_round_ends_when_its_slowest_client_does(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    run = search().run(tmp_path, progress=False)
    accounts = run.accounting()
    for _, row in run.rounds().iterrows():
        own = accounts[
            (accounts["iteration"] == row["iteration"]) & (accounts["round"] == row["round"])
        ]
        assert row["start_s"] + row["duration_s"] == pytest.approx(own["end_s"].max())


def test_dropping_leaves_one_and_saves_uploads(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    base = {"pretrain_rounds": 1, "accuracy": "local"}
    all_ = search(policy=SearchPolicy(**base)).run(tmp_path / "all", progress=False)
    policy = SearchPolicy(**base, dropping=EarlyDropping(ratio=1.0))
    one = search(policy=policy).run(tmp_path / "one", progress=False)
    first = one.of("round")[1]
    assert len(first["candidates"]) == 3
    assert len(first["dropped"]) == 2
    assert len(one.of("round")[2]["candidates"]) == 1
    accounts = one.accounting()
    uploads = accounts[(accounts["iteration"] == 1) & (accounts["round"] == 1)]
    dropped = uploads["candidate"].isin(first["dropped"])
    assert (uploads.loc[dropped, "bytes_up"] < 1000).all()
    assert one.accounting()["bytes_up"].sum() < all_.accounting()["bytes_up"].sum()


def test_rounds_may_depend_on_the_iteration(search: Callable[..., Search], tmp_path: Path) -> None:
    policy = SearchPolicy(pretrain_rounds=0, rounds=DynamicRounds(((1, 1), (2, 3))))
    run = search(policy=policy).run(tmp_path, progress=False)
    assert run.rounds().groupby("iteration").size().to_dict() == {1: 1, 2: 3}


def test_tuning_trains_chosen_models(search: Callable[..., Search], tmp_path: Path) -> None:
    policy = SearchPolicy(pretrain_rounds=1, tune_rounds=2, tune_iterations=(1, -1))
    run = search(policy=policy).run(tmp_path, progress=False)
    assert [event["of"] for event in run.of("tuned")] == [1, 2]
    assert (tmp_path / "models" / "tuned_001.safetensors").exists()
    tuned = run.rounds()
    assert len(tuned[tuned["phase"] == "tune"]) == 2


def test_a_third_of_the_clients_fails_in_every_round(
    search: Callable[..., Search], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.search import search as module

    def flaky(dataset: Any, fleet: Fleet, device: str) -> Any:
        app = module_make(dataset, fleet, device)
        chance = np.random.default_rng(0)

        def call(message: Any, context: Any) -> Any:
            if message.metadata.message_type == "train" and chance.random() < 0.3:
                raise RuntimeError("battery empty")
            return app(message, context)

        return call

    module_make = module.make_client_app
    monkeypatch.setattr(module, "make_client_app", flaky)
    run = search(fleet=small.fleet(12)).run(tmp_path, progress=False)
    assert run.finished
    failures = run.failures()
    assert set(failures["reason"]) == {"RuntimeError: battery empty"}
    assert failures["iteration"].nunique() == 3
    assert 5 <= len(failures) <= 40


def test_absent_clients_take_no_part(search: Callable[..., Search], tmp_path: Path) -> None:
    away = Availability(trace=((0,), (0, 1)))
    run = search(availability=away).run(tmp_path, progress=False)
    table = run.accounting()
    trained = table[table["message"].eq("train") & table["status"].eq("ok")]
    assert 0 not in trained["client"].tolist()
    assert set(table.loc[table["status"] == "absent", "client"]) <= {0, 1}


def test_groups_may_be_kept(search: Callable[..., Search], tmp_path: Path) -> None:
    policy = SearchPolicy(pretrain_rounds=1, regroup="never")
    slow = SimulatedTestbed(device_macs_per_s=2e4)
    run = search(policy=policy, testbed=slow, grouping=RandomGrouping(seed=1)).run(
        tmp_path / "kept", progress=False
    )
    first, second = run.grouping(1), run.grouping(2)
    assert np.array_equal(first.assignment, second.assignment)
    assert not np.array_equal(first.rate_bps, second.rate_bps)
    policy = SearchPolicy(pretrain_rounds=1)
    run = search(policy=policy, testbed=slow, grouping=RandomGrouping(seed=1)).run(
        tmp_path / "anew", progress=False
    )
    assert not np.array_equal(run.grouping(1).assignment, run.grouping(2).assignment)


def test_a_deadline_keeps_rounds_short(search: Callable[..., Search], tmp_path: Path) -> None:
    free = search().run(tmp_path / "free", progress=False)
    limit = float(free.rounds()["duration_s"].median() * 0.8)
    run = search(limits=RoundLimits(deadline_s=limit)).run(tmp_path / "held", progress=False)
    assert (run.rounds()["duration_s"] <= limit * (1 + 1e-9)).all()
    assert "late" in set(run.accounting()["status"])


def test_fewer_groups_than_candidates(search: Callable[..., Search], tmp_path: Path) -> None:
    run = search(groups=2).run(tmp_path, progress=False)
    assert len(run.of("round")[1]["candidates"]) == 3
    assert {entry["group"] for entry in run.of("round")[1]["candidates"]} == {0, 1}


def test_different_seeds_differ(search: Callable[..., Search], tmp_path: Path) -> None:
    one = search(grouping=RandomGrouping(seed=1)).run(tmp_path / "1", progress=False)
    two = search(grouping=RandomGrouping(seed=2)).run(tmp_path / "2", progress=False)
    assert not np.array_equal(one.grouping(1).assignment, two.grouping(1).assignment)


def test_pausing_waits_between_rounds(search: Callable[..., Search], tmp_path: Path) -> None:
    import threading

    running = search()
    rounds: list[int] = []
    paused = threading.Event()

    def listen(event: Any) -> None:
        if event["event"] == "round":
            rounds.append(event["round"])
            if len(rounds) == 2:
                running.pause()
                paused.set()

    running.listeners.append(listen)
    thread = threading.Thread(target=running.run, args=(tmp_path,), kwargs={"progress": False})
    thread.start()
    assert paused.wait(60)
    thread.join(0.3)
    assert thread.is_alive()
    assert len(rounds) == 2
    running.resume()
    thread.join(60)
    assert not thread.is_alive()
    assert len(rounds) == 5


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 7}, "groups is 7, but there are 6 clients"),
        ({"groups": 0}, "groups is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"netadapt": NetAdapt(budget=0.0001)}, "budget of macs is 0.0001"),
        (
            {"fleet": Fleet.from_label_counts(np.ones((6, 10)))},
            "the fleet has no training samples",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    search: Callable[..., Search], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        search(**settings)


def test_policies_are_checked() -> None:
    with pytest.raises(ValueError, match="accuracy"):
        SearchPolicy(dropping=EarlyDropping())
    with pytest.raises(ValueError, match="steps"):
        DynamicRounds(((5, 1), (5, 2)))
    with pytest.raises(ValueError, match="ratio"):
        EarlyDropping(ratio=1.5)
    with pytest.raises(ValueError, match="rate"):
        Availability(rate=0)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        Availability(trace=((3,),)).mask(3, 1, 1, 0)


def test_published_tables_of_rounds() -> None:
    assert [IMAGENET_ROUNDS.rounds(n) for n in (1, 5, 7, 10, 11, 15, 16, 40)] == [
        5, 5, 10, 10, 15, 15, 20, 20,
    ]  # fmt: skip
    assert [CELEBA_ROUNDS.rounds(n) for n in (1, 5, 6, 10, 11, 15, 16, 40)] == [
        2, 2, 5, 5, 8, 8, 10, 10,
    ]  # fmt: skip


def test_dropping_ratios() -> None:
    assert [EarlyDropping(ratio=0.33).keep(n) for n in (14, 9, 6, 4, 2, 1)] == [9, 6, 4, 2, 1, 1]
    assert [EarlyDropping(ratio=ratio).keep(7) for ratio in (0, 0.5, 1)] == [7, 3, 1]
    assert survivors([0.3, math.nan, 0.1, 0.1], 2) == [2, 3]
    assert survivors([math.nan, math.nan], 1) == [0]
