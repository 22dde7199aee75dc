"""Lessons tell right answers from wrong ones, and say so; those of the answer keys are right."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch

import workbench as wb
from workbench import notebooks
from workbench.lessons.bottleneck import BottleneckLesson
from workbench.lessons.non_iid import NonIIDLesson
from workbench.lessons.pruning import PruningLesson
from workbench.lessons.verdict import Lesson, is_open

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
LESSONS = sorted(FOLDER.glob("3?_lesson_*.ipynb"))


def nothing(*_: object) -> object:
    return ...


def broken(*_: object) -> object:
    return 1 // 0


# ---------------------------------------------------------------------- what all lessons share


def test_a_placeholder_is_not_an_answer() -> None:
    assert is_open(...)
    assert is_open([1, ..., 3])
    assert not is_open([])
    assert not is_open(0)
    assert not is_open(None)


def test_predictions_are_compared_with_what_happened() -> None:
    options = ("shorter", "longer")
    assert Lesson.outcome(..., "longer", options).state == "open"
    assert Lesson.outcome("longer", "longer", options).state == "right"
    assert Lesson.outcome("shorter", "longer", options).state == "wrong"
    with pytest.raises(ValueError, match="the prediction is 'no'; allowed are shorter, longer"):
        Lesson.outcome("no", "longer", options)


def test_progress_counts_the_last_verdicts() -> None:
    lesson = NonIIDLesson()
    lesson.check_one_class(1.0, 10)
    assert lesson.progress().startswith("0 of 4 exercises are right")
    verdict = lesson.check_one_class(1.8, 10)
    assert "Exercise 2: right" in str(verdict)
    assert "✔" in verdict._repr_html_()
    lines = lesson.progress().splitlines()
    assert lines[0] == "1 of 4 exercises are right"
    assert lines[1] == "○ Exercise 1: not answered yet"
    assert lines[2] == "✔ Exercise 2: right"


# ---------------------------------------------------------------------- the bottleneck


@pytest.fixture(scope="module")
def bottleneck(digits: wb.Dataset) -> BottleneckLesson:
    fleet = wb.Fleet.dirichlet(digits, clients=56, alpha=0.3, seed=7)
    return BottleneckLesson(fleet, [3.6e6, 3.5e6, 3.3e6, 3.0e6, 2.4e6, 1.4e6, 0.9e6])


def test_the_time_of_an_exchange(bottleneck: BottleneckLesson) -> None:
    def check(answer: object) -> Any:
        return bottleneck.check_exchange(answer, 3e6, 2.5e6)

    assert check(...).state == "open"
    assert check(19.2).state == check("19.2").state == check(19.3).state == "right"
    for wrong, hint in (
        (9.6, "one way"), (2.4, "eight bits, and rates"), (1.2, "also comes back"),
        (20.0, "too large"), (1, "too small"), ("long", "no number"), (None, "no number"),
        (0.0520833, "upside down"),
    ):  # fmt: skip
        verdict = check(wrong)
        assert (verdict.state, hint in verdict.text) == ("wrong", True), verdict


@pytest.mark.parametrize(
    ("function", "state", "hint"),
    [
        (lambda size, rates: 16 * size / min(rates), "right", "last one"),
        (lambda size, rates: max(2 * 8 * size / rate for rate in rates), "right", ""),
        (nothing, "open", ""),
        (lambda size, rates: 16 * size / max(rates), "wrong", "fastest"),
        (lambda size, rates: sum(16 * size / rates), "wrong", "do not add up"),
        (lambda size, rates: (16 * size / rates).mean(), "wrong", "mean"),
        (lambda size, rates: 8 * size / min(rates), "wrong", "not right"),
        (lambda size, rates: 16 * size / rates, "wrong", "one number, not"),
        (broken, "wrong", "ZeroDivisionError"),
    ],
)
def test_the_round_of_a_group(
    bottleneck: BottleneckLesson, function: Callable[..., object], state: str, hint: str
) -> None:
    verdict = bottleneck.check_round(function)
    assert (verdict.state, hint in verdict.text) == (state, True), verdict


def test_groups_by_hand(bottleneck: BottleneckLesson) -> None:
    rates = np.array([4.0, 90.0, 7.0, 30.0, 60.0, 20.0]) * 1e6
    sizes = np.array([4.0, 2.0, 1.0]) * 1e6

    def check(answer: object) -> Any:
        return bottleneck.check_groups(answer, rates, sizes)

    assert check([..., ..., ..., ..., ..., ...]).state == "open"
    assert check([2, 0, 2, 1, 0, 1]).state == "right"
    verdict = check([0, 0, 1, 1, 2, 2])
    assert verdict.state == "wrong"
    assert "everybody waits for client 0, who has the model of group 0" in verdict.text
    assert re.search(r"takes 16\.0 s, but 4\.0 s are possible", verdict.text)
    for nonsense in ([0, 0, 0, 1, 1, 2], [0, 1, 2], "two", [2.5, {}, 1, 1, 0, 0]):
        assert check(nonsense).state == "wrong"


def test_a_strategy_that_serves_both_ends(bottleneck: BottleneckLesson) -> None:
    check = bottleneck.check_strategy
    assert check(...).state == "open"
    assert check(wb.NetDAG(coeff=0.9, max_slowdown=1.1)).state == "right"
    assert check(wb.AnnealedGrouping(proposals=20_000)).state == "right"
    for wrong in (wb.NetworkAwareGrouping(), wb.RandomGrouping(), wb.NetDAG(coeff=1.0), "NetDAG"):
        assert check(wrong).state == "wrong", wrong


# ---------------------------------------------------------------------- unlike clients


def shares(counts: Any) -> Any:
    return counts / counts.sum()


@pytest.mark.parametrize(
    ("function", "state", "hint"),
    [
        (lambda a, b: abs(shares(a) - shares(b)).sum(), "right", "Shares"),
        (nothing, "open", ""),
        (lambda a, b: abs(a - b).sum(), "wrong", "differences of counts"),
        (lambda a, b: abs(shares(a) - shares(b)).sum() / 2, "wrong", "no half"),
        (lambda a, b: (shares(a) - shares(b)).sum(), "wrong", "not right"),
        (lambda a, b: abs(shares(a) - shares(b)), "wrong", "one number"),
        (broken, "wrong", "ZeroDivisionError"),
    ],
)
def test_the_distance(function: Callable[..., object], state: str, hint: str) -> None:
    verdict = NonIIDLesson().check_distance(function)
    assert (verdict.state, hint in verdict.text) == (state, True), verdict


def test_one_class_of_ten() -> None:
    check = NonIIDLesson().check_one_class
    assert check(..., 10).state == "open"
    assert check(1.8, 10).state == check(1.5, 4).state == "right"
    assert "too little" in check(0.9, 10).text
    assert "no class at all" in check(2, 10).text
    assert check(1.8, 4).state == "wrong"


@pytest.mark.parametrize(
    ("function", "state", "hint"),
    [
        (lambda w, n: sum(a * k for a, k in zip(w, n, strict=True)) / sum(n), "right", "FedAvg"),
        (nothing, "open", ""),
        (lambda w, _: sum(w) / len(w), "wrong", "count the same"),
        (lambda w, n: sum(a * k for a, k in zip(w, n, strict=True)), "wrong", "weighted average"),
        (lambda w, _: w[0], "wrong", "weighted average"),
        (broken, "wrong", "ZeroDivisionError"),
    ],
)
def test_the_average(function: Callable[..., object], state: str, hint: str) -> None:
    verdict = NonIIDLesson().check_average(function)
    assert (verdict.state, hint in verdict.text) == (state, True), verdict


def test_pairs_by_hand() -> None:
    counts = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9], [0, 9, 9], [9, 0, 9], [9, 9, 0]])

    def check(answer: object) -> Any:
        return NonIIDLesson().check_pairs(answer, counts)

    assert check([..., 0, 0, 1, 1, 2]).state == "open"
    assert check([0, 1, 2, 0, 1, 2]).state == "right"
    assert check([2, 0, 1, 2, 0, 1]).state == "right"
    verdict = check([0, 0, 1, 1, 2, 2])
    assert verdict.state == "wrong"
    assert "but 0.000 is possible" in verdict.text
    assert check([0, 1]).state == check("pairs").state == "wrong"


# ---------------------------------------------------------------------- pruning


@pytest.mark.parametrize(
    ("function", "state", "hint"),
    [
        (lambda c, f, k, h, w: c * f * k * k * h * w, "right", ""),
        (nothing, "open", ""),
        (lambda c, f, k, h, w: c * f * k * k + 0 * h * w, "wrong", "every place"),
        (lambda c, f, k, h, w: f * k * k * h * w + 0 * c, "wrong", "channels that come in"),
        (lambda c, f, k, h, w: c * k * k * h * w + 0 * f, "wrong", "several filters"),
        (lambda c, f, k, h, w: c * f * k * h * w, "wrong", "square"),
        (lambda c, f, k, h, w: c + f + k + h + w, "wrong", "not right"),
    ],
)
def test_macs(function: Callable[..., object], state: str, hint: str) -> None:
    verdict = PruningLesson().check_macs(function)
    assert (verdict.state, hint in verdict.text) == (state, True), verdict


def test_what_half_of_the_filters_save() -> None:
    def check(answer: object) -> Any:
        return PruningLesson().check_saving(answer, (8, 16), (4, 16), 1, 32)

    assert check(...).state == "open"
    assert check(0.5).state == "right"
    assert "second one now" in check(4 / (8 + 128)).text
    assert check(0.25).state == "wrong"
    assert check(50).text.startswith("A percentage")


@pytest.mark.parametrize(
    ("function", "state", "hint"),
    [
        (lambda w, k: np.argsort([-np.linalg.norm(f) for f in w])[:k], "right", ""),
        (lambda w, k: sorted(range(len(w)), key=lambda n: -(w[n] ** 2).sum())[:k], "right", ""),
        (nothing, "open", ""),
        (lambda w, k: np.argsort([np.linalg.norm(f) for f in w])[:k], "wrong", "should go"),
        (lambda w, k: np.argsort([-f.sum() for f in w])[:k], "wrong", "cancel"),
        (lambda w, k: range(k), "wrong", ""),  # noqa: ARG005  # the interface
        (lambda w, k: np.arange(len(w)), "wrong", "numbers"),  # noqa: ARG005
    ],
)
def test_ranking(function: Callable[..., object], state: str, hint: str) -> None:
    verdict = PruningLesson().check_ranking(function)
    assert (verdict.state, hint in verdict.text) == (state, True), verdict


def test_the_schedule_of_netadapt() -> None:
    netadapt = wb.NetAdapt(step=0.1, decay=0.9, budget=0.3)
    model = wb.models.alexnet(num_classes=10, width=0.125, in_channels=1, seed=0)
    initial = wb.cost_of(model, (1, 32, 32))
    lesson = PruningLesson()

    def check(answer: object) -> Any:
        return lesson.check_target(answer, netadapt, initial)

    assert check(...).state == "open"
    assert check(initial.macs * (1 - 0.1 - 0.09 - 0.081)).state == "right"
    assert "see decay" in check(initial.macs * 0.7).text
    assert "at the start" in check(initial.macs * 0.9 * 0.91 * 0.919).text
    assert "not what is left" in check(initial.macs * 0.271).text


def test_the_winner_of_an_iteration() -> None:
    netadapt = wb.NetAdapt(step=0.1)
    model = wb.models.alexnet(num_classes=10, width=0.125, in_channels=1, seed=0)
    initial = wb.cost_of(model, (1, 32, 32))
    candidates = [one for one in netadapt.propose(model, (1, 32, 32)) if one.usable]
    accuracies = [0.5] * len(candidates)
    accuracies[2] = 0.79
    lesson = PruningLesson()

    def check(answer: object) -> Any:
        return lesson.check_winner(answer, netadapt, candidates, accuracies, (0.8, initial))

    assert check(...).state == "open"
    assert check(candidates[2].block).state == "right"
    assert check(candidates[0].block).state == "wrong"
    assert "is no block" in check("layer").text


# ---------------------------------------------------------------------- the notebooks


def cells(path: Path, tag: str) -> list[str]:
    notebook = notebooks.read_notebook(path)
    return [cell.source for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_answer_key_is_right_and_the_lesson_is_open(path: Path) -> None:
    """Run a lesson in this process: its exercises are open; with the key, all are right."""
    torch.set_num_threads(1)
    notebook = notebooks.read_notebook(path)
    smoke = notebooks.smoke_parameters(notebook)
    names: dict[str, Any] = {}
    exercises = keys = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        *statements, last = ast.parse(cell.source).body
        exec(compile(ast.Module(statements, []), path.name, "exec"), names)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
        else:
            exec(compile(ast.Module([last], []), path.name, "exec"), names)
        if "parameters" in tags:
            names |= smoke
        if "exercise" in tags:
            exercises += 1
            assert value.state == "open", cell.source
        if "answer-key" in tags:
            keys += 1
            assert value.state == "right", f"{cell.source}\n{value}"
    lesson = names["lesson"]
    assert exercises == keys == len(lesson.exercises)
    assert {verdict.state for verdict in lesson.verdicts.values()} == {"right"}
    predictions = sum("lesson.outcome(" in cell.source for cell in notebook.cells)
    assert predictions >= 3


def test_there_are_three_lessons() -> None:
    assert [path.stem[:2] for path in LESSONS] == ["30", "31", "32"]


def test_a_class_gets_a_copy_without_the_key(tmp_path: Path) -> None:
    copy = notebooks.hand_out(LESSONS[0], tmp_path / "class.ipynb")
    assert cells(copy, "answer-key") == []
    assert cells(copy, "exercise") == cells(LESSONS[0], "exercise")
    assert "NetDAG(coeff=0.9, max_slowdown=1.1)" not in copy.read_text()
    with pytest.raises(ValueError, match="no cell tagged answer-key"):
        notebooks.hand_out(copy, tmp_path / "again.ipynb")
    with pytest.raises(ValueError, match="the lesson itself"):
        notebooks.hand_out(LESSONS[0], LESSONS[0])


def test_an_answer_key_that_can_be_seen_is_a_fault(tmp_path: Path) -> None:
    notebook = notebooks.read_notebook(LESSONS[0])
    assert notebooks.faults(FOLDER) == []
    for cell in notebook.cells:
        cell.metadata.pop("jupyter", None)
    nbformat.write(notebook, tmp_path / "open.ipynb")
    found = notebooks.faults(tmp_path)
    assert len(found) == 4
    assert all("answer key, but is not folded away" in line for line in found)
