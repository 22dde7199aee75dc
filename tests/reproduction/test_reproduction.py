"""Reproductions: what there is, what is refused, going on, and what a result holds."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from workbench.__main__ import main
from workbench.models import convnet
from workbench.notebooks import NotebookFailedError, notebook_paths
from workbench.pruning.netadapt import NetAdapt
from workbench.reproduction import measures, runner
from workbench.reproduction import scale as scales
from workbench.reproduction.result import Reproduction, published
from workbench.reproduction.task import Task, bounded, centralised, pooled, seconds
from workbench.search.policies import CELEBA_ROUNDS

PAPER = runner.FOLDER
ROW = {"what", "unit", "published", "reproduced", "difference", "spread", "seeds", "runs"}
RESULT = {
    "format", "name", "profile", "seed", "smaller_than_paper", "notes", "rows", "claims", "took_s",
    "computed_s", "peak_memory_mb", "runs", "machine",
}  # fmt: skip


def write_notebook(folder: Path, *sources: str, name: str = "tiny") -> Path:
    parameters = new_code_cell(
        'profile = "laptop"\nseed = 7\niterations = None', metadata={"tags": ["parameters"]}
    )
    last = new_code_cell(sources[-1], metadata={"tags": ["summary"]})
    made = new_notebook(
        cells=[parameters, *map(new_code_cell, sources[:-1]), last],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "workbench": {
                "smoke": {"profile": "smoke"},
                "reproduction": {
                    "reproduces": "A paper, its table",
                    "minutes": {"smoke": 0.5, "laptop": 10},
                    "memory_gb": {"smoke": 0.5, "laptop": 1, "paper": 2},
                    "searches": {"nafnas": 8},
                },
            },
        },
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(made, path)
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return a folder with one notebook that searches on the digits."""
    write_notebook(
        tmp_path / "paper",
        "from workbench.reproduction.result import Reproduction\n"
        "result = Reproduction('tiny', profile, seed=seed, iterations=iterations)\n"
        "run = result.task('celeba').search('default')\n"
        "result.row('accuracy', 100 * run.frontier()['accuracy'].iloc[-1], 83.8, '%', [run])\n"
        "result.claim('it is good', False, 'it is small')",
        "result.write()\nprint(result.sentence())",
    )
    return tmp_path / "paper"


# ---------------------------------------------------------------------- what there is


def test_every_notebook_says_what_it_reproduces_and_what_it_takes() -> None:
    entries = runner.entries()
    assert set(entries) == {path.stem for path in notebook_paths(PAPER)}
    for entry in entries.values():
        assert entry.minutes.keys() == {"smoke", "laptop"}
        assert entry.memory_gb.keys() == {"smoke", "laptop", "paper"}
        assert entry.minutes["laptop"] <= 60
        assert entry.paper_hours > 0
        assert {"profile", "seed"} <= runner.parameters_of(entry).keys()


def test_the_list_names_each_with_time_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--list"]) == 0
    told = capsys.readouterr().out
    for name in runner.entries():
        assert f"{name}: " in told
    assert told.count("on a GPU, ") == len(runner.entries())
    assert told.count(" GB") == 3 * len(runner.entries())


def test_what_does_not_exist_is_refused_with_what_does(tiny: Path, tmp_path: Path) -> None:
    there = {"folder": tiny, "output": tmp_path / "out", "work": tmp_path / "work"}
    with pytest.raises(ValueError, match=r"no reproduction 'small'; there are tiny"):
        runner.reproduce("small", **there)
    with pytest.raises(ValueError, match="profile is 'huge', but must be one of smoke, laptop"):
        runner.reproduce("tiny", "huge", **there)
    with pytest.raises(ValueError, match=r"no parameter seeds; .*profile='laptop', seed=7"):
        runner.reproduce("tiny", parameters={"seeds": "3"}, **there)
    with pytest.raises(ValueError, match="seed is 'x', but must be of type int"):
        runner.reproduce("tiny", parameters={"seed": "x"}, **there)
    with pytest.raises(FileNotFoundError, match="notebooks of a clone"):
        runner.entries(tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "work").exists()


def test_the_command_line_tells_a_wrong_name_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["reproduce", "nafnas_speed"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("workbench: there is no reproduction 'nafnas_speed'; there are ")
    assert told.count("\n") == 1


# ---------------------------------------------------------------------- running


def test_it_runs_goes_on_and_keeps_its_result(tiny: Path, tmp_path: Path) -> None:
    there = {"folder": tiny, "output": tmp_path / "out", "work": tmp_path / "work"}
    there["parameters"] = {"iterations": "1"}
    done = runner.reproduce("tiny", progress=False, **there)
    assert done.summary.endswith("Does not agree: it is good (it is small).")
    folder = tmp_path / "out" / "tiny-smoke"
    assert {path.name for path in folder.iterdir()} == {"tiny.ipynb", "tiny.html", "result.json"}
    result = json.loads(done.result.read_text())
    assert result.keys() == RESULT
    assert [row.keys() for row in result["rows"]] == [ROW]
    assert result["rows"][0]["difference"] == pytest.approx(
        result["rows"][0]["reproduced"] - 83.8, abs=0.01
    )
    assert str(tmp_path) not in done.result.read_text()
    runs = sorted((tmp_path / "work" / "runs").glob("celeba-*"))
    assert {run.name for run in runs} == result["runs"].keys()
    assert len(runs) == 2, "pre-training and the search"

    before = {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*.jsonl")}
    again = runner.reproduce("tiny", progress=False, **there)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing ran again"
    assert json.loads(again.result.read_text())["rows"] == result["rows"]


def test_the_full_one_says_first_how_long_it_takes(tmp_path: Path) -> None:
    write_notebook(tmp_path / "paper", "raise RuntimeError(profile)")
    told: list[str] = []
    with pytest.raises(NotebookFailedError, match="RuntimeError: paper"):
        runner.reproduce(
            "tiny",
            "paper",
            folder=tmp_path / "paper",
            output=tmp_path / "out",
            work=tmp_path,
            progress=False,
            say=told.append,
        )
    (line,) = told
    assert "tiny at the profile paper: about " in line
    assert "hours on one GPU" in line or "days on one GPU" in line


def test_a_notebook_without_a_result_is_an_error(tmp_path: Path) -> None:
    write_notebook(tmp_path / "paper", "print(profile)")
    with pytest.raises(RuntimeError, match=r"tiny\.ipynb wrote no result"):
        runner.reproduce(
            "tiny", folder=tmp_path / "paper", output=tmp_path / "o", work=tmp_path, progress=False
        )


# ---------------------------------------------------------------------- scales and tasks


def test_a_scale_differs_from_the_paper_only_where_it_says_so() -> None:
    for setting in ("nafnas", "celeba", "imagenet"):
        full = scales.scale(setting, "paper")
        assert scales.differences(setting, full) == {}
        small = scales.scale(setting, "laptop")
        told = scales.differences(setting, small)
        assert told["width"] == (1.0, small.width)
        assert all(before != here for before, here in told.values())
    assert scales.scale("nafnas", "paper", clients=210, width=None).clients == 210
    with pytest.raises(ValueError, match="setting is 'mnist', but must be one of nafnas, celeba"):
        scales.scale("mnist", "paper")
    with pytest.raises(ValueError, match="there is no speed in a scale"):
        scales.scale("nafnas", "paper", speed=1)
    with pytest.raises(ValueError, match="rounds"):
        scales.scale("nafnas", "paper", rounds=0)


def test_bounded_rounds_are_those_of_the_table_or_fewer() -> None:
    few = bounded(CELEBA_ROUNDS, 4)
    assert few is not None
    assert [few.rounds(n) for n in (1, 6, 11, 20)] == [2, 4, 4, 4]
    assert bounded(CELEBA_ROUNDS, 0) is CELEBA_ROUNDS
    assert bounded(None, 3) is None


def test_the_estimate_counts_passes_over_the_images() -> None:
    one, two = (scales.paper_hours({"nafnas": number}) for number in (1, 2))
    assert two == pytest.approx(2 * one)
    # 15 iterations of 20 rounds of 10 epochs, and 50 rounds of tuning, three passes each.
    passes = 10 * (15 * 20 * 0.75 + 50 * 0.5)
    assert one == pytest.approx(3 * 225e6 * 40_500 * passes / 5e12 / 3600)


def test_the_servers_images_are_nobodys_and_candidates_are_judged_on_validation(
    tmp_path: Path,
) -> None:
    task = Task("celeba", scales.scale("celeba", "smoke"), seed=3, folder=tmp_path)
    clients = np.concatenate([*task.fleet.train_indices, *task.fleet.test_indices])
    assert not np.intersect1d(clients, task.dataset.server_indices).size
    assert len(task.dataset.server_indices) == pytest.approx(0.3 * 400, abs=2)
    for judged, own in zip(task.judging.test_indices, task.fleet.validation_indices, strict=True):
        assert judged.tolist() == own.tolist()
    shares = [
        task.fleet.train_samples.sum(),
        task.fleet.validation_samples.sum(),
        task.fleet.test_samples.sum(),
    ]
    assert np.array(shares) / sum(shares) == pytest.approx([0.6, 0.2, 0.2], abs=0.06)
    whole = centralised(task.fleet)
    assert len(whole) == 1
    assert sorted(whole.train_indices[0]) == sorted(np.concatenate(task.fleet.train_indices))
    assert (whole.label_counts == task.fleet.label_counts.sum(axis=0)).all()


def test_training_alone_ends_after_iteration_0_and_is_not_repeated(tmp_path: Path) -> None:
    task = Task("nafnas", scales.scale("nafnas", "smoke"), folder=tmp_path)
    run = task.train("two rounds", task.untrained, 2)
    assert run.frontier()["iteration"].tolist() == [0]
    assert len(run.of("round")) == 2
    assert seconds(run) > 0
    events = (run.path / "events.jsonl").stat().st_mtime_ns
    same = task.train("again", task.untrained, 2)
    assert same.path == run.path
    assert (run.path / "events.jsonl").stat().st_mtime_ns == events
    untouched = task.train("none", run.model(0), 0)
    assert len(untouched.of("round")) == 0
    assert measures.accuracy(untouched) == measures.accuracy(run)


def test_pooled_persons_stay_whole() -> None:
    identity = np.random.default_rng(1).integers(0, 300, size=1000)
    owner = pooled(identity, 40)
    people = pd.DataFrame({"person": identity, "owner": owner})
    assert len(people.drop_duplicates()) == people["person"].nunique()
    assert people["owner"].nunique() == 40
    sizes = people["owner"].value_counts()
    assert sizes.min() >= 15
    assert sizes.max() <= 35


# ---------------------------------------------------------------------- measures and results


def test_larger_needs_two_standard_errors() -> None:
    assert measures.standard_error(50, 10_000) == pytest.approx(0.5)
    assert measures.larger(52, 50, 10_000) is True
    assert measures.larger(np.float64(52), np.float64(50), 10_000) is True
    assert measures.larger(50, 52, 10_000) is False
    assert measures.larger(51, 50, 10_000) is None
    assert measures.larger(float("nan"), 50, 10_000) is None


def test_a_replay_prunes_what_it_is_told_to() -> None:
    model = convnet(num_classes=8, width=0.25)
    netadapt = NetAdapt(step=0.05, decay=0.93, budget=0.25, iterations=3, conv_multiple=1)
    wanted = [["features.3"], ["nothing", "features.6"], ["features.3"]]
    table = measures.replay(model, (3, 32, 32), netadapt, wanted)
    assert table["block"].tolist() == ["", "features.3", "features.6", "features.3"]
    assert table["macs"].is_monotonic_decreasing
    left = table["macs"] / table["macs"].iloc[0]
    assert left.iloc[1] <= 0.95


def test_a_row_gives_mean_spread_and_difference(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = Reproduction("x", "laptop")
    result.row("three seeds", [1.0, 2.0, 3.0], 1.5, "s")
    result.row("one missing", float("nan"), 1.5, "s")
    result.claim("yes", True, "a")
    result.claim("perhaps", None, "b")
    rows = json.loads(result.write().read_text())["rows"]
    assert (rows[0]["reproduced"], rows[0]["difference"], rows[0]["spread"]) == (2, 0.5, 1)
    assert rows[0]["seeds"] == 3
    assert (rows[1]["reproduced"], rows[1]["difference"], rows[1]["seeds"]) == (None, None, 0)
    assert result.sentence() == "Agrees: yes (a).\nCan't be told from these runs: perhaps (b)."


def test_a_table_is_made_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = []

    def make() -> pd.DataFrame:
        made.append(1)
        return pd.DataFrame({"value": [1.5, float("nan")], "name": ["a", ""]})

    for _ in range(2):
        result = Reproduction("x", "smoke")
        table = result.kept("numbers", {"seed": 1}, make)
        assert table["name"].tolist() == ["a", ""]
        assert np.isnan(table["value"].iloc[1])
        assert len(result.as_dict()["runs"]) == 1
    assert len(made) == 1
    Reproduction("x", "smoke").kept("numbers", {"seed": 2}, make)
    assert len(made) == 2


def test_published_numbers_name_their_source() -> None:
    for paper in ("nafnas", "decnas"):
        numbers = published(paper)
        tables = [table for name, table in numbers.items() if name != "paper"]
        assert all(table["source"] for table in tables)
    assert len(published("nafnas")["accuracy"]["rows"]) == 8
    with pytest.raises(ValueError, match="must be nafnas or decnas"):
        published("imagenet")


# ---------------------------------------------------------------------- what is kept


def test_kept_results_are_whole_and_say_what_they_were_made_with() -> None:
    kept = runner.kept_results()
    assert set(kept) <= set(runner.entries())
    for name, result in kept.items():
        assert result.keys() == RESULT
        assert result["name"] == name
        assert result["profile"] in {"laptop", "paper"}
        assert result["machine"]["packages"]["torch"]
        for row in result["rows"]:
            assert row.keys() == ROW
            assert set(row["runs"]) <= result["runs"].keys()
        assert "/" not in json.dumps([list(result["runs"]), result["machine"]["platform"]])


def test_make_reproduces_everything_at_smoke() -> None:
    make = shutil.which("make")
    assert make is not None
    told = subprocess.run(
        [make, "-n", "-o", ".venv/.installed", "reproduce"],
        cwd=PAPER.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "-m workbench reproduce all --profile smoke" in told.stdout
