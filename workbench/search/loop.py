"""The steps of a search, in the order of DecNAS's Algorithm 4.1 with NAFNAS's grouping.

Each step reads and changes one `State`; each complete round writes an event and a checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.federation.records import Job, Outcome, columns
from workbench.federation.rounds import RoundKey
from workbench.grouping.base import grouping_of
from workbench.search.policies import degradation, survivors
from workbench.search.workspace import GlobalModel, SearchError, costs, plain, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.pruning.netadapt import Candidate
    from workbench.search.state import State
    from workbench.search.workspace import Workspace


class Loop:
    """One search, from wherever its run folder stands to the end."""

    def __init__(self, work: Workspace) -> None:
        self._work = work

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Go on from the last complete round to the end of the search."""
        state = self._work.resume()
        if state.phase == "search" and state.iteration == 0:
            self._pretrain(state)
        while state.phase == "search":
            reason = self._reason_to_stop(state)
            if reason is None:
                self._work.control.check()  # who stops or pauses now does not wait for candidates
                if candidates := self._propose(state):
                    self._iterate(state, candidates)
                    continue
            state.phase = "tune" if self._work.search.policy.tune_rounds else "done"
            self._work.event(state, "stop", reason=reason or "no block can be pruned any further")
            self._work.checkpoint(state)
        if state.phase == "tune":
            self._tune(state)

    def _pretrain(self, state: State) -> None:
        """Train the initial model over the whole fleet: iteration 0."""
        rounds = self._work.search.pretrain_rounds
        if not state.jobs:
            model = self._work.model
            self._work.save_model("initial", model.description, model.weights)
            state.jobs = [self._work.whole_model()]
            state.assignment, state.groups = [0] * self._work.clients, 1
        for number in range(state.round + 1, rounds + 1):
            self._train_round(state, number, rounds)
        self._adopt(state, state.jobs[0], block="", group_accuracy=math.nan, candidates=[])

    def _reason_to_stop(self, state: State) -> str | None:
        """Return why the search is at its end, or None."""
        netadapt = self._work.search.netadapt
        done = state.iteration - 1
        if done >= netadapt.iterations:
            return f"{netadapt.iterations} iterations are done"
        return (
            "the budget is reached"
            if netadapt.done(done, self._work.model.cost, self._work.initial)
            else None
        )

    def _iterate(self, state: State, candidates: list[Candidate]) -> None:
        """Run one iteration: group, train, drop, select."""
        if not state.jobs:
            self._group(state, candidates)
        rounds = self._work.search.rounds(state.iteration)
        for number in range(state.round + 1, rounds + 1):
            self._train_round(state, number, rounds)
        self._select(state, candidates)

    # ------------------------------------------------------------------ propose and group

    def _propose(self, state: State) -> list[Candidate]:
        """Make one candidate per block under the iteration's budget, the largest first."""
        proposed = self._work.search.netadapt.propose(
            self._work.model.module(),
            self._work.input_shape,
            iteration=state.iteration,
            initial=self._work.initial,
        )
        usable = [candidate for candidate in proposed if candidate.usable]
        if not state.jobs:
            self._work.take_changes(state)
            self._work.event(
                state,
                "propose",
                target=self._work.search.netadapt.target(
                    state.iteration, self._work.model.cost, self._work.initial
                ),
                candidates=[
                    {"block": candidate.block, "status": candidate.status, **costs(candidate.cost)}
                    for candidate in proposed
                ],
            )
        return sorted(usable, key=lambda candidate: -candidate.cost.size_bytes)

    def _group(self, state: State, candidates: Sequence[Candidate]) -> None:
        """Group the clients that are there by the link rates of this moment, and set out."""
        search = self._work.search
        fleet = self._work.network.fleet.with_rates(self._work.network.rates_bps())
        groups = len(candidates) if search.groups is None else search.groups
        sizes = [float(candidate.cost.size_bytes) for candidate in candidates]
        keeps = search.policy.regroup == "never"
        if keeps and state.iteration > 1:
            groups = state.groups
            kept = np.array(state.assignment, dtype=np.int64)
            grouping = grouping_of(self._work.grouping, fleet, kept, groups)
        else:
            grouping = self._work.grouping.group(
                fleet,
                groups,
                sizes_bytes=sizes_of_groups(sizes, groups),
                # Who is away now may be there later, and needs a group that is kept.
                available=None if keeps else self._work.present(state, 0),
                iteration=state.iteration,
            )
        state.assignment = [int(group) for group in grouping.assignment]
        state.groups = groups
        state.jobs = [
            self._work.job(number, candidate) for number, candidate in enumerate(candidates)
        ]
        order = search.schedule_order(state.iteration, len(candidates))
        state.jobs = [state.jobs[place] for place in order]
        self._work.event(
            state,
            "group",
            groups=groups,
            sizes_bytes=sizes,
            rate_bps=[float(rate) for rate in fleet.rate_bps],
            grouping=grouping.to_dict(),
        )
        self._work.checkpoint(state)

    # ------------------------------------------------------------------ one round

    def _train_round(self, state: State, number: int, rounds: int) -> None:
        """Train all candidates for one round (Algorithm 4.1, Cloud_One_Round)."""
        work, policy = self._work, self._work.search.policy
        try:
            work.control.check()
        finally:
            work.take_changes(state)
        start = work.time.now_s()
        key = RoundKey(state.iteration, number, rounds, work.search.seed)
        present = work.present(state, number)
        racing = state.phase == "search" and state.iteration > 0
        dropping = policy.dropping if racing else None
        outcomes = work.driver.train(
            state.jobs,
            work.groups(state, present),
            work.search.training,
            key,
            test=racing and policy.accuracy == "local",
            hold=dropping is not None,
        )
        trained, dropped = outcomes, []
        if dropping is not None:
            # Accuracies first: the clients of a dropped candidate upload no weights.
            able = [outcome for outcome in outcomes if not outcome.lost]
            kept = self._keep(state, able, dropping.keep(len(able)))
            dropped = [outcome.job.candidate for outcome in able if outcome not in kept]
            trained = work.driver.upload(kept, key)
        exchanges = outcomes if trained is outcomes else [*outcomes, *trained]
        lost = {outcome.job.candidate: outcome.lost for outcome in exchanges if outcome.lost}
        weights = {o.job.candidate: o.weights for o in trained if o.weights is not None}
        for outcome in outcomes:
            if not math.isnan(outcome.accuracy):
                state.local_accuracy[outcome.job.candidate] = outcome.accuracy
        work.event(
            state,
            "round",
            round=number,
            rounds=rounds,
            start_s=start,
            duration_s=work.time.now_s() - start,
            candidates=[summary(outcome) for outcome in outcomes],
            dropped=dropped,
            lost=lost,
            **({"limits": limits} if (limits := work.engine.limits()) else {}),
            clients=columns(
                [record for outcome in exchanges for record in outcome.clients]
                + work.absent(state, present)
            ),
        )
        if not weights:
            # The checkpoint stays where it is: a resumed run tries this round again.
            raise SearchError(
                f"iteration {state.iteration}, round {number}: all candidates are lost "
                f"({'; '.join(sorted(set(lost.values())))}); the run's events say which client "
                "failed when"
            )
        state.jobs = [
            replace(job, weights=weights[job.candidate])
            for job in state.jobs
            if job.candidate in weights
        ]
        state.round = number
        state.rounds_done += 1
        work.checkpoint(state)

    def _keep(self, state: State, racing: Sequence[Outcome], keep: int) -> list[Outcome]:
        """Return the outcomes that stay: the least accuracy lost per resource saved (4.3)."""
        before = self._work.model.cost

        def lost_per_saved(outcome: Outcome) -> float:
            cost = self._work.cost_of(outcome.job.architecture)
            resources = self._work.search.netadapt.budgets
            saved = [1 - cost.of(name) / before.of(name) for name in resources]
            return degradation(state.accuracy - outcome.accuracy, saved)

        return [racing[n] for n in survivors([lost_per_saved(o) for o in racing], keep)]

    # ------------------------------------------------------------------ select

    def _select(self, state: State, candidates: Sequence[Candidate]) -> None:
        """Make the best candidate the global model."""
        if self._work.search.policy.accuracy == "fused":
            outcomes = self._work.driver.evaluate(state.jobs, self._work.groups(state))
            accuracy = {outcome.job.candidate: outcome.accuracy for outcome in outcomes}
            self._work.test_event(state, "candidates", outcomes)
        else:
            accuracy = state.local_accuracy
        judged = [
            job for job in state.jobs if not math.isnan(accuracy.get(job.candidate, math.nan))
        ]
        if not judged:
            raise SearchError(
                f"iteration {state.iteration}: no group has a test sample, so that no candidate "
                "can be judged; use fewer groups or larger clients"
            )
        place = self._work.search.netadapt.select(
            [candidates[job.candidate] for job in judged],
            [accuracy[job.candidate] for job in judged],
            state.accuracy,
            self._work.model.cost,
        )
        winner = judged[place]
        table = [
            {
                "candidate": number,
                "block": candidate.block,
                "accuracy": plain(accuracy.get(number, math.nan)),
                **costs(candidate.cost),
            }
            for number, candidate in enumerate(candidates)
        ]
        self._adopt(
            state,
            winner,
            block=candidates[winner.candidate].block,
            group_accuracy=accuracy[winner.candidate],
            candidates=table,
        )

    def _adopt(
        self,
        state: State,
        job: Job,
        *,
        block: str,
        group_accuracy: float,
        candidates: list[dict[str, Any]],
    ) -> None:
        """Make a job's model the global one, test it on the whole fleet, and go on."""
        work = self._work
        work.model = GlobalModel(job.architecture, job.weights, work.cost_of(job.architecture))
        outcome = work.driver.evaluate([work.whole_model()], [work.everyone()])[0]
        self._work.test_event(state, "global", [outcome])
        state.accuracy = outcome.accuracy
        self._work.save_model(f"iteration_{state.iteration:03d}", job.architecture, job.weights)
        now = self._work.time.now_s()
        self._work.event(
            state,
            "select",
            candidate=job.candidate,
            block=block,
            accuracy=plain(outcome.accuracy),
            loss=plain(outcome.loss),
            group_accuracy=plain(group_accuracy),
            duration_s=now - state.began_s,
            candidates=candidates,
            **costs(work.model.cost),
        )
        state.iteration += 1
        state.round, state.jobs, state.local_accuracy = 0, [], {}
        state.began_s = now
        self._work.checkpoint(state)

    # ------------------------------------------------------------------ tuning at the end

    def _tune(self, state: State) -> None:
        """Tune chosen global models federatedly, side by side on groups of clients (4.4)."""
        policy = self._work.search.policy
        last = state.iteration - 1
        chosen = sorted(
            {last if wanted < 0 else min(wanted, last) for wanted in policy.tune_iterations}
        )
        if not state.jobs:
            for number, iteration in enumerate(chosen):
                model = self._work.load_model(iteration)
                state.jobs.append(Job(number, model.description, model.weights, model.cost.macs))
            state.groups = len(chosen)
            state.assignment = [row % len(chosen) for row in range(self._work.clients)]
        for number in range(state.round + 1, policy.tune_rounds + 1):
            self._train_round(state, number, policy.tune_rounds)
        for job in state.jobs:
            outcome = self._work.driver.evaluate([job], [self._work.everyone()])[0]
            iteration = chosen[job.candidate]
            self._work.save_model(f"tuned_{iteration:03d}", job.architecture, job.weights)
            self._work.test_event(state, "tuned", [outcome])
            self._work.event(
                state, "tuned", of=iteration, accuracy=plain(outcome.accuracy),
                **costs(self._work.cost_of(job.architecture)),
            )  # fmt: skip
        state.phase, state.jobs = "done", []
        self._work.checkpoint(state)


def sizes_of_groups(sizes: Sequence[float], groups: int) -> list[float]:
    """Return the bytes of the model that each group trains first.

    With more groups than candidates the last ones have nothing to train; with fewer, a group
    trains several candidates one after the other, and counts with the first.
    """
    return [sizes[min(group, len(sizes) - 1)] for group in range(groups)]
