"""Take the place of a ServerApp: start a run at a SuperLink and drive it from this process.

Flower starts a process for a ServerApp, which acquires the run's task and speaks to the SuperLink
with its token. This process does the same; so the whole search stays in the notebook. What the
SuperLink stores as the run's app is never executed by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from workbench.federation import flower, wire
from workbench.federation.live_grid import LiveGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PROJECT = """
[project]
name = "search"
version = "1.0.0"
[tool.flwr.app]
publisher = "workbench"
[tool.flwr.app.components]
serverapp = "{client}"
clientapp = "{client}"
"""


class NoTaskError(RuntimeError):
    """The SuperLink started the run, but gave its task to somebody else."""


def start_run(
    door: wire.Door,
    *,
    client: str,
    files: Mapping[str, str],
    give_up: Callable[[], bool],
    **grid_settings: Any,  # noqa: ANN401  # handed on to LiveGrid
) -> LiveGrid:
    """Start a run and return the grid that drives it; it listens already.

    Parameters
    ----------
    door
        The way to the SuperLink.
    client
        Where stock nodes find the ClientApp, ``module:name``.
    files
        The files of the app, text by name, for stock nodes.
    give_up
        Asked while the SuperLink does not answer.
    grid_settings
        See `LiveGrid`.

    Raises
    ------
    httpx.HTTPError
        If the SuperLink does not answer, or refuses.
    NoTaskError
        If it does not leave the run's task to this process.
    """
    flower.check_version()
    versions = wire.Versions("flwr-serverapp")
    app = wire.bundle({"pyproject.toml": _PROJECT.format(client=client), **files})
    control = door.client(wire.ControlHttpClient, [versions])
    try:
        request = wire.StartRunRequest(fab=wire.Fab(content=app))
        started = wire.patiently(
            lambda: control.StartRun(request), until=give_up, longest_pause_s=0.05
        )
    finally:
        control.close()
    runtime = door.client(wire.RuntimeHttpClient, [versions])
    try:
        task = _acquire(runtime, started.run_id)
        runtime._interceptors += (wire.RuntimeTokenHttpInterceptor(token=task.token),)  # noqa: SLF001
        given = runtime.PullTaskInput(wire.PullTaskInputRequest())
    except BaseException:
        runtime.close()
        raise
    wire.TaskIdentity.run_id = given.run.run_id
    wire.TaskIdentity.task_id = given.task_id
    wire.TaskIdentity.node_id = given.context.node_id
    grid = LiveGrid(runtime, **grid_settings)
    grid.set_run(wire.run_from_proto(given.run))
    grid.start()
    return grid


def _acquire(runtime: wire.RuntimeHttpClient, run_id: int) -> Any:  # noqa: ANN401
    try:
        task = runtime.AcquireTask(wire.AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.UNAUTHORIZED:
            raise
        raise NoTaskError(
            "the SuperLink leaves tasks only to those who know its secret; start it without "
            "--superexec-auth-secret-file, or keep its port from everybody else"
        ) from error
    if not task.token or task.task.run_id != run_id:
        raise NoTaskError(
            "the SuperLink did not leave the run's task to this process; start it with "
            "--isolation process, and no flower-superexec beside it"
        )
    return task


def end_run(grid: LiveGrid) -> None:
    """Tell the SuperLink that the run is over, and stop listening."""
    grid.finish()
    grid.close()
