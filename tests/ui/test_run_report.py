"""A run as one HTML file: complete, offline, without errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.search import small
from workbench.search.run import Run
from workbench.ui import panel_export, run_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.conftest import Missing


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    searching = small.small_search()

    def cut(event: object) -> None:
        if event["event"] == "group":  # type: ignore[index]
            searching.network.cut(1)  # type: ignore[union-attr]

    searching.listeners.append(cut)
    return searching.run(tmp_path_factory.mktemp("runs") / "a run", progress=False)


def test_the_report_says_what_the_run_was(run: Run, tmp_path: Path) -> None:
    path = run_report.write_run_report(run, tmp_path / "deep" / "report.html")
    body = re.sub(r"<script.*?</script>", "", path.read_text(), flags=re.DOTALL)
    for name in (
        "grouping.coeff", "netadapt.step", "seed", "training.learning_rate",
        "packages.torch", "packages.flwr", "python",
    ):  # fmt: skip
        assert f"<td>{name}</td>" in body
    assert "client-1: link cut" in body
    assert "unreachable" in body
    assert list(tmp_path.glob("**/.*.part")) == []


def test_it_needs_something_to_report(run: Run, tmp_path: Path) -> None:
    for name in ("config.json", "manifest.json"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    with pytest.raises(ValueError, match="has no result yet"):
        run_report.write_run_report(Run(tmp_path), tmp_path / "report.html")


@pytest.mark.browser
def test_it_opens_offline_and_prints(run: Run, tmp_path: Path, chromium: Browser) -> None:
    path = run_report.write_run_report(run, tmp_path / "report.html")
    context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    figures = page.locator(".js-plotly-plot .main-svg:first-child")
    assert figures.count() == len(run_report.figures(run))
    place = page.locator("h2").first.bounding_box()
    assert place is not None
    for n in range(figures.count()):
        drawn = figures.nth(n).bounding_box()
        assert drawn is not None
        assert drawn["width"] == pytest.approx(place["width"], abs=4)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


def test_tables_are_exported_whole(run: Run, tmp_path: Path) -> None:
    written = {path.stem: path for path in panel_export.export_csv(run, tmp_path)}
    assert len(written["accounting"].read_text().splitlines()) == len(run.accounting()) + 1
    assert len(written["rounds"].read_text().splitlines()) == len(run.rounds()) + 1


@pytest.mark.browser
def test_pictures_are_drawn_by_a_browser(run: Run, tmp_path: Path, missing: Missing) -> None:
    from PIL import Image

    if panel_export.find_browser() is None:
        missing("browser", "there is no chromium on the path")
    written = panel_export.export_png(run, tmp_path)
    assert {path.stem for path in written} == set(run_report.figures(run))
    for path in written:
        with Image.open(path) as picture:
            assert picture.width == 1000
            colours = picture.convert("RGB").getcolors(1_000_000)
            assert colours is not None
            assert len(colours) > 20, "not a blank page"


def test_without_a_browser_there_are_no_pictures(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="PNG needs a browser"):
        panel_export.export_png(run, tmp_path)
