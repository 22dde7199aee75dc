"""Checks of the arguments that a description gives to a layer's constructor.

A description is data from the network: every value may be anything that JSON can hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["count", "size", "padding", "number", "flag", "choice", "shape", "integer"]

LARGEST_COUNT = 2**24
"""No layer has more channels or features than this."""
LARGEST_SIZE = 2**14
"""No kernel, stride, padding or output size is larger than this."""
LARGEST_NUMBER = 1e12
_INFINITE = {"inf": float("inf"), "-inf": float("-inf")}
_CHOICES = frozenset(
    {
        *("zeros", "reflect", "replicate", "circular", "constant", "none", "tanh"),
        *("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"),
    }
)


def check(name: str, kind: Kind, value: object) -> Any:  # noqa: ANN401 - whatever a constructor takes
    """Return an argument's value as the constructor takes it.

    Raises
    ------
    ValueError
        If it is not of that kind or out of range; the message names the argument and the value.
    """
    fits, allowed = _CHECKS[kind]
    if not fits(value):
        text = repr(value)
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        raise ValueError(f"{name} is {shown}, but must be {allowed}")
    if isinstance(value, str):
        return _INFINITE.get(value, value)
    return tuple(value) if isinstance(value, list) else value


def is_integer(value: object, low: int, high: int) -> bool:
    """Whether a value is a whole number (not a bool) within the bounds, both included."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _entries(value: object, most: int) -> list[object]:
    """Return a short list's entries, or the value as the only one; nothing if it is too long."""
    if not isinstance(value, list):
        return [value]
    return value if len(value) <= most else []


def _all(entries: list[object], fits: Callable[[object], bool]) -> bool:
    return bool(entries) and all(fits(entry) for entry in entries)


def _is_size(value: object) -> bool:
    return _all(
        _entries(value, 3), lambda entry: entry is None or is_integer(entry, 1, LARGEST_SIZE)
    )


def _is_padding(value: object) -> bool:
    if isinstance(value, str):
        return value in {"same", "valid"}
    return _all(_entries(value, 6), lambda entry: is_integer(entry, 0, LARGEST_SIZE))


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return value in _INFINITE

    def fits(entry: object) -> bool:
        if isinstance(entry, int | float) and not isinstance(entry, bool):
            return abs(entry) < LARGEST_NUMBER
        return entry is None

    return _all(_entries(value, 3), fits)


def _is_shape(value: object) -> bool:
    entries = _entries(value, 4) if isinstance(value, list) else []
    return _all(entries, lambda entry: is_integer(entry, 1, LARGEST_COUNT))


_CHECKS: dict[Kind, tuple[Callable[[object], bool], str]] = {
    "count": (
        lambda value: is_integer(value, 1, LARGEST_COUNT),
        f"a whole number in 1..{LARGEST_COUNT}",
    ),
    "size": (_is_size, f"one to three whole numbers in 1..{LARGEST_SIZE}"),
    "padding": (_is_padding, f"whole numbers in 0..{LARGEST_SIZE}, 'same' or 'valid'"),
    "number": (_is_number, "a number or nothing"),
    "flag": (lambda value: value is None or isinstance(value, bool), "true or false"),
    "choice": (
        lambda value: isinstance(value, str) and value in _CHOICES,
        f"one of {sorted(_CHOICES)}",
    ),
    "shape": (_is_shape, "one to four sizes"),
    "integer": (
        lambda value: value is None or is_integer(value, -16, 16),
        "a whole number in -16..16",
    ),
}
