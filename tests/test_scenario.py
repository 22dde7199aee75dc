"""Scenarios: session files that are made from fleets, and fleets that are read from any of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from workbench import scenario_recipes, topology_xml
from workbench.__main__ import main
from workbench.fleet import Fleet
from workbench.scenario import SERVER, SWITCH, Scenario
from workbench.tiers import PAPER_TIERS, Tier, scenario_folder
from workbench.topology import End, Link, LinkOptions, Node, Topology

OWN = (
    Tier("dsl (old)", "low", 1e6, 2e6, 1e6),
    Tier("fibre", "high", 5e8, 5e8, 1e8),
)

# As core-gui 9 writes it: no interface on the switch, positions with more than we need.
BY_SOMEBODY = """<?xml version='1.0' encoding='UTF-8'?>
<scenario name="/tmp/some">
  <networks>
    <network id="4" name="n4" icon="" canvas="0" type="SWITCH">
      <position x="192.0" y="252.0" lat="47.57" lon="-122.12" alt="2.0"/></network>
  </networks>
  <devices>
    <device id="9" name="my-server" icon="" canvas="0" type="PC" class="" image="">
      <position x="10.5" y="20"/><services><service name="DefaultRoute"/></services></device>
    <device id="2" name="a" type="PC" class="docker" image="some:1"><position x="1" y="2"/></device>
    <device id="3" name="b" type="host" class=""><position x="3" y="4"/></device>
    <device id="5" name="c" type="PC" class=""/>
    <device id="7" name="r" type="router" class=""/>
  </devices>
  <links>
    <link node1="4" node2="9"><iface2 id="0" name="eth0" ip4="10.0.0.9" ip4_mask="24"/></link>
    <link node1="4" node2="2"><iface2 id="0" name="eth0" ip4="10.0.0.2" ip4_mask="24"/>
      <options delay="5" bandwidth="14000000" loss="0.5" dup="0" jitter="0" buffer="0"/></link>
    <link node1="3" node2="4"><iface1 id="1" ip4="10.0.0.3" ip4_mask="24"/><iface2 id="7"/>
      <options bandwidth="90000000" unidirectional="1"/></link>
    <link node1="4" node2="3"><iface1 id="7"/><iface2 id="1"/>
      <options bandwidth="2600000" unidirectional="1"/></link>
    <link node1="5" node2="4"><iface1 id="0"/><iface2 id="1"/></link>
    <link node1="7" node2="4"><iface1 id="0"/><iface2 id="2"/></link>
  </links>
</scenario>
"""


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a text into a file."""

    def write(text: str) -> Path:
        path = tmp_path / "some.xml"
        path.write_text(text)
        return path

    return write


# ---------------------------------------------------------------------- the shipped ones


def test_the_shipped_scenarios_are_what_the_command_writes(tmp_path, capsys):
    assert main(["scenario", "--output", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    shipped = sorted(path.name for path in scenario_folder().glob("*.xml"))
    assert shipped == ["nafnas-210.xml", "nafnas-56.xml", "teaching-7.xml"]
    for name in shipped:
        assert (tmp_path / name).read_bytes() == (scenario_folder() / name).read_bytes(), name


@pytest.mark.parametrize(("name", "clients"), [("nafnas-56", 56), ("nafnas-210", 210)])
def test_the_papers_fleets_come_back(name, clients):
    fleet = Fleet.from_scenario(scenario_folder() / f"{name}.xml")
    assert len(fleet) == clients
    assert set(np.bincount(fleet.tier)) == {clients // 14}
    assert fleet.samples.sum() == 60_000
    assert fleet.tiers == PAPER_TIERS
    assert fleet.fingerprint() == scenario_recipes.SHIPPED[name].fleet().fingerprint()


@pytest.mark.parametrize("name", sorted(scenario_recipes.SHIPPED))
def test_the_picture_can_be_read(name):
    topology = topology_xml.read((scenario_folder() / f"{name}.xml").read_bytes())
    canvas = json.loads(topology.metadata["canvas"])["canvases"][0]["dimensions"]
    places = np.array([(node.x, node.y) for node in topology.nodes])
    assert (places > 40).all()
    assert (places < np.array(canvas) - 40).all()
    # A node is drawn 48 pixels wide with its name below: none may cover another.
    for one, other in itertools.combinations(places, 2):
        apart = np.abs(one - other)
        assert apart[0] >= 48 or apart[1] >= 48 or np.hypot(*apart) >= 56
    labels = [shape for shape in json.loads(topology.metadata["shapes"]) if shape["label"]]
    assert len(labels) == len({node.name.split("-t")[1] for node in topology.nodes[2:]})
    for shape in labels:
        x, y = shape["iconcoords"]
        beside = (np.abs(places[:, 0] - x) >= 80) | (np.abs(places[:, 1] - y) >= 30)
        assert beside[2:].all(), shape["label"]


def test_nodes_show_their_tier_and_stand_in_its_ring():
    scenario = Scenario.read(scenario_folder() / "nafnas-56.xml")
    server = scenario.topology.node(scenario.server)
    distance = {}
    for row, number in enumerate(scenario.clients):
        node = scenario.topology.node(number)
        tier = scenario.tiers[scenario.tier[row]]
        assert node.name == f"c{row}-t{tier.name}"
        distance.setdefault(tier.name, []).append(np.hypot(node.x - server.x, node.y - server.y))
    assert all(np.ptp(ring) < 1 for ring in distance.values())
    radii = [np.mean(distance[tier.name]) for tier in PAPER_TIERS]
    assert (np.diff(radii) < -50).all()  # the faster, the nearer


# ---------------------------------------------------------------------- there and back


@settings(max_examples=30)
@given(
    rates=some.lists(some.floats(0, 1e9), min_size=1, max_size=12),
    seed=some.integers(0, 100),
)
def test_any_fleet_comes_back_as_it_was(tmp_path_factory, rates, seed):
    counts = np.random.default_rng(seed).integers(0, 9, size=(len(rates), 3))
    fleet = Fleet.from_label_counts(counts, tiers=OWN, rate_bps=rates, seed=seed)
    path = Scenario.of(fleet).write(tmp_path_factory.mktemp("s") / "x.xml")
    assert Fleet.from_scenario(path).fingerprint() == fleet.fingerprint()


def test_a_dataset_is_split_over_the_clients_of_a_scenario(digits):
    path = scenario_folder() / "nafnas-56.xml"
    fleet = Fleet.from_scenario(path, digits, alpha=0.5, seed=3)
    alone = Fleet.from_scenario(path)
    assert fleet.train_samples.sum() + fleet.test_samples.sum() == len(digits)
    np.testing.assert_array_equal(fleet.rate_bps, alone.rate_bps)
    np.testing.assert_array_equal(fleet.tier, alone.tier)
    expected = Fleet.dirichlet(digits, 56, 0.5, seed=3)
    np.testing.assert_array_equal(fleet.label_counts, expected.label_counts)
    assert fleet.settings["scenario"] == "nafnas-56.xml"
    assert fleet.settings["alpha"] == 0.5


def test_what_somebody_changed_in_core_gui_holds(tmp_path):
    fleet = scenario_recipes.SHIPPED["teaching-7"].fleet()
    path = Scenario.of(fleet).write(tmp_path / "x.xml")
    topology = topology_xml.read(path.read_bytes())
    links = list(topology.links)
    links[3] = Link(links[3].one, links[3].other, LinkOptions(bandwidth_bps=1_000_000))
    new = Node(99, "mine", "node")
    links.append(Link(End(99, 0), End(SWITCH, 99), LinkOptions(bandwidth_bps=8_000_000)))
    changed = Topology((*topology.nodes, new), tuple(links), topology.metadata)
    path.write_bytes(topology_xml.write(changed))
    read = Fleet.from_scenario(path)
    assert len(read) == 8
    assert read.rate_bps[2] == 1e6
    np.testing.assert_array_equal(np.delete(read.rate_bps, [2, 7]), np.delete(fleet.rate_bps, 2))
    assert read.names[7] == "mine"
    assert read.tiers[read.tier[7]].name == "21"  # by ratio 8.5 is nearer to 8 than 7.5 is


# ---------------------------------------------------------------------- by somebody else


def test_a_file_by_somebody_else_is_read(written):
    scenario = Scenario.read(written(BY_SOMEBODY))
    assert scenario.topology.node(scenario.server).name == "my-server"
    assert scenario.names == ("a", "b", "c")  # the router is no client
    # both directions: the slower one; no limit: the fastest rate there is
    np.testing.assert_array_equal(scenario.rate_bps, [14e6, 2.6e6, 380e6])
    assert [PAPER_TIERS[index].name for index in scenario.tier] == ["22", "11", "41"]
    assert scenario.label_counts is None
    node = scenario.topology.node(2)
    assert (node.kind, node.image) == ("docker", "some:1")
    link = scenario.link_of(2)
    assert link.one.ip4 == "10.0.0.2"
    assert (link.options.delay_us, link.options.loss_percent) == (5, 0.5)
    on_switch = [
        end.interface
        for link in scenario.topology.links
        for end in (link.one, link.other)
        if end.node == 4
    ]
    assert sorted(set(on_switch)) == [0, 1, 2, 3, 7]  # one direction told twice, none shared
    fleet = Fleet.from_scenario(written(BY_SOMEBODY), tiers=OWN)
    assert fleet.label_counts.tolist() == [[1], [1], [1]]
    assert [OWN[index].name for index in fleet.tier] == ["dsl (old)", "dsl (old)", "fibre"]
    with_router = Scenario.read(written(BY_SOMEBODY.replace('"PC"', '"router"')), server="b")
    assert with_router.names == ("a", "c", "r", "my-server")


def test_programs_in_a_file_are_named_and_not_taken_over():
    hook = '<session_hooks><hook name="h" state="4">rm -rf /</hook></session_hooks></scenario>'
    topology = topology_xml.read(BY_SOMEBODY.replace("</scenario>", hook).encode())
    assert topology.programs == ("hooks, which CORE runs on its own machine as root",)
    assert b"rm -rf" not in topology_xml.write(topology)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("my-server", "n9"), r"which device is the server; name it.*it has a, b, c, r, n9"),
        (('"b"', '"b-server"'), "which device is the server"),
        (('node1="4" node2="9"', 'node1="4" node2="77"'), "ends at node 77"),
        (('id="5"', 'id="2"'), "number 2 occurs twice"),
        (('id="5"', 'id="0"'), "numbers start at 1"),
        (('id="5"', 'id="five"'), "id='five'; a number from 0 up"),
        (('bandwidth="14000000"', 'bandwidth="-1"'), "bandwidth='-1'; a number from 0 up"),
        (('loss="0.5"', 'loss="nan"'), "loss='nan'"),
        (('<link node1="5" node2="4">', '<link node1="7" node2="4">'), "device c has no link"),
        (("</scenario>", ""), "it is not XML"),
        (("<scenario name", "<scene name"), "it is not XML"),
        (("UTF-8'?>", "UTF-8'?><!DOCTYPE a [<!ENTITY b 'c'>]>"), "declares a document type"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_name(written, change, message):
    assert change[0] in BY_SOMEBODY
    with pytest.raises(ValueError, match=r"some\.xml: .*" + message):
        Scenario.read(written(BY_SOMEBODY.replace(*change)))


def test_metadata_that_is_damaged_is_refused(tmp_path):
    text = (scenario_folder() / "teaching-7.xml").read_text()
    for old, new in (
        ("&quot;format&quot;", "&quot;format"),
        ("&quot;tiers&quot;:", "&quot;tears&quot;:"),
        ("&quot;server&quot;:2", "&quot;server&quot;:[]"),
    ):
        assert old in text
        path = tmp_path / "x.xml"
        path.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match="metadata 'workbench' cannot be understood"):
            Scenario.read(path)


def test_names_are_fit_for_hosts_and_different():
    names = ["Anna's phone", "Anna.s phone", "client-7", "x" * 80]
    counts = np.ones((4, 2), dtype=int)
    fleet = Fleet.from_label_counts(counts, tiers=OWN, names=names, tier=[0, 0, 1, 1])
    scenario = Scenario.of(fleet, "docker", "some:1")
    shown = [node.name for node in scenario.topology.nodes[2:]]
    assert len(set(shown)) == 4
    for name in shown:
        assert name.replace("-", "").isalnum()
        assert len(name) <= 63
    assert {node.kind for node in scenario.topology.nodes} == {"switch", "docker"}
    assert {node.number for node in scenario.topology.nodes[:2]} == {SWITCH, SERVER}


def test_a_scenario_of_ones_own(tmp_path, capsys):
    table = tmp_path / "own.csv"
    table.write_text("name,class,low_bps,high_bps,step_bps\nfast,high,5e8,5e8,1e8\n")
    path = tmp_path / "own.xml"
    command = ["scenario", "--clients", "5", "--tiers", str(table), "--output", str(path)]
    assert main([*command, "--node", "docker", "--image", "some:1"]) == 0
    fleet = Fleet.from_scenario(path)
    assert fleet.tiers[0].name == "fast"
    np.testing.assert_array_equal(fleet.rate_bps, np.full(5, 5e8))
    assert main(["scenario", "--clients", "0"]) == 1
    assert "clients" in capsys.readouterr().err
