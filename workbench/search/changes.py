"""Changes of a search's parts: checked before it runs, kept as events while it runs.

A change made while the search runs is taken up between two rounds and written into the run's
events; a run that is resumed repeats these events, and goes on as if it had not been interrupted.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

from workbench.grouping.base import GroupingStrategy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from workbench.search.search import Search
    from workbench.testbed.base import Network

_DERIVED = ("config", "initial_model", "initial_cost", "first_candidates")
_CHECKED = {"model", "dataset", "fleet", "netadapt", "groups", "seed", "device", "engine"}
_OF_THE_MODEL = {"model", "dataset", "netadapt"}


def assign(search: Search, name: str, value: object) -> None:
    """Set a part of a search; see `Search.__setattr__`."""
    before = getattr(search, name)
    if name == "grouping" and not isinstance(value, GroupingStrategy):
        raise ValueError(f"grouping is {value!r}; allowed is a strategy such as NetDAG()")
    session = search.session
    if session.running:
        _check_while_running(name, before, value)
        session.changes.append((name, value))
    _put(search, name, value)
    if name in _CHECKED:
        try:
            search._check()  # noqa: SLF001  # this is the search's own setter
        except Exception:
            _put(search, name, before)
            raise
    session.tell(name)


def adopt(search: Search, name: str, value: object) -> None:
    """Set a part of a search to what the events of its run say."""
    _put(search, name, value)
    search.session.tell(name)


def changed_config(config: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> Any:  # noqa: ANN401
    """Return a config with the changes of these events in it."""
    changed = copy.deepcopy(dict(config))
    for event in events:
        changed[event["setting"]] = event["value"]
    return changed


def repeat(network: Network, event: Mapping[str, Any]) -> None:
    """Do to a network again what an event ``link`` tells."""
    if event["what"] == "rate":
        network.set_rate(event["client"], event["asked_bps"], event["direction"])
    else:
        getattr(network, event["what"])(event["client"])


def _put(search: Search, name: str, value: object) -> None:
    search.__dict__[name] = value
    for derived in _DERIVED:
        if derived == "config" or name in _OF_THE_MODEL:
            search.__dict__.pop(derived, None)


def _check_while_running(name: str, before: Any, value: Any) -> None:  # noqa: ANN401
    if name == "grouping":
        return
    if name == "testbed" and type(value) is type(before):
        if dataclasses.replace(value, schedule=before.schedule) == before:
            return
        raise ValueError(
            "of the testbed, only the schedule can be changed while the search runs; stop it first"
        )
    raise ValueError(
        f"{name} can't be changed while the search runs; stop it first. Allowed meanwhile are "
        "grouping, the testbed's schedule, and the links of search.network"
    )
