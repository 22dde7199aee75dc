"""A testbed's containers: started with nothing that they do not need, and gone with the notebook.

A container's first process waits for the end of its standard input, which this process holds. So
when the notebook ends, be it by SIGKILL, the Docker engine closes the input, the container ends
and removes itself. What a hanging engine leaves is found by its labels.

Containers have no network but the testbed's link, no capability, a read-only file system, a user
of their own, and of the host's files this package and their own share, both read-only.
"""

from __future__ import annotations

import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.testbed import linux
from workbench.testbed.cleanup import Leftover
from workbench.testbed.image import connect
from workbench.tiers import scenario_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    import docker

TESTBED_LABEL = "workbench.testbed"
_OWNER_LABEL = "workbench.owner"
_CLIENT_LABEL = "workbench.client"
SHARE = "/share"
"""Where a container finds its own files."""
CODE = "/opt/workbench"
"""Where it finds this package."""
_USER = "10001:10001"
_MOST_PROCESSES = 512
_PERIOD_US = 100_000
_AT_ONCE = 8
_GONE_S = 10.0


@dataclass(frozen=True)
class Limits:
    """What each container may use."""

    image: str
    cpus: float
    memory: str
    """In the engine's words: a number and b, k, m or g."""


class Containers:
    """The running containers of a testbed, by client row.

    Parameters
    ----------
    limits
        What each may use, and its image.
    mark
        What their names begin with.
    folder
        Where the clients' shares are.

    Raises
    ------
    RuntimeError
        If there is no Docker engine, or no such image.
    """

    def __init__(self, limits: Limits, mark: str, folder: Path) -> None:
        self._limits = limits
        self._mark = mark
        self._folder = folder
        self._inputs: dict[int, socket.socket] = {}
        self._first: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self.engine = connect()
        try:
            check_image(self.engine, limits.image)
        except BaseException:
            self.engine.close()
            raise

    # ------------------------------------------------------------------ up and down

    def start(self, clients: Mapping[int, str]) -> None:
        """Start the containers of these clients, names by row, several at once.

        Raises
        ------
        RuntimeError
            If one does not start; those that did are removed.
        """
        started = False
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._start, clients, clients.values()))
            started = True
        except _docker().errors.DockerException as error:
            raise RuntimeError(f"a client's container does not start: {error}") from error
        finally:
            if not started:
                for row in clients:
                    self.remove(row)

    def remove(self, row: int) -> None:
        """End and remove a client's container; nothing happens when there is none."""
        end = self._inputs.pop(row, None)
        if end is not None:
            end.close()
        self._first.pop(row, None)
        errors = _docker().errors
        with suppress(errors.NotFound):
            try:
                self.engine.api.remove_container(self.name(row), force=True)
            except errors.NotFound:
                raise
            except errors.APIError:
                # The container removes itself too, as its input has ended: until that is done its
                # name is taken.
                give_up = time.monotonic() + _GONE_S
                while time.monotonic() < give_up:
                    self.engine.api.inspect_container(self.name(row))
                    time.sleep(0.02)

    def close(self) -> None:
        """Remove all containers; a second call does nothing."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self.remove, list(self._inputs)))
        self.engine.close()

    # ------------------------------------------------------------------ what is known of them

    def name(self, row: int) -> str:
        """Return the name of a client's container."""
        return f"{self._mark}-{row}"

    def share(self, row: int) -> Path:
        """Return the folder of the host that a client's container sees as `SHARE`, read-only."""
        return self._folder / f"share-{row}"

    def first_process(self, row: int) -> int:
        """Return the number of a container's first process, as this process sees it."""
        return self._first[row]

    @property
    def memory(self) -> str:
        """Each container's limit of memory, in words."""
        return self._limits.memory

    def kills(self, row: int) -> int:
        """Return how often the kernel killed something in a container for its memory limit."""
        return memory_kills(self._first.get(row, 0))

    # ------------------------------------------------------------------ one container

    def _start(self, row: int, name: str) -> None:
        share = self.share(row)
        share.mkdir(exist_ok=True)
        share.chmod(0o755)  # the folder around it is closed to everybody else
        api = self.engine.api
        limits = self._limits
        settings = api.create_host_config(
            auto_remove=True,
            init=True,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            # A quota may exceed the machine's cores, which the engine's own --cpus may not.
            cpu_period=_PERIOD_US,
            cpu_quota=round(limits.cpus * _PERIOD_US),
            pids_limit=_MOST_PROCESSES,
            tmpfs={"/tmp": "mode=1777,size=64m"},  # noqa: S108  # the container's own
            binds={
                str(each): {"bind": inside, "mode": "ro"} for each, inside in mounts(share).items()
            },
        )
        made = api.create_container(
            limits.image,
            command=["cat"],
            name=self.name(row),
            hostname=re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")[:63] or "client",
            user=_USER,
            stdin_open=True,
            labels={
                TESTBED_LABEL: self._mark,
                _OWNER_LABEL: owner(),
                _CLIENT_LABEL: name,
            },
            host_config=settings,
        )
        self._inputs[row] = hold(api.attach_socket(made["Id"], {"stdin": 1, "stream": 1}))
        api.start(made["Id"])
        process = int(api.inspect_container(made["Id"])["State"]["Pid"])
        if not _is_of(process, made["Id"]):
            raise RuntimeError(
                "the Docker engine's containers are not on this machine; links can be plugged "
                "only into those of a local engine: unset DOCKER_HOST, or work on that machine"
            )
        self._first[row] = process


def mounts(share: Path) -> dict[Path, str]:
    """Return what a client's container sees of the host, read-only: folder here, folder there."""
    package = Path(__file__).resolve().parent.parent
    return {
        package: f"{CODE}/workbench",
        scenario_folder(): f"{CODE}/core_scenarios",
        share: SHARE,
    }


def hold(opened: Any) -> socket.socket:  # noqa: ANN401  # whatever the SDK wraps it in
    """Return a socket of one's own for a stream that the SDK has opened."""
    held = socket.socket(fileno=os.dup(opened.fileno()))
    held.settimeout(None)  # the SDK's own has one
    opened._response.close()  # noqa: SLF001  # else it warns of a socket left open
    opened.close()
    return held


def owner() -> str:
    """Return who this process is, so that a later one with its number is not taken for it."""
    return f"{os.getpid()}:{linux.start_time(os.getpid())}"


def why_not(image: str) -> str:
    """Return why containers of an image can't be started here, and what helps; empty if they can.

    The engine and the image are asked for, nothing is started.
    """
    try:
        engine = connect(timeout_s=20)
    except (RuntimeError, ImportError) as error:
        return str(error)
    try:
        check_image(engine, image)
        if not engine.info().get("MemoryLimit"):
            return "the kernel limits no memory; enable its memory control group"
    except RuntimeError as error:
        return str(error)
    finally:
        engine.close()
    return ""


def remove_labelled(mark: str) -> int:
    """Remove a testbed's containers, by their label; return how many there were."""
    try:
        engine = connect(timeout_s=20)
    except (RuntimeError, ImportError):
        return 0
    try:
        found = engine.api.containers(all=True, filters={"label": f"{TESTBED_LABEL}={mark}"})
        for each in found:
            with suppress(_docker().errors.NotFound, _docker().errors.APIError):
                engine.api.remove_container(each["Id"], force=True)
        return len(found)
    finally:
        engine.close()


def clean_containers() -> list[Leftover]:
    """Remove the containers of testbeds whose notebook is gone; without an engine nothing."""
    try:
        engine = connect(timeout_s=20)
    except (RuntimeError, ImportError):
        return []
    found = []
    try:
        for each in engine.api.containers(all=True, filters={"label": TESTBED_LABEL}):
            labels, name = each["Labels"], each["Names"][0].lstrip("/")
            process, _, started = labels.get(_OWNER_LABEL, "").partition(":")
            if process.isdigit() and linux.start_time(int(process)) == int(started or -1):
                found.append(
                    Leftover(f"container {name}", f"left alone: process {process} uses it")
                )
                continue
            with suppress(_docker().errors.NotFound):
                engine.api.remove_container(each["Id"], force=True)
            found.append(Leftover(f"container {name}", "removed"))
    finally:
        engine.close()
    return found


# ---------------------------------------------------------------------- helpers


def _docker() -> Any:  # noqa: ANN401  # a module without types
    import docker  # noqa: PLC0415  # only those who ask for containers need it

    return docker


def check_image(engine: docker.DockerClient, image: str) -> None:
    """Raise RuntimeError, with what helps, if the engine has no such image."""
    try:
        engine.images.get(image)
    except _docker().errors.ImageNotFound:
        raise RuntimeError(
            f"Docker has no image {image!r}; build it with make image, or name another one"
        ) from None


def _is_of(process: int, container: str) -> bool:
    """Tell whether a process of this machine belongs to a container."""
    try:
        return container in Path(f"/proc/{process}/cgroup").read_text()
    except OSError:
        return False


def memory_kills(process: int) -> int:
    """Read the counter of the memory control group that a process is in; 0 if it is gone."""
    try:
        groups = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    except OSError:
        return 0
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            counter = Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
        elif not controllers:
            counter = Path(f"/sys/fs/cgroup{path}/memory.events")
        else:
            continue
        with suppress(OSError):
            for entry in counter.read_text().splitlines():
                if entry.startswith("oom_kill "):
                    return int(entry.split()[1])
    return 0
