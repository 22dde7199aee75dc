"""JupyterLab on localhost behind a token, for one test session, and a page that watches itself."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "reports" / "screenshots"
PATIENCE_MS = 60_000
"""Shared machines stall: nothing is waited for longer than it takes, but for this long at most."""

RUN_MS = 240_000
"""The same for running the cells, which may have to compile the kernels of the grouping first."""
expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Lab:
    """A JupyterLab that serves a folder."""

    url: str
    token: str
    folder: Path

    def write(self, name: str, *sources: str) -> None:
        """Put a notebook with these code cells into the folder."""
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        cells = [new_code_cell(source) for source in sources]
        notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, self.folder / name)

    def call(self, path: str, method: str = "GET") -> bytes:
        """Ask Jupyter's REST interface."""
        request = urllib.request.Request(
            f"{self.url}/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return bytes(reply.read())


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Serve JupyterLab, as `make lab` does, with settings of its own; it is gone afterwards."""
    home = tmp_path_factory.mktemp("jupyter")
    folder = home / "notebooks"
    folder.mkdir()
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}",
    ]  # fmt: skip
    if os.geteuid() == 0:
        command.append("--allow-root")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PLOTLY_RENDERER": "plotly_mimetype",
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    log = home / "jupyter.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    served = Lab(f"http://127.0.0.1:{port}", token, folder)
    try:
        _await(served, server, log)
        yield served
    finally:
        # The server ends its kernels when it is asked to, and then itself.
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _await(served: Lab, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            served.call("api/status")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if server.poll() is not None or time.monotonic() > until:
                pytest.fail(f"JupyterLab did not come up:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        else:
            return


_FIGURES_FIT = """() => [...document.querySelectorAll('.js-plotly-plot')]
  .filter(plot => plot.clientWidth > 0)
  .every(plot => {
    const drawn = plot.querySelector('.main-svg');
    return drawn && Math.abs(drawn.getBoundingClientRect().width - plot.clientWidth) < 2;
  })"""

_CUT_OFF = """() => [...document.querySelectorAll(
    '.jp-OutputArea .widget-label, .jp-OutputArea button, .jp-OutputArea select')]
  .filter(one => one.clientWidth > 0 && one.scrollWidth > one.clientWidth + 1)
  .map(one => one.innerText)"""


@dataclass
class Visit:
    """A page in JupyterLab, and what its console complained about."""

    page: Page
    lab: Lab
    errors: list[str] = field(default_factory=list)

    def open(self, notebook: str) -> None:
        """Open a notebook and wait until its kernel is there."""
        self.page.goto(f"{self.lab.url}/lab/tree/{notebook}?token={self.lab.token}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=PATIENCE_MS)
        expect(self.page.locator("#jp-bottom-panel")).to_contain_text("Python 3 (ipykernel) | Idle")

    def run_all(self) -> None:
        """Run all cells, from the keyboard."""
        cells = self.page.locator(".jp-Notebook .jp-CodeCell")
        number = cells.count()
        cells.first.locator(".cm-content").click()
        for _ in range(number):
            self.page.keyboard.press("Shift+Enter")
        for n in range(number):
            done = cells.nth(n).locator(".jp-InputPrompt")
            expect(done).to_have_text(re.compile(r"\[\d+\]:"), timeout=RUN_MS)

    def run_in_new_cell(self, source: str) -> None:
        """Type code into the empty cell at the end and run it, without waiting for its end."""
        editor = self.page.locator(".jp-Notebook .jp-CodeCell").last.locator(".cm-content")
        editor.click()
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Shift+Enter")

    def tab(self, name: str) -> None:
        """Show a tab of the panel."""
        self.page.locator(
            ".lm-TabBar-tab.jupyter-widget-tab-title, .widget-tab .lm-TabBar-tab"
        ).filter(has_text=name).first.click()

    def control(self, label: str) -> Locator:
        """Return the control with this label in the tab that is shown."""
        return self.page.locator(
            f".jupyter-widgets:has(> .widget-label:text-is('{label}')):visible"
        ).first

    def button(self, text: str) -> Locator:
        """Return a button of the tab that is shown."""
        return self.page.locator(f"button.jupyter-button:has-text('{text}'):visible").first

    def drawn(self) -> None:
        """Wait until the figures that are shown fill their places."""
        self.until(
            lambda: bool(self.page.evaluate(_FIGURES_FIT)), "figures as wide as their places"
        )

    def assert_nothing_is_cut_off(self) -> None:
        """Fail if a label, a button or a figure is wider than the place that it has."""
        assert self.page.evaluate(_CUT_OFF) == []

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds that no single element shows."""
        end = time.monotonic() + PATIENCE_MS / 1000
        while not holds():
            if time.monotonic() > end:
                pytest.fail(f"the page never showed {what}")
            self.page.wait_for_timeout(50)

    def save(self) -> None:
        """Save the notebook, and wait until it is on the disk."""
        file = self.lab.folder / self.page.url.partition("?")[0].rpartition("/tree/")[2]
        before = file.stat().st_mtime_ns
        self.page.locator(".jp-Notebook .jp-InputPrompt").first.click()
        self.page.keyboard.press("Control+s")
        self.until(lambda: file.stat().st_mtime_ns != before, "that the notebook was saved")

    def reload(self) -> None:
        """Load the page again, as after closing it; the kernel has gone on."""
        self.page.reload()
        self.page.locator(".jp-Notebook .js-plotly-plot:visible").first.wait_for()

    def shot(self, name: str) -> None:
        """Keep a picture of the whole page, as wide as the page is."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest.fixture
def visit(lab: Lab, chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Return a page; the test fails if its console told of an error.

    How the page looked at the end of a test is kept under the test's name.
    """
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    visited = Visit(page, lab)

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error" or message.text.startswith("WARN:"):  # so says plotly.js
            visited.errors.append(f"{message.text} ({message.location.get('url', '')})")

    page.on("console", listen)
    page.on("pageerror", lambda error: visited.errors.append(str(error)))
    yield visited
    visited.shot(request.node.originalname)
    for session in json.loads(lab.call("api/sessions")):  # a kernel less for the next test
        lab.call(f"api/sessions/{session['id']}", "DELETE")
    page.close()
    context.close()
    assert visited.errors == []
