"""The control room in JupyterLab, in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser

SETUP = """\
import workbench as wb
from workbench.ui.panel import Panel
data = wb.load_dataset("digits")
fleet = wb.Fleet.dirichlet(data, clients=56, alpha=0.3, seed=7)
model = wb.models.alexnet(num_classes=10, width=0.125, in_channels=1, seed=7)
search = wb.Search(
    model, data, fleet, netadapt=wb.NetAdapt(budget=0.5, iterations=2),
    training=wb.FedAvg(rounds=2), policy=wb.SearchPolicy(pretrain_rounds=2), seed=7,
)
panel = Panel(search, "runs/browser")
panel
"""


def test_a_search_on_the_simulated_testbed(visit: Visit) -> None:
    visit.lab.write("room.ipynb", SETUP)
    visit.open("room.ipynb")
    visit.run_all()
    visit.page.wait_for_selector(".js-plotly-plot")

    visit.tab("Grouping")
    groups = visit.page.get_by_text(re.compile(r"Groups: mean EMD [\d.]+, \d+ swaps"))
    before = groups.inner_text()
    handle = visit.field("COEFF").locator(".noUi-handle")
    handle.focus()
    for _ in range(20):
        visit.page.keyboard.press("ArrowLeft")
    expect(groups).not_to_have_text(before)
    expect(visit.page.get_by_text("search.grouping = wb.NetDAG(coeff=0.")).to_be_visible()
    visit.shot("grouping-1600")

    visit.tab("Search")
    visit.button("Start").click()
    visit.page.get_by_text("round 1 of 2 took").first.wait_for()
    visit.button("Pause").click()
    visit.page.get_by_text("paused", exact=True).wait_for()
    visit.button("Resume").click()
    visit.page.get_by_text(re.compile("iteration 1: round 1 of 2")).first.wait_for()
    visit.shot("search-1600")
    visit.button("Stop").click()
    visit.page.get_by_text("stopped; Start goes on").wait_for()
    for name in ("Fleet", "Network", "Runs"):
        visit.tab(name)
        visit.page.wait_for_timeout(500)
        visit.shot(f"{name.lower()}-1600")
