"""The control room in JupyterLab, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

SETUP = """\
import workbench as wb

data = wb.load_dataset("digits")
search = wb.Search(
    wb.models.alexnet(num_classes=10, width=0.125, in_channels=1, seed=7),
    data,
    wb.Fleet.dirichlet(data, clients={clients}, alpha=0.3, seed=7),
    netadapt=wb.NetAdapt(budget=0.5, iterations=12),
    training=wb.FedAvg(rounds=2),
    policy=wb.SearchPolicy(pretrain_rounds=2),
    testbed=wb.{testbed}(),
    seed=7,
)
panel = wb.Panel(search, "runs/{name}")
panel
"""


def room(visit: Visit, name: str, clients: int, testbed: str) -> None:
    """Open a notebook with a panel and run it."""
    visit.lab.write(f"{name}.ipynb", SETUP.format(clients=clients, testbed=testbed, name=name))
    visit.open(f"{name}.ipynb")
    visit.run_all()
    visit.page.locator(".js-plotly-plot:visible").first.wait_for()


def events(visit: Visit, name: str) -> list[dict[str, object]]:
    lines = (visit.lab.folder / "runs" / name / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def mean_emd(visit: Visit) -> str:
    """Return the mean EMD that the page shows."""
    caption = visit.page.get_by_text(re.compile(r"Groups: mean EMD [\d.]+")).inner_text()
    return caption.split(",")[0].split()[-1]


def points(visit: Visit) -> int:
    """Count the points of the figures that are shown."""
    return visit.page.locator(".js-plotly-plot:visible .scatterlayer .point").count()


def changes(visit: Visit, read: Callable[[Visit], str], before: str) -> str:
    """Wait until the page shows something else than before, and return it."""
    visit.until(lambda: read(visit) != before, f"something else than {before}")
    return read(visit)


def retype(field: Locator, text: str) -> None:
    field.click()
    field.press("Control+a")
    field.press_sequentially(text)
    field.press("Enter")


def test_fleet_and_grouping_follow_the_controls(visit: Visit) -> None:
    room(visit, "controls", 56, "SimulatedTestbed")

    visit.tab("Grouping")
    before = mean_emd(visit)
    handle = visit.control("COEFF").locator(".noUi-handle")
    place = handle.bounding_box()
    assert place is not None
    mouse = visit.page.mouse
    mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    mouse.down()
    mouse.move(place["x"] - 120, place["y"] + 5, steps=6)
    mouse.up()
    dragged = changes(visit, mean_emd, before)
    code = visit.page.get_by_text(re.compile(r"search\.grouping = wb\.NetDAG\(coeff=0\.\d+"))
    expect(code).to_be_visible()
    handle.focus()
    for _ in range(60):
        visit.page.keyboard.press("ArrowRight")
    changes(visit, mean_emd, dragged)

    visit.tab("Fleet")
    retype(visit.control("Clients").locator(".widget-readout"), "210")
    expect(visit.page.get_by_text("210 clients, slowest link on the left")).to_be_visible()
    visit.tab("Grouping")
    expect(visit.page.locator(".workbench-table:visible td").nth(1)).to_have_text("30")

    visit.tab("Network")
    low = visit.control("Tier 11: from").locator("input")
    retype(low, "9")
    error = visit.page.get_by_role("alert")
    expect(error).to_contain_text("high_bps is 3e+06, but must be at least low_bps = 9e+06")
    visit.shot("error")
    retype(low, "1.5")
    expect(error).to_have_count(0)
    expect(visit.page.get_by_text("search.fleet.with_tiers(tiers)")).to_be_visible()
    expect(visit.page.get_by_text("1.5", exact=True).first).to_be_visible()

    for width in (1280, 1600):
        visit.page.set_viewport_size({"width": width, "height": 1300})
        for name in ("Fleet", "Grouping", "Network"):
            visit.tab(name)
            visit.drawn()
            visit.shot(f"{name.lower()}-{width}")
            visit.assert_nothing_is_cut_off()


def test_a_search_is_started_paused_resumed_and_stopped(visit: Visit) -> None:
    name = "simulated"
    room(visit, name, 28, "SimulatedTestbed")
    visit.tab("Search")
    visit.button("Start").click()
    visit.page.get_by_text("round 1 of 2 took").first.wait_for()
    visit.button("Pause").click()
    visit.page.get_by_text("paused", exact=True).wait_for()
    paused = len(events(visit, name))

    visit.tab("Grouping")
    handle = visit.control("COEFF").locator(".noUi-handle")
    handle.focus()
    for _ in range(10):
        visit.page.keyboard.press("ArrowLeft")
    visit.page.get_by_text("search.grouping = wb.NetDAG(coeff=0.8,").wait_for()
    visit.tab("Network")
    visit.button("Cut").click()
    expect(visit.page.get_by_text("search.network.cut('client-0')")).to_be_visible()
    expect(visit.page.locator(".workbench-table").get_by_text("cut", exact=True)).to_be_visible()
    assert len(events(visit, name)) == paused, "a paused search does nothing"

    visit.save()
    visit.reload()
    visit.tab("Grouping")
    expect(visit.control("COEFF").locator(".widget-readout")).to_have_text("0.80")
    visit.until(lambda: points(visit) > 28, "the bubbles of the groups again")
    visit.tab("Search")
    visit.page.get_by_text("paused", exact=True).wait_for()
    visit.until(lambda: points(visit) > 0, "the rounds of the run again")
    visit.drawn()

    visit.button("Resume").click()
    visit.page.get_by_text("grouping changed to NetDAG").first.wait_for()
    visit.page.get_by_text("client-0: link cut").first.wait_for()
    visit.page.get_by_text(re.compile("iteration 1: .* was pruned")).first.wait_for()
    visit.page.get_by_text(re.compile("about .* left")).wait_for()
    visit.shot("search-running")
    visit.button("Stop").click()
    visit.page.get_by_text("stopped; Start goes on").wait_for()
    kinds = [event["event"] for event in events(visit, name)]
    assert kinds.count("change") >= 1
    assert "link" in kinds

    visit.page.set_viewport_size({"width": 1600, "height": 1500})
    visit.drawn()
    visit.shot("search-stopped")
    visit.assert_nothing_is_cut_off()
    visit.tab("Runs")
    visit.page.get_by_role("option", name=name).click()
    visit.button("Open").click()
    visit.page.get_by_text(re.compile(r"\d+ iterations? so far: MACs")).wait_for()
    visit.drawn()
    visit.shot("runs")
    visit.assert_nothing_is_cut_off()
    visit.button("Report").click()
    visit.page.get_by_text("1 file written").wait_for()
    assert (visit.lab.folder / "runs" / name / "export" / "report.html").exists()
    visit.button("Tables as CSV").click()
    visit.page.get_by_text("accounting.csv").wait_for()


@pytest.mark.namespaces
@pytest.mark.usefixtures("live_machine")
def test_a_rate_that_is_set_is_measured_on_the_live_testbed(visit: Visit) -> None:
    room(visit, "live", 8, "NamespaceTestbed")
    visit.tab("Search")
    visit.button("Start").click()
    visit.tab("Network")
    visit.page.get_by_text("A NamespaceNetwork is up").wait_for()
    # What is typed and then clicked is done in this order, also by a kernel that was busy.
    visit.run_in_new_cell("import time; time.sleep(4)")
    retype(visit.control("Rate (Mbit/s)").locator("input"), "1.25")
    visit.button("Set rate").click()
    visit.page.get_by_text("search.network.set_rate('client-0', 1.25e+06)").wait_for()
    name = visit.page.get_by_text("client-0", exact=True)
    row = visit.page.locator(".workbench-table:visible tr", has=name).last
    expect(row.locator("td").nth(3)).to_have_text("1.25")

    def measured() -> float:
        cells = [row.locator("td").nth(place).inner_text() for place in (4, 5)]
        return max(float(cell) for cell in cells)

    visit.until(lambda: 1.0 <= measured() <= 1.4, "a measured rate near 1.25 Mbit/s")
    visit.shot("live")
    visit.tab("Search")
    visit.button("Stop").click()
    visit.page.get_by_text(re.compile("stopping after this round|stopped; Start")).wait_for()
