"""What is taken away from a run: figures as HTML or PNG, tables as CSV."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from workbench.ui import run_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    import plotly.graph_objects as go

    from workbench.search.run import Run

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "microsoft-edge")
_WIDTH = 1000
_PATIENCE_S = 60


def find_browser() -> str | None:
    """Return the path of a Chromium or a relative of it, or None."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def export_html(run: Run, folder: Path) -> list[Path]:
    """Write each figure of a run as an HTML file that needs no network."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in run_report.figures(run).items():
        path = folder / f"{name}.html"
        figure.write_html(path, include_plotlyjs=True, config={"displaylogo": False})
        written.append(path)
    return written


def export_png(run: Run, folder: Path) -> list[Path]:
    """Write each figure of a run as a picture, drawn by a browser that is installed.

    Raises
    ------
    RuntimeError
        If there is no browser, or it does not draw.
    """
    browser = find_browser()
    if browser is None:
        raise RuntimeError(f"PNG needs a browser: none of {', '.join(_BROWSERS)} is on the path")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = run_report.figures(run)
    written = []
    for name, picture in zip(drawn, _pictures(browser, list(drawn.values())), strict=True):
        path = folder / f"{name}.png"
        picture.save(path)
        written.append(path)
    return written


def export_csv(run: Run, folder: Path) -> list[Path]:
    """Write each table of a run as a CSV file, with the accounts of every message."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    complete = {"rounds": run.rounds(), "failures": run.failures(), "accounting": run.accounting()}
    for name, table in {**run_report.tables(run), **complete}.items():
        if not table.empty and name != "failures one by one":
            path = folder / f"{name}.csv"
            table.to_csv(path, index=False)
            written.append(path)
    return written


def _pictures(browser: str, figures: list[go.Figure]) -> Iterator[Image.Image]:
    """Draw figures below each other on one page, which takes one start of the browser."""
    heights = [int(figure.layout.height or 450) for figure in figures]
    drawn = "".join(
        figure.update_layout(width=_WIDTH, height=height).to_html(
            include_plotlyjs=number == 0, full_html=False, config={"staticPlot": True}
        )
        for number, (figure, height) in enumerate(zip(figures, heights, strict=True))
    )
    with tempfile.TemporaryDirectory() as scratch:
        page, picture = Path(scratch) / "page.html", Path(scratch) / "page.png"
        page.write_text(f'<meta charset="utf-8"><body style="margin:0">{drawn}', encoding="utf-8")
        command = [
            browser, "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            f"--user-data-dir={scratch}/profile", f"--window-size={_WIDTH},{sum(heights)}",
            f"--screenshot={picture}", page.as_uri(),
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # Chromium refuses its sandbox to root
        try:
            done = subprocess.run(  # noqa: S603  # a browser of this machine, on our own page
                command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{browser} drew nothing within {_PATIENCE_S} s") from None
        if not picture.exists():
            raise RuntimeError(f"{browser} drew nothing: {done.stderr[-300:]}")
        with Image.open(picture) as whole:
            top = 0
            for height in heights:
                yield whole.crop((0, top, _WIDTH, top + height))
                top += height
