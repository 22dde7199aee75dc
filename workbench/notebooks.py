"""Run a notebook without a browser: checked parameters, a progress bar, and a report to read.

papermill executes the notebook; this module adds what it leaves out: a parameter that the
notebook does not have, or a value of another type, is refused before any work starts.

What a notebook declares for this runner:

- one code cell tagged ``parameters`` that assigns scalars (string, number, True, False, None) and
  nothing else: the names, defaults and types that may be given from outside;
- cells tagged ``summary``: their text is what the command line prints when the run is over;
- cells tagged ``answer-key``, in lessons: they hold the answers, run like all others, and are
  folded away in JupyterLab (``metadata.jupyter.source_hidden``); `hand_out` writes a copy without
  them;
- optionally ``metadata.workbench.smoke``, a JSON object of parameters with which the notebook
  runs in seconds. The tests use it.
"""

from __future__ import annotations

import ast
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from workbench.notebook_engine import ENGINE_NAME
from workbench.ui.report import write_report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nbformat import NotebookNode

ANSWER_KEY = "answer-key"
Scalar = str | int | float | bool | None


class NotebookFailedError(RuntimeError):
    """A cell raised; the message names it, and where the part that was executed is kept."""


@dataclass(frozen=True)
class NotebookResult:
    """What `run_notebook` left behind.

    Attributes
    ----------
    notebook
        The executed notebook.
    report
        The same as one HTML file that needs no network.
    summary
        The text of the cells tagged ``summary``.
    duration_s
        Wall time of the execution in seconds.
    """

    notebook: Path
    report: Path
    summary: str
    duration_s: float


def run_notebook(
    path: str | Path,
    *,
    parameters: Mapping[str, Scalar] | None = None,
    reports: str | Path = "reports",
    working_folder: str | Path | None = None,
    progress: bool = True,
) -> NotebookResult:
    """Execute a notebook and write it, with its outputs and as an HTML report, to a folder.

    Parameters
    ----------
    path
        The notebook. It is never changed.
    parameters
        Values for names of its ``parameters`` cell.
    reports
        Folder for the two results, which take the notebook's name.
    working_folder
        Where the notebook runs; by default its own folder, as in JupyterLab.
    progress
        Whether a progress bar is shown on standard error.

    Raises
    ------
    FileNotFoundError
        There is no such notebook.
    ValueError
        A parameter is unknown or of the wrong type, or the results would overwrite the notebook.
    NotebookFailedError
        A cell raised. Notebook and report up to that cell are written all the same.
    """
    source = Path(path).resolve()
    folder = Path(reports).resolve()
    executed = folder / source.name
    report = folder / f"{source.stem}.html"
    if executed == source:
        raise ValueError(f"reports is {folder}, where the notebook itself is; name another folder")
    accepted = check_parameters(read_notebook(source), parameters or {})
    folder.mkdir(parents=True, exist_ok=True)
    run_in = Path(working_folder).resolve() if working_folder else source.parent
    run_in.mkdir(parents=True, exist_ok=True)

    started = time.perf_counter()
    failure: PapermillExecutionError | None = None
    try:
        papermill.execute_notebook(
            source,
            executed,
            parameters=accepted,
            engine_name=ENGINE_NAME,
            kernel_name="python3",
            language="python",
            cwd=run_in,
            progress_bar={"desc": source.stem, "leave": True} if progress else False,
        )
    except PapermillExecutionError as error:
        failure = error
    finally:
        # Also when the run was interrupted: what was done so far is worth reading.
        if executed.is_file():
            write_report(nbformat.read(executed, as_version=4), report)
    if failure is not None:
        raise NotebookFailedError(
            f"{source.name}: cell [{failure.exec_count}] raised {failure.ename}: "
            f"{failure.evalue}; what was done is in {report}"
        ) from failure
    return NotebookResult(
        notebook=executed,
        report=report,
        summary=summary_text(nbformat.read(executed, as_version=4)),
        duration_s=time.perf_counter() - started,
    )


def hand_out(path: str | Path, target: str | Path) -> Path:
    """Write a copy of a lesson without its answer keys, for a class.

    Raises
    ------
    FileNotFoundError
        There is no such notebook.
    ValueError
        It has no answer keys, or the copy would overwrite it.
    """
    source, copy = Path(path).resolve(), Path(target).resolve()
    notebook = read_notebook(source)
    kept = [cell for cell in notebook.cells if not _has_tag(cell, ANSWER_KEY)]
    if len(kept) == len(notebook.cells):
        raise ValueError(f"{path} has no cell tagged {ANSWER_KEY}")
    if copy == source:
        raise ValueError(f"target is {target}, the lesson itself; name another file")
    notebook.cells = kept
    nbformat.write(notebook, copy)
    return copy


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook; FileNotFoundError or ValueError when it is none."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no notebook {path}")
    try:
        notebook: NotebookNode = nbformat.read(path, as_version=4)
    except nbformat.reader.NotJSONError as error:
        raise ValueError(f"{path} is not a notebook: {error}") from error
    return notebook


def default_parameters(notebook: NotebookNode) -> dict[str, Scalar]:
    """Return names and defaults of the cell tagged ``parameters``; empty when there is none.

    Raises
    ------
    ValueError
        There are two such cells, or one holds anything but scalar assignments.
    """
    cells = [cell for cell in notebook.cells if _has_tag(cell, "parameters")]
    if not cells:
        return {}
    if len(cells) > 1:
        raise ValueError(f"{len(cells)} cells are tagged parameters, but one is allowed")
    try:
        return dict(_assignments(cells[0].source))
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            "the cell tagged parameters may only assign strings, numbers, True, False or None: "
            f"{error}"
        ) from error


def check_parameters(notebook: NotebookNode, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return ``given`` with the types of the notebook's defaults; ValueError where it can't be.

    A whole number is accepted where the default is a float, and anything where it is None.
    """
    defaults = default_parameters(notebook)
    return {name: _checked(name, value, defaults) for name, value in given.items()}


def parse_parameters(notebook: NotebookNode, texts: Mapping[str, str]) -> dict[str, Scalar]:
    """Return parameters that came as text, read by the type of each default.

    Raises
    ------
    ValueError
        A name is unknown, or its text is no value of the default's type.
    """
    defaults = default_parameters(notebook)
    values: dict[str, Scalar] = {}
    for name, text in texts.items():
        value: Scalar = text
        if not isinstance(defaults.get(name), str):
            try:
                value = ast.literal_eval(text.title() if text in {"true", "false"} else text)
            except (SyntaxError, ValueError):
                value = text
        values[name] = _checked(name, value, defaults)
    return values


def smoke_parameters(notebook: NotebookNode) -> dict[str, Scalar]:
    """Return ``metadata.workbench.smoke``, checked like parameters given from outside."""
    return check_parameters(notebook, notebook.metadata.get("workbench", {}).get("smoke", {}))


def summary_text(notebook: NotebookNode) -> str:
    """Return the text outputs of the cells tagged ``summary``, in their order."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type != "code" or not _has_tag(cell, "summary"):
            continue
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stdout":
                texts.append(output.text)
            elif output.output_type in {"display_data", "execute_result"}:
                texts.append(output.data.get("text/plain", ""))
    return "\n".join(text.rstrip("\n") for text in texts if text.strip())


def faults(folder: str | Path) -> list[str]:
    """Say what keeps the notebooks under ``folder`` from being committed, one line a fault.

    Outputs and execution counts belong to a run, not to the source; the parameters cell and the
    smoke parameters have to be such that the runner accepts them.
    """
    found = []
    for path in notebook_paths(folder):
        try:
            notebook = read_notebook(path)
            nbformat.validate(notebook)
            smoke_parameters(notebook)
        except (ValueError, nbformat.ValidationError) as error:
            found.append(f"{path}: {error}")
            continue
        if "widgets" in notebook.metadata:
            found.append(f"{path}: holds the state of widgets; clear its outputs")
        found += [
            f"{path}: cell {number} has outputs or an execution count; clear its outputs"
            for number, cell in enumerate(notebook.cells, start=1)
            if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None)
        ]
        found += [
            f"{path}: cell {number} is an answer key, but is not folded away; set source_hidden"
            for number, cell in enumerate(notebook.cells, start=1)
            if _has_tag(cell, ANSWER_KEY)
            and not cell.metadata.get("jupyter", {}).get("source_hidden", False)
        ]
    return found


def notebook_paths(folder: str | Path) -> list[Path]:
    """Return the notebooks under ``folder``, sorted, without checkpoints and what runs left."""
    root = Path(folder)
    return [
        path
        for path in sorted(root.rglob("*.ipynb"))
        if not {".ipynb_checkpoints", "runs"} & set(path.relative_to(root).parts)
    ]


def _has_tag(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def _assignments(source: str) -> Iterator[tuple[str, Scalar]]:
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as expression):
                pass
            case _:
                raise ValueError(f"line {statement.lineno} is {ast.unparse(statement)!r}")
        value = ast.literal_eval(expression)
        if not isinstance(value, str | int | float | bool | None):
            raise ValueError(f"{name} is {ast.unparse(expression)}")  # noqa: TRY004 - not a type
        yield name, value


def _checked(name: str, value: Scalar, defaults: Mapping[str, Scalar]) -> Scalar:
    if name not in defaults:
        allowed = ", ".join(f"{key}={default!r}" for key, default in defaults.items())
        raise ValueError(
            f"there is no parameter {name}; "
            + (f"the notebook has {allowed}" if allowed else "the notebook has none")
        )
    default = defaults[name]
    if default is None or type(value) is type(default):
        return value
    if isinstance(default, float) and type(value) is int:
        return float(value)
    raise ValueError(
        f"parameter {name} is {value!r}, but must be of type {type(default).__name__}, "
        f"such as {default!r}"
    )
