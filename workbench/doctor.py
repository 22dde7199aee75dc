"""What this machine can run, and if not, exactly why and what helps."""

from __future__ import annotations

import html
import importlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import psutil
import torch

from workbench.federation import flower
from workbench.federation.machine import SUPERLINK_BPS, too_much_for_superlink
from workbench.testbed import probe

if TYPE_CHECKING:
    from workbench.fleet import Fleet

_MEGABYTES_PER_NODE = 40
_MEGABYTES_AT_LEAST = 700
"""Memory of a SuperLink and a notebook with torch; each client's node takes more on top."""


@dataclass(frozen=True)
class Finding:
    """Whether something can run here; if not, why, and what helps."""

    testbed: str
    runs: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` found; it shows itself as a table."""

    findings: tuple[Finding, ...]
    machine: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """One row a testbed: testbed, runs, detail (how, or why not), remedy."""
        return pd.DataFrame([vars(finding) for finding in self.findings])

    def runs(self, testbed: str) -> bool:
        """Tell whether a testbed can run here, by the name of its class.

        Raises
        ------
        KeyError
            If there is no testbed of that name.
        """
        for finding in self.findings:
            if finding.testbed == testbed:
                return finding.runs
        raise KeyError(f"no testbed {testbed!r}; there are {[f.testbed for f in self.findings]}")

    def __str__(self) -> str:
        lines = []
        for finding in self.findings:
            lines.append(f"{'yes' if finding.runs else 'no ':3}  {finding.testbed}")
            lines.append(f"       {finding.detail}")
            if finding.remedy:
                lines.append(f"       remedy: {finding.remedy}")
        return "\n".join([*lines, "", *self.machine])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'✔' if finding.runs else '✘'} {'yes' if finding.runs else 'no'}</td>"
            f"<td><b>{html.escape(finding.testbed)}</b></td>"
            f"<td style='text-align:left'>{html.escape(finding.detail)}</td>"
            f"<td style='text-align:left'>{html.escape(finding.remedy)}</td></tr>"
            for finding in self.findings
        )
        return (
            "<table><thead><tr><th>runs here</th><th>testbed</th><th>how, or why not</th>"
            f"<th>remedy</th></tr></thead><tbody>{rows}</tbody></table>"
            + "".join(f"<p>{html.escape(line)}</p>" for line in self.machine)
        )


def doctor(fleet: Fleet | None = None) -> Diagnosis:
    """Try out what this machine can run.

    The live testbed is really put up, without clients, and taken down again; nothing stays.

    Parameters
    ----------
    fleet
        If given, it is also told where this machine would be the limit for it.
    """
    findings = (
        Finding("SimulatedTestbed", runs=True, detail="in virtual time, on every machine"),
        _namespaces(),
        _delay(),
        _superlink(),
        _docker(),
        _core(),
    )
    return Diagnosis(findings, tuple(_machine(fleet)))


def _split(reason: str) -> tuple[str, str]:
    detail, _, remedy = reason.rpartition("; ")
    return (detail, remedy) if detail else (reason, "")


def _namespaces() -> Finding:
    name = "NamespaceTestbed"
    if reason := probe.why_no_namespaces():
        return Finding(name, False, *_split(reason))
    how = "as root" if probe.is_root() else "without root, inside a user namespace"
    if wrong := _flower():
        return Finding(name, False, f"networks can be put up {how}, but {wrong[0]}", wrong[1])
    return Finding(name, runs=True, detail=f"{how}; rates of links in each direction are shaped")


def _delay() -> Finding:
    name = "NamespaceTestbed, delay and loss"
    if reason := probe.why_no_namespaces():
        return Finding(name, False, *_split(reason))
    if reason := probe.why_no_delay():
        return Finding(name, False, *_split(reason))
    return Finding(name, runs=True, detail="the kernel has netem")


def _flower() -> tuple[str, str] | None:
    try:
        flower.check_version()
    except RuntimeError as error:
        detail, remedy = _split(str(error))
        return detail, remedy
    return None


def _superlink() -> Finding:
    name = "SuperLinkTestbed"
    if wrong := _flower():
        return Finding(name, False, *wrong)
    program = Path(sys.executable).with_name("flower-supernode")
    if not program.exists() and shutil.which("flower-supernode") is None:
        detail = "joins an existing SuperLink; this machine has no flower-supernode of its own"
        return Finding(name, runs=True, detail=detail)
    detail = "joins an existing SuperLink: SuperLinkTestbed(address=..., certificates=...)"
    return Finding(name, runs=True, detail=detail)


def _docker() -> Finding:
    return _asked("DockerTestbed", "docker", "install Docker and start its engine")


def _core() -> Finding:
    return _asked(
        "CoreTestbed", "core", "start a core-daemon and name it: CoreTestbed(address=...)"
    )


def _asked(name: str, module: str, remedy: str) -> Finding:
    """Ask a testbed's own module, which has a function ``why_not``, empty if it can run."""
    try:
        testbed = importlib.import_module(f"workbench.testbed.{module}")
        reason = str(testbed.why_not())
    except (ImportError, AttributeError) as error:
        return Finding(name, False, f"not part of this installation ({error})", remedy)
    if reason:
        detail, found = _split(reason)
        return Finding(name, False, detail, found or remedy)
    return Finding(name, runs=True, detail=str(getattr(testbed, "HOW", "tried out")))


def _machine(fleet: Fleet | None) -> list[str]:
    memory = psutil.virtual_memory()
    free = memory.available / 2**20
    fits = max(0, int((free - _MEGABYTES_AT_LEAST) / _MEGABYTES_PER_NODE))
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    lines = [
        (
            f"This machine: {os.cpu_count()} cores (load {psutil.getloadavg()[0]:.1f}), "
            f"{free / 1024:.1f} of {memory.total / 2**30:.1f} GiB memory free, GPU: {gpu}."
        ),
        (
            "Live, all clients share these cores, and all messages one SuperLink, which carries "
            f"about {SUPERLINK_BPS / 1e9:.1f} Gbit/s in all and needs about 0.1 s of a core for "
            f"each message; memory is enough for about {fits} clients of a small model."
        ),
    ]
    if fleet is not None:
        total = float(fleet.rate_bps.sum())
        told = too_much_for_superlink(total)
        lines.append(
            f"This fleet: {told}."
            if told
            else f"This fleet's links sum up to {total / 1e9:.2f} "
            "Gbit/s, which one SuperLink carries."
        )
        if len(fleet) > fits:
            lines.append(
                f"This fleet has {len(fleet)} clients: more than the memory is enough for."
            )
    return lines
