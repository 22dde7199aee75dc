"""Notebooks run headless, take checked parameters only, and leave a report that works offline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from workbench import notebooks
from workbench.notebook_engine import bar_position

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
PARAMETERS = """\
rounds = 8  # a comment
name: str = "digits"
rate = 0.5
verbose = False
limit = None
shift = -1
"""


def tagged(source: str, tag: str) -> NotebookNode:
    return new_code_cell(source, metadata={"tags": [tag]})


def small_notebook(*cells: NotebookNode) -> NotebookNode:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=list(cells), metadata={"kernelspec": kernel})


def written(notebook: NotebookNode, folder: Path, name: str = "small.ipynb") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def with_parameters() -> NotebookNode:
    return small_notebook(tagged(PARAMETERS, "parameters"), new_code_cell("print(rounds)"))


def test_defaults_are_read_without_running_anything(with_parameters: NotebookNode) -> None:
    assert notebooks.default_parameters(with_parameters) == {
        "rounds": 8,
        "name": "digits",
        "rate": 0.5,
        "verbose": False,
        "limit": None,
        "shift": -1,
    }
    assert notebooks.default_parameters(small_notebook()) == {}


@pytest.mark.parametrize(
    "source",
    ["a = open('x')", "a = [1]", "a, b = 1, 2", "import os", "%time 3", "a = b = 1", "a: int"],
)
def test_a_parameters_cell_holds_scalars_only(source: str) -> None:
    with pytest.raises(ValueError, match="tagged parameters may only assign"):
        notebooks.default_parameters(small_notebook(tagged(source, "parameters")))


def test_two_parameters_cells_are_refused() -> None:
    twice = small_notebook(tagged("a = 1", "parameters"), tagged("b = 1", "parameters"))
    with pytest.raises(ValueError, match="2 cells are tagged parameters"):
        notebooks.default_parameters(twice)


def test_an_unknown_parameter_is_refused_with_the_known_ones(
    with_parameters: NotebookNode, tmp_path: Path
) -> None:
    path = written(with_parameters, tmp_path)
    with pytest.raises(ValueError, match=r"no parameter round; .*rounds=8, name='digits'"):
        notebooks.run_notebook(path, parameters={"round": 3}, reports=tmp_path / "reports")
    assert not (tmp_path / "reports").exists(), "refused before any work"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 1.5),
        ("rounds", "3"),
        ("rounds", True),
        ("name", 3),
        ("verbose", 1),
        ("rate", "x"),
    ],
)
def test_a_value_of_another_type_is_refused(
    with_parameters: NotebookNode, name: str, value: notebooks.Scalar
) -> None:
    with pytest.raises(ValueError, match=f"parameter {name} is {value!r}, but must be of type"):
        notebooks.check_parameters(with_parameters, {name: value})


def test_a_whole_number_does_for_a_float_and_anything_for_none(
    with_parameters: NotebookNode,
) -> None:
    given_values = {"rate": 2, "limit": "any"}
    checked = notebooks.check_parameters(with_parameters, given_values)
    assert checked == {"rate": 2.0, "limit": "any"}
    assert type(checked["rate"]) is float


def test_text_is_read_by_the_type_of_the_default(with_parameters: NotebookNode) -> None:
    texts = {"rounds": "3", "name": "7", "rate": "1e-3", "verbose": "true", "limit": "12"}
    expected = {"rounds": 3, "name": "7", "rate": 1e-3, "verbose": True, "limit": 12}
    assert notebooks.parse_parameters(with_parameters, texts) == expected
    assert notebooks.parse_parameters(with_parameters, {"limit": "plain"}) == {"limit": "plain"}
    with pytest.raises(ValueError, match="rounds is 'many', but must be of type int"):
        notebooks.parse_parameters(with_parameters, {"rounds": "many"})


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers() | st.text() | st.booleans()))
def test_defaults_survive_being_written_as_source(values: dict[str, notebooks.Scalar]) -> None:
    source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook = small_notebook(tagged(source, "parameters"))
    assert notebooks.default_parameters(notebook) == values
    assert notebooks.check_parameters(notebook, values) == values


def test_a_run_leaves_notebook_report_and_summary(
    with_parameters: NotebookNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_parameters.cells += [
        tagged("print('the', name, rounds)", "summary"),
        new_code_cell("open('here', 'w').close()"),
        tagged("import sys; print('noise', file=sys.stderr); rate", "summary"),
    ]
    path = written(with_parameters, tmp_path / "source")
    before = path.read_bytes()
    result = notebooks.run_notebook(
        path,
        parameters={"rounds": 3, "rate": 1},
        reports=tmp_path / "reports",
        working_folder=tmp_path / "work",
    )
    assert result.summary == "the digits 3\n1.0"
    assert result.notebook == tmp_path / "reports" / "small.ipynb"
    assert result.report == tmp_path / "reports" / "small.html"
    assert "the digits 3" in result.report.read_text()
    assert (tmp_path / "work" / "here").exists()
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in result.report.parent.iterdir()) == [
        "small.html",
        "small.ipynb",
    ]
    errors = capsys.readouterr().err
    assert "small: 100%" in errors, "a progress bar"
    assert "WARNING" not in errors


def test_a_cell_that_raises_is_named_and_what_was_done_is_kept(tmp_path: Path) -> None:
    cells = [new_code_cell("print('first')"), new_code_cell("1 / 0"), new_code_cell("print('no')")]
    path = written(small_notebook(*cells), tmp_path)
    with pytest.raises(notebooks.NotebookFailedError, match=r"cell \[2\] raised ZeroDivisionError"):
        notebooks.run_notebook(path, reports=tmp_path / "reports", progress=False)
    report = (tmp_path / "reports" / "small.html").read_text()
    assert "first" in report
    assert "ZeroDivisionError" in report


def test_the_notebook_is_never_overwritten(tmp_path: Path) -> None:
    path = written(small_notebook(), tmp_path)
    with pytest.raises(ValueError, match="name another folder"):
        notebooks.run_notebook(path, reports=tmp_path)


def test_what_is_no_notebook_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no notebook"):
        notebooks.run_notebook(tmp_path / "none.ipynb")
    (tmp_path / "text.ipynb").write_text("hello")
    with pytest.raises(ValueError, match="is not a notebook"):
        notebooks.run_notebook(tmp_path / "text.ipynb")


def test_the_bar_shows_the_outermost_progress_that_runs() -> None:
    def progress(value: float, maximum: float) -> dict[str, object]:
        return {"_model_name": "FloatProgressModel", "value": value, "max": maximum}

    assert bar_position([{"_model_name": "HTMLModel"}, progress(3, 7), progress(1, 2)]) == "3/7"
    assert bar_position([progress(7, 7), progress(1, 2)]) == "1/2"
    assert bar_position([progress(2, 2)]) == ""


FIGURES = """\
import plotly.graph_objects as go
figure = go.Figure(go.Scatter(y=[1, 3, 2]))
figure.update_layout(title="One figure")
figure
"""
CONTROLS = """\
import ipywidgets
from tqdm.auto import tqdm
for _ in tqdm(range(3)):
    pass
ipywidgets.IntSlider(description="COEFF")
"""


@pytest.mark.browser
def test_a_report_draws_its_figures_without_a_network(chromium: Browser, tmp_path: Path) -> None:
    notebook = small_notebook(
        new_markdown_cell("# A title\n\nSome **text**."),
        new_code_cell(FIGURES),
        new_code_cell("figure.show()"),
        new_code_cell(CONTROLS),
    )
    path = written(notebook, tmp_path)
    result = notebooks.run_notebook(path, reports=tmp_path / "reports", progress=False)

    context = chromium.new_context(offline=True)
    page = context.new_page()
    trouble: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(result.report.as_uri())
    page.wait_for_function("document.querySelectorAll('.scatterlayer .point').length === 6")
    assert page.title() == "A title"
    assert page.locator(".gtitle", has_text="One figure").count() == 2
    assert page.get_by_text("A control stands here").count() == 1, "the slider, not the bar"
    assert page.locator("details.code[open]").count() == 0, "code is folded away"
    widths = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].map(e => e.offsetWidth)"
    )
    assert min(widths) > 900, "figures are as wide as the text"
    context.close()
    assert trouble == []
    remote = [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert remote == []


def test_a_report_without_figures_is_small(tmp_path: Path) -> None:
    path = written(small_notebook(new_markdown_cell("# Text")), tmp_path)
    result = notebooks.run_notebook(path, reports=tmp_path / "reports", progress=False)
    text = result.report.read_text()
    assert len(text) < 1_000_000
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=", text)


def test_faults_are_found(tmp_path: Path) -> None:
    fit = small_notebook(tagged("a = 1", "parameters"))
    fit.metadata["workbench"] = {"smoke": {"a": 2}}
    written(fit, tmp_path, "fit.ipynb")
    written(fit, tmp_path, ".ipynb_checkpoints/copy.ipynb")
    assert notebooks.faults(tmp_path) == []

    ran = small_notebook(new_code_cell("1", execution_count=1))
    written(ran, tmp_path, "paper/ran.ipynb")
    unknown = small_notebook(tagged("a = 1", "parameters"))
    unknown.metadata["workbench"] = {"smoke": {"b": 2}}
    written(unknown, tmp_path, "unknown.ipynb")
    (tmp_path / "broken.ipynb").write_text("{")
    shown = small_notebook(new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="1")]))
    shown.metadata["widgets"] = {}
    written(shown, tmp_path, "shown.ipynb")
    found = [line.removeprefix(f"{tmp_path}/") for line in notebooks.faults(tmp_path)]
    assert len(found) == 5
    assert found[0].startswith("broken.ipynb: ")
    assert (
        found[1] == "paper/ran.ipynb: cell 1 has outputs or an execution count; clear its outputs"
    )
    assert found[2] == "shown.ipynb: holds the state of widgets; clear its outputs"
    assert found[3].startswith("shown.ipynb: cell 1 has outputs")
    assert found[4].startswith("unknown.ipynb: there is no parameter b")


def test_the_projects_notebooks_are_fit_to_be_committed() -> None:
    assert notebooks.faults(FOLDER) == []


MEASURES = "12_network"
"""The notebook that measures links: it is run with the live tests."""


def projects_notebooks() -> list[object]:
    """Return the project's notebooks as parameters of a test."""
    return [
        pytest.param(
            path,
            id=path.relative_to(FOLDER).with_suffix("").as_posix(),
            marks=[pytest.mark.namespaces] if path.stem == MEASURES else [],
        )
        for path in notebooks.notebook_paths(FOLDER)
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", projects_notebooks())
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    result = notebooks.run_notebook(
        path,
        parameters=notebooks.smoke_parameters(notebooks.read_notebook(path)),
        reports=tmp_path / "reports",
        working_folder=tmp_path / "work",
        progress=False,
    )
    outputs = [
        output
        for cell in json.loads(result.notebook.read_text())["cells"]
        for output in cell.get("outputs", [])
    ]
    assert outputs
    warned = [o for o in outputs if o["output_type"] == "stream" and o["name"] == "stderr"]
    assert warned == [], "a notebook that warns teaches to ignore warnings"
