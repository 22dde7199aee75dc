"""The command line: what it prints, and that a wrong value is one line and not a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from workbench.__main__ import main
from workbench.testbed.cleanup import new_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    cells = [
        new_code_cell("rounds = 2", metadata={"tags": ["parameters"]}),
        new_code_cell("print('rounds:', rounds)", metadata={"tags": ["summary"]}),
    ]
    made = new_notebook(cells=cells, metadata={"workbench": {"smoke": {"rounds": 1}}})
    path = tmp_path / "notebooks" / "small.ipynb"
    path.parent.mkdir()
    nbformat.write(made, path)
    return path


def test_run_notebook_prints_summary_report_and_the_way_on(
    notebook: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run-notebook", str(notebook), "-p", "rounds=5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rounds: 5"
    assert lines[2].startswith("Report:      reports/small.html")
    assert lines[-1] == "Interactive: make lab"
    assert (tmp_path / "reports" / "small.html").is_file()


def test_smoke_parameters_are_taken_and_given_ones_go_first(
    notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run-notebook", str(notebook), "--smoke", "--reports", str(tmp_path / "out")]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("rounds: 1\n")
    assert main([*command, "-p", "rounds=7"]) == 0
    assert capsys.readouterr().out.startswith("rounds: 7\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "rounds"], "--parameter is 'rounds', but must be NAME=VALUE"),
        (["-p", "round=1"], "there is no parameter round; the notebook has rounds=2"),
        (["-p", "rounds=x"], "parameter rounds is 'x', but must be of type int, such as 2"),
    ],
)
def test_wrong_values_are_one_line(
    notebook: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run-notebook", str(notebook), *arguments]) == 1
    assert capsys.readouterr().err == f"workbench: {message}\n"


def test_check_notebooks(
    notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-notebooks", str(notebook.parent)]) == 0
    nbformat.write(new_notebook(cells=[new_code_cell("1", execution_count=1)]), notebook)
    assert main(["check-notebooks", str(notebook.parent)]) == 1
    assert "small.ipynb: cell 1 has outputs" in capsys.readouterr().out
    assert main(["check-notebooks", str(tmp_path / "none")]) == 1


def test_cleanup_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Somebody else's testbeds, which may be up, would be named as such.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert main(["cleanup"]) == 0
    assert capsys.readouterr().out == "Nothing was left behind.\n"
    folder = new_folder("1")
    os.utime(folder, (0, 0))
    assert main(["cleanup"]) == 0
    assert capsys.readouterr().out == f"{folder}: removed, 0 processes killed\n"
    assert not folder.exists()


def test_help_and_unknown_commands_run_as_a_module() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "workbench", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    shown = run("--help")
    assert shown.returncode == 0
    assert "run-notebook" in shown.stdout
    unknown = run("fly")
    assert unknown.returncode == 2
    assert "Traceback" not in unknown.stderr


def test_benchmarks_are_collected_and_checked() -> None:
    from tests.benchmarks.rows import check_row, table

    row = {"name": "n", "median": 1.5, "unit": "s", "peer": "p", "ratio": 2, "goal": ">= 1x"}
    assert list(check_row(dict(reversed(row.items())))) == list(row)
    assert table([row]).splitlines()[2].split() == ["n", "1.5", "s", "p", "2", ">=", "1x"]
    for column, value in [("median", float("nan")), ("ratio", None), ("goal", ""), ("ratio", True)]:
        with pytest.raises(ValueError, match=column):
            check_row(row | {column: value})
    with pytest.raises(ValueError, match="must have"):
        check_row({"name": "n"})
    json.dumps(check_row(row))
