"""Build the image that client containers run, out of a checkout and a base image.

What the image installs is fetched out here, with this Python's pip and its settings, and pinned by
``environments/constraints.txt``; nothing in the build needs a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

if TYPE_CHECKING:
    from collections.abc import Callable

    import docker

IMAGE = "workbench-client"
DEFAULT_BASE = f"python:3.{sys.version_info.minor}-slim-bookworm"
ENVIRONMENTS = Path(__file__).resolve().parents[2] / "environments"


def build_image(
    base: str = DEFAULT_BASE, name: str = IMAGE, tell: Callable[[str], None] = print
) -> str:
    """Build the client image with the Docker engine of the environment; return its id.

    Parameters
    ----------
    base
        An image with bash, coreutils and the same Python as this one.
    name
        What it is to be called.
    tell
        Is told what is being done, line by line.

    Raises
    ------
    RuntimeError
        If there is no Docker engine, the base has another Python, or the build fails.
    FileNotFoundError
        If this is not a checkout.
    """
    recipe = ENVIRONMENTS / "client.Dockerfile"
    if not recipe.is_file():
        raise FileNotFoundError(f"there is no {recipe}; build the image from a checkout")
    engine = connect()
    try:
        with tempfile.TemporaryDirectory(prefix="workbench-image-") as folder:
            context = Path(folder)
            _check_python(engine, base)
            tell(f"fetching what {name} installs")
            shutil.copytree(_wheels(), context / "wheels")
            shutil.copy(recipe, context / "Dockerfile")
            steps = engine.api.build(
                path=folder,
                tag=name,
                buildargs={"BASE": base},
                network_mode="none",
                rm=True,
                forcerm=True,
                decode=True,
            )
            _follow(steps, tell)
        return str(engine.images.get(name).id)
    finally:
        engine.close()


def connect(timeout_s: float = 120.0) -> docker.DockerClient:
    """Connect to the Docker engine that the environment names, the local one by default.

    Raises
    ------
    RuntimeError
        If there is none, or it does not answer; the message says what helps.
    """
    import docker  # noqa: PLC0415  # only those who ask for containers need it

    try:
        _knock(docker.utils.parse_host(os.environ.get("DOCKER_HOST")))
        return docker.from_env(timeout=timeout_s)
    except (docker.errors.DockerException, OSError) as error:
        raise RuntimeError(
            f"no Docker engine answers: {error}; start it (systemctl start docker, or dockerd), "
            "or name it in DOCKER_HOST (your user needs access to its socket)"
        ) from error


def _knock(host: str) -> None:
    """Try a local engine's socket: of one that nobody answers the SDK tells less, and later."""
    scheme, _, path = host.partition("://")
    if scheme.endswith("unix"):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
                door.connect(path)
        except OSError as error:
            raise OSError(f"{path}: {error.strerror}") from error


def _check_python(engine: docker.DockerClient, base: str) -> None:
    """Refuse a base whose Python is not the one that the wheels are for."""
    import docker  # noqa: PLC0415

    wanted = f"3.{sys.version_info.minor}"
    command = ["python3", "-c", "import sys; print('3.%d' % sys.version_info.minor)"]
    try:
        found = engine.containers.run(base, command, remove=True, network_mode="none")
    except docker.errors.DockerException as error:
        raise RuntimeError(f"the base image {base} cannot be used: {error}") from error
    if found.decode().strip() != wanted:
        raise RuntimeError(
            f"the base image {base} has Python {found.decode().strip()}, but the wheels that are "
            f"fetched here are for Python {wanted}; choose a base with that"
        )


def _wheels() -> Path:
    """Return a folder with all wheels and the list of what is to be installed; kept for later."""
    requirements = ENVIRONMENTS / "client-requirements.txt"
    constraints = ENVIRONMENTS / "constraints.txt"
    key = hashlib.sha256(
        requirements.read_bytes() + constraints.read_bytes() + sys.version.encode()
    )
    folder = user_cache_path("workbench") / f"wheels-{key.hexdigest()[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="wheels-", dir=folder.parent))
        try:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
            command += ["--disable-pip-version-check", "--dest", str(made)]
            command += ["--constraint", str(constraints), "--requirement", str(requirements), "pip"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                raise RuntimeError(f"pip could not fetch the wheels: {done.stderr.strip()[-2000:]}")
            shutil.copy(requirements, made / "requirements.txt")
            made.chmod(0o755)
            with contextlib.suppress(OSError):  # somebody else was faster
                made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder


def _follow(steps: Any, tell: Callable[[str], None]) -> None:  # noqa: ANN401  # a stream of JSON
    lines: list[str] = []
    for step in steps:
        if "error" in step:
            last = "\n".join([*lines[-20:], step["error"].strip()])
            raise RuntimeError(f"the image could not be built:\n{last}")
        for line in str(step.get("stream", "")).splitlines():
            lines.append(line)
            if line.startswith("Step "):
                tell(line)
