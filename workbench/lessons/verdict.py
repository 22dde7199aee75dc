"""What is said about an answer: not answered yet, right, or wrong and why.

An exercise in a notebook is a cell with ``...`` where the answer goes, and a check below it. The
``...`` is no mistake: a notebook that nobody has worked on runs through. Checks work an answer out
or try it; they never look it up.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

State = Literal["open", "right", "wrong"]

_LOOK = {"open": ("○", "#595959"), "right": ("✔", "#00694d"), "wrong": ("✘", "#a34000")}
_WORD = {"open": "not answered yet", "right": "right", "wrong": "not yet"}


@dataclass(frozen=True)
class Verdict:
    """What a check says about one answer."""

    exercise: str
    state: State
    text: str = ""

    def __str__(self) -> str:
        return f"{_LOOK[self.state][0]} {self.exercise}: {_WORD[self.state]}. {self.text}".strip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        sign, colour = _LOOK[self.state]
        return (
            f'<p style="border-left: 4px solid {colour}; padding-left: 10px">'
            f'<b style="color: {colour}">{sign} {html.escape(self.exercise)}: '
            f"{_WORD[self.state]}.</b> {html.escape(self.text)}</p>"
        )


class Lesson:
    """The exercises of one lesson, and the last verdict on each.

    Attributes
    ----------
    exercises
        Names of the exercises, in their order.
    verdicts
        The last verdict on each exercise that was checked.
    """

    exercises: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.verdicts: dict[str, Verdict] = {}

    def progress(self) -> str:
        """Say how many exercises are right, and list them all."""
        lines = [
            str(self.verdicts.get(name, Verdict(name, "open"))).split(". ")[0].rstrip(".")
            for name in self.exercises
        ]
        right = sum(verdict.state == "right" for verdict in self.verdicts.values())
        return "\n".join([f"{right} of {len(self.exercises)} exercises are right", *lines])

    @staticmethod
    def outcome(prediction: object, happened: str, options: Sequence[str]) -> Verdict:
        """Put a prediction beside what happened; neither is a mistake.

        Raises
        ------
        ValueError
            If the prediction is none of the options.
        """
        name = "Prediction"
        if is_open(prediction):
            return Verdict(name, "open", f"What happened: {happened}. Next time, guess first.")
        if prediction not in options:
            raise ValueError(f"the prediction is {prediction!r}; allowed are {', '.join(options)}")
        if prediction == happened:
            return Verdict(name, "right", f"You said: {prediction}. So it was.")
        return Verdict(
            name, "wrong", f"You said: {prediction}. It was: {happened}. What did you overlook?"
        )

    # ------------------------------------------------------------------ for the checks

    def judge(self, exercise: str, state: State, text: str = "") -> Verdict:
        """Keep a verdict, and return it."""
        verdict = self.verdicts[exercise] = Verdict(exercise, state, text)
        return verdict

    def judge_pairs(self, exercise: str, answer: object) -> NDArray[np.int64] | Verdict:
        """Return six clients' groups, two clients in each of 0, 1 and 2, or why they are not."""
        if is_open(answer):
            return self.judge(exercise, "open")
        try:
            groups = np.asarray(answer, dtype=np.int64)
        except (TypeError, ValueError):
            return self.judge(exercise, "wrong", f"{answer!r} is no list of group numbers.")
        if groups.ndim != 1 or sorted(groups.tolist()) != [0, 0, 1, 1, 2, 2]:
            return self.judge(
                exercise, "wrong", "Write six group numbers: two clients in each of 0, 1 and 2."
            )
        return groups

    def judge_number(
        self,
        exercise: str,
        answer: object,
        right: float,
        *,
        tolerance: float = 0.02,
        mistakes: Mapping[str, float] | None = None,
        because: str = "",
    ) -> Verdict:
        """Hold a number against the right one.

        Parameters
        ----------
        exercise, answer
            The exercise, and what was answered.
        right
            What is right, computed by the caller.
        tolerance
            How far off an answer may be, as a share of the right one.
        mistakes
            What somebody gets who makes a known mistake, by what is to be said about it.
        because
            What is said about a right answer.
        """
        if is_open(answer):
            return self.judge(exercise, "open")
        try:
            value = float(answer)  # type: ignore[arg-type]  # whatever somebody typed
        except (TypeError, ValueError):
            return self.judge(exercise, "wrong", f"{answer!r} is no number.")
        if _near(value, right, tolerance):
            return self.judge(exercise, "right", because)
        for hint, wrong in (mistakes or {}).items():
            if _near(value, wrong, tolerance):
                return self.judge(exercise, "wrong", hint)
        side = "too small" if value < right else "too large"
        return self.judge(exercise, "wrong", f"{value:g} is {side}.")

    def judge_function(
        self,
        exercise: str,
        function: Callable[..., object],
        reference: Callable[..., object],
        cases: Sequence[tuple[Any, ...]],
        *,
        because: str = "",
    ) -> Verdict:
        """Call a function with these arguments, and hold it against another one."""
        for arguments in cases:
            wanted = np.asarray(reference(*arguments), dtype=np.float64)
            try:
                got = function(*arguments)
                if is_open(got):
                    return self.judge(exercise, "open")
                given = np.asarray(got, dtype=np.float64)
            except Exception as error:  # noqa: BLE001  # a beginner's function may raise anything
                words = f"{type(error).__name__}: {error}"
                return self.judge(exercise, "wrong", f"The function stopped with {words}.")
            shown = ", ".join(_short(argument) for argument in arguments)
            if given.shape != wanted.shape:
                return self.judge(
                    exercise, "wrong",
                    f"For {shown} there should be {_kind(wanted)}, not {_kind(given)}.",
                )  # fmt: skip
            if not np.allclose(given, wanted, rtol=1e-6):
                return self.judge(
                    exercise, "wrong", f"For {shown} it returns {_short(got)}, which is not right."
                )
        return self.judge(exercise, "right", because)


def agrees(
    function: Callable[..., object],
    other: Callable[..., object],
    cases: Sequence[tuple[Any, ...]],
) -> bool:
    """Whether two functions return the same in all cases: how a known mistake is recognised."""
    try:
        return all(
            bool(np.allclose(np.asarray(function(*case), dtype=float), other(*case)))  # type: ignore[arg-type]
            for case in cases
        )
    except Exception:  # noqa: BLE001  # a beginner's function may raise anything
        return False


def is_open(answer: object) -> bool:
    """Whether an answer is still the placeholder, or has one in it."""
    if answer is ...:
        return True
    return isinstance(answer, list | tuple) and any(is_open(one) for one in answer)


def _near(value: float, other: float, tolerance: float) -> bool:
    return abs(value - other) <= tolerance * abs(other)


def _kind(value: np.ndarray[Any, Any]) -> str:
    if value.ndim == 0:
        return "one number"
    return f"an array of shape {value.shape}" if value.ndim > 1 else f"{len(value)} numbers"


def _short(value: object) -> str:
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return f"an array of shape {value.shape}"
    if isinstance(value, np.ndarray):
        return "[" + ", ".join(f"{number:g}" for number in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
