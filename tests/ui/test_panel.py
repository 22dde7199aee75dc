"""The control room without a browser: what controls do, what they show, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.search import small
from workbench.fleet import Fleet
from workbench.grouping.balanced import BalancedGrouping
from workbench.grouping.baselines import RandomGrouping
from workbench.grouping.netdag import NetDAG
from workbench.search.run import Run
from workbench.search.search import Search
from workbench.testbed.core import CoreTestbed
from workbench.testbed.replay import TraceSchedule
from workbench.testbed.schedules import ConstantSchedule, TierSchedule
from workbench.ui.panel import Panel

MakePanel = Callable[..., Panel]
PATIENCE_S = 120


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def panel_of(tmp_path: Path) -> Iterator[MakePanel]:
    """Return what makes a panel of the small search; all are closed at the end."""
    made: list[Panel] = []

    def make(search: Search | None = None, path: Path | None = None, **more: Any) -> Panel:
        panel = Panel(search or small.small_search(), path or tmp_path / "run", **more)
        made.append(panel)
        return panel

    yield make
    for panel in made:
        panel.close()


def alert(panel: Panel) -> str:
    """Return the error that the panel shows."""
    found = re.search(r'role="alert"[^>]*>(.*)</div>', panel.desk.message.value, re.DOTALL)
    return found[1] if found else ""


def drawn(clients: int) -> Search:
    fleet = Fleet.dirichlet(small.dataset(), clients=clients, alpha=0.3, seed=1)
    return small.small_search(fleet=fleet)


def test_every_control_has_a_label(panel_of: MakePanel) -> None:
    unlabelled = []
    seen = [panel_of()]
    while seen:
        widget: Any = seen.pop()
        kind = type(widget).__name__
        if kind == "Button":
            bare = not (widget.description and widget.tooltip)
        else:
            bare = kind != "HTML" and hasattr(widget, "value") and not widget.description
        if bare:
            unlabelled.append(widget)
        seen += getattr(widget, "children", ())
    assert unlabelled == []


def test_grouping_controls_set_the_strategy(panel_of: MakePanel) -> None:
    panel = panel_of()
    search, tab = panel.desk.search, panel.grouping
    tab.coeff.value = 0.4
    assert search.grouping == NetDAG(coeff=0.4, max_iter=3)
    assert "search.grouping = wb.NetDAG(coeff=0.4" in panel.desk.code.value
    tab.limited.value = True
    assert search.grouping.max_slowdown == 1.0
    tab.strategy.value = "balanced"
    assert search.grouping == BalancedGrouping()
    assert tab.max_ratio.layout.display == ""
    assert tab.coeff.layout.display == "none"
    tab.strategy.value = "random"
    tab.seed.value = 5
    assert search.grouping == RandomGrouping(seed=5)
    assert "RandomGrouping(seed=5)" in panel.desk.code.value


def test_the_shown_groups_are_those_of_the_strategy(panel_of: MakePanel) -> None:
    panel = panel_of()
    search, tab = panel.desk.search, panel.grouping
    sizes = panel.desk.sizes_bytes()
    for coeff in (0.3, 1.0):
        tab.coeff.value = coeff
        grouping = search.grouping.group(search.fleet, len(sizes), sizes_bytes=sizes)
        assert f"mean EMD {grouping.emd().mean():.4f}" in tab._table.widget.value
        star = tab._pareto.widget.data[-1]
        assert star.x[0] == pytest.approx(grouping.emd().mean())
        assert star.y[0] == pytest.approx(grouping.round_duration_s(sizes).max())
        bars = tab._durations.widget.data[0]
        assert list(bars.y) == pytest.approx(grouping.round_duration_s(sizes).tolist())
        clients = sum(sum(trace.customdata) for trace in tab._groups.widget.data[:3])
        assert clients == len(search.fleet)


def test_what_is_done_in_code_shows_in_the_panel(panel_of: MakePanel) -> None:
    panel = panel_of()
    search = panel.desk.search
    search.grouping = NetDAG(coeff=0.25, max_iter=7)
    search.fleet = Fleet.dirichlet(search.dataset, clients=30, alpha=2.0, seed=5)
    search.testbed = type(search.testbed)(schedule=TierSchedule(period_s=20, seed=4))
    panel.refresh()
    assert panel.grouping.coeff.value == 0.25
    assert panel.grouping.max_iter.value == 7
    assert panel.fleet.clients.value == 30
    assert panel.fleet.alpha.value == pytest.approx(2.0)
    assert panel.fleet.seed.value == 5
    assert panel.network.schedule.period.value == 20
    assert panel.network.schedule.seed.value == 4
    assert search.fleet.settings["alpha"] == 2.0, "showing changes nothing"


def test_fleet_controls_draw_another_fleet(panel_of: MakePanel) -> None:
    search = drawn(20)
    panel = panel_of(search)
    panel.fleet.clients.value = 40
    assert len(search.fleet) == 40
    assert search.fleet.settings["alpha"] == 0.3
    panel.fleet.alpha.value = 10.0
    panel.fleet.seed.value = 3
    wanted = Fleet.dirichlet(small.dataset(), clients=40, alpha=10.0, seed=3)
    assert search.fleet.fingerprint() == wanted.fingerprint()
    line = re.sub("<[^>]*>", "", panel.desk.code.value)
    assert "search.fleet = wb.Fleet.dirichlet(search.dataset, clients=40, alpha=10.0" in line
    panel.fleet.clients.value = 2
    assert "groups is 3, but there are 2 clients" in alert(panel)
    assert len(search.fleet) == 40, "what does not fit is not kept"


def test_a_control_that_was_just_moved_is_not_set_back(panel_of: MakePanel) -> None:
    """The panel's own thread and a person may want the same control at once; the person wins."""
    panel = panel_of()
    search, tab = panel.desk.search, panel.grouping
    for step in range(40):
        tab.coeff.value = 0.3 + step / 100
        tab.max_iter.value = 1 + step
        assert search.grouping.coeff == pytest.approx(0.3 + step / 100)
        assert search.grouping.max_iter == 1 + step
    sent: list[str] = []
    tab.coeff.value = almost = 0.33000000000000007  # as a slider in a browser says 0.33
    tab.coeff.observe(lambda _: sent.append("value"), "value")
    panel.refresh()
    assert search.grouping.coeff == 0.33
    assert (tab.coeff.value, sent) == (almost, [])


def test_tiers_are_edited_and_checked(panel_of: MakePanel) -> None:
    search = drawn(28)
    panel = panel_of(search)
    lowest = panel.network.tiers.fields[0]
    lowest["low"].value = 8
    assert "tier 11: high_bps is 3e+06" in alert(panel)
    assert search.fleet.tiers[0].low_bps == 2.5e6
    lowest["low"].value = 1
    assert alert(panel) == ""
    assert search.fleet.tiers[0].low_bps == 1e6
    rates = search.fleet.rate_bps[search.fleet.tier == 0]
    assert set(rates) <= {1e6, 1.5e6, 2e6, 2.5e6, 3e6}


def test_schedules_are_chosen(panel_of: MakePanel) -> None:
    panel = panel_of()
    search, controls = panel.desk.search, panel.network.schedule
    controls.rule.value = "constant"
    assert search.testbed.schedule == ConstantSchedule()
    controls.rule.value = "traces"
    assert isinstance(search.testbed.schedule, TraceSchedule)
    assert controls.period.layout.display == "none"
    assert controls.trace.layout.display == ""
    controls.rule.value = "tiers"
    controls.period.value = 60
    assert search.testbed.schedule.period_s == 60
    controls.testbed.value = "namespaces"
    assert type(search.testbed).__name__ == "NamespaceTestbed"
    assert search.testbed.schedule.period_s == 60
    controls.testbed.value = "docker"
    assert type(search.testbed).__name__ == "DockerTestbed"
    assert "wb.DockerTestbed(schedule=search.testbed.schedule)" in panel.desk.code.value


def test_a_testbed_that_was_made_in_code_can_be_chosen_again(panel_of: MakePanel) -> None:
    made = CoreTestbed(address="10.0.0.9:50051")
    search = small.small_search(testbed=made)
    controls = panel_of(search).network.schedule
    assert controls.testbed.value == "CoreTestbed"
    controls.testbed.value = "simulated"
    assert type(search.testbed).__name__ == "SimulatedTestbed"
    controls.testbed.value = "CoreTestbed"
    assert search.testbed is made


def test_links_of_a_network_that_is_up(panel_of: MakePanel) -> None:
    search = small.small_search()
    network = search.testbed.up(search.fleet)
    panel = panel_of(search, network=network)
    tab = panel.network
    tab.client.value = "client-2"
    tab.rate.value = 1.5
    tab.set_rate.click()
    tab.cut.click()
    assert network.links()["cut"].tolist() == [False, False, True, False, False, False]
    tab.heal.click()
    assert network.rates_bps()[2] == 1.5e6
    tab.present.value = 4
    assert network.present().tolist() == [True] * 4 + [False] * 2
    tab.client.value = "client-5"
    tab.add.click()
    assert network.present()[5]
    network.remove(0)
    panel.refresh()
    assert tab.present.value == 4
    assert "removed" in tab._links.widget.value
    panel.watch(None)
    tab.cut.click()
    assert "no network is up" in alert(panel)


def test_a_search_runs_from_the_panel(panel_of: MakePanel, tmp_path: Path) -> None:
    panel = panel_of()
    search, tab = panel.desk.search, panel.search
    assert tab.pause.disabled
    paused: list[bool] = []

    def pause(event: Any) -> None:
        if event["event"] == "round" and not paused:
            paused.append(True)
            tab.pause.click()

    search.listeners.append(pause)
    tab.start.click()
    for _ in range(int(PATIENCE_S / 0.05)):
        if search.session.status == "paused":
            break
        search.session._thread.join(0.05)
    panel.refresh()
    assert "paused" in tab.state.value
    assert (tab.start.disabled, tab.resume.disabled) == (True, False)
    assert panel.fleet.clients.disabled
    assert "is up" in panel.network._note.value
    assert "this round waits for" in panel.network._links.widget.value
    tab.start.click()
    assert "running already" in alert(panel)
    tab.resume.click()
    run = search.wait(PATIENCE_S)
    panel.refresh()
    assert run.finished
    assert "finished" in tab.state.value
    assert len(tab._frontier.widget.data[0].x) == len(run.frontier())
    assert "iteration 2" in tab.log.value

    again = panel_of(path=tmp_path / "run")
    assert "this folder holds a finished run" in again.search.state.value
    assert len(again.search._frontier.widget.data[0].x) == len(run.frontier())
    again.search.path.value = str(tmp_path / "elsewhere")
    assert "ready to start" in again.search.state.value


def test_a_search_that_fails_says_so_in_words(panel_of: MakePanel, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("")
    panel = panel_of()
    panel.search.start.click()
    panel.desk.search.session._thread.join(PATIENCE_S)
    panel.refresh()
    assert "failed" in panel.search.state.value
    assert "mine.txt" in alert(panel)
    assert "Traceback" not in alert(panel)


def test_a_folder_that_is_no_run_is_told_in_words(panel_of: MakePanel, tmp_path: Path) -> None:
    for name in ("config.json", "manifest.json", "events.jsonl"):
        (tmp_path / "broken").mkdir(exist_ok=True)
        (tmp_path / "broken" / name).write_text("not JSON\n")
    panel = panel_of()
    panel.search.path.value = str(tmp_path / "broken")
    assert "Expecting value" in alert(panel)
    panel.search.path.value = str(tmp_path / "new")
    assert alert(panel) == ""


def test_runs_are_opened_compared_and_exported(panel_of: MakePanel, tmp_path: Path) -> None:
    for name, strategy in (("netdag", NetDAG()), ("random", RandomGrouping())):
        small.small_search(grouping=strategy).run(tmp_path / name, progress=False)
    panel = panel_of()
    tab = panel.runs
    assert [label for label, _ in tab.runs.options] == ["netdag", "random"]
    tab.open.click()
    assert "no run is selected" in alert(panel)
    tab.runs.value = (str(tmp_path / "netdag"),)
    tab.open.click()
    assert alert(panel) == ""
    assert "2 iterations" in tab.said.value
    for button in (tab.csv, tab.html, tab.report):
        button.click()
        assert alert(panel) == ""
    written = {path.name for path in (tmp_path / "netdag" / "export").iterdir()}
    assert {"iterations.csv", "accounting.csv", "frontier.html", "report.html"} <= written
    tab.runs.value = tuple(str(tmp_path / name) for name in ("netdag", "random"))
    tab.compare.click()
    assert alert(panel) == ""
    assert "grouping.type" in tab._settings.widget.value
    assert Run(tmp_path / "netdag").finished, "exports do not hurt a run"


def test_closing_a_panel_leaves_nothing_behind(tmp_path: Path) -> None:
    search = small.small_search()
    panel = Panel(search, tmp_path / "run")
    thread = panel._refresher._thread
    assert len(search.listeners) == len(search.session._watchers) == 1
    panel.close()
    thread.join(10)
    assert not thread.is_alive()
    assert search.listeners == search.session._watchers == []
