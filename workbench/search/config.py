"""Settings as JSON and back: what ``config.json`` holds, and how two of them differ."""

from __future__ import annotations

import dataclasses
from typing import Any

import workbench

_TYPE = "type"


def describe(value: object) -> Any:  # noqa: ANN401  # JSON has no narrower type
    """Return a settings object as JSON-able data; dataclasses carry their class's name.

    Raises
    ------
    TypeError
        If a value is of a kind that can't be written and read again.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: describe(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
        return {_TYPE: type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): describe(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [describe(entry) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{value!r} can't be written into config.json; allowed are settings objects, numbers, "
        "text, lists and None"
    )


def restore(data: Any) -> Any:  # noqa: ANN401
    """Make the settings object again that `describe` was given.

    Raises
    ------
    ValueError
        If the data names a class that this package does not have.
    """
    if isinstance(data, dict) and _TYPE in data:
        name = data[_TYPE]
        kind = getattr(workbench, name, None)
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise ValueError(f"config.json names {name!r}, which this version does not have")
        return kind(**{key: restore(entry) for key, entry in data.items() if key != _TYPE})
    if isinstance(data, dict):
        return {key: restore(entry) for key, entry in data.items()}
    if isinstance(data, list):
        return tuple(restore(entry) for entry in data)
    return data


def differences(old: Any, new: Any, place: str = "") -> list[str]:  # noqa: ANN401
    """Name what differs between two configs, one line each, ``place: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in [*old, *(key for key in new if key not in old)]:
            where = f"{place}.{key}" if place else str(key)
            found += differences(old.get(key), new.get(key), where)
        return found
    return [] if old == new else [f"{place}: {old!r} -> {new!r}"]
