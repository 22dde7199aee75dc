"""An executed notebook as one HTML file that needs no network.

nbconvert's page loads MathJax, require.js and mermaid from the web, and knows nothing of
plotly's data. This one carries plotly.js once, draws each figure from its data, folds the code
away, and leaves out controls that need a running kernel.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING

import plotly.io
from jinja2 import DictLoader
from nbconvert import HTMLExporter
from plotly.offline import get_plotlyjs

if TYPE_CHECKING:
    from nbformat import NotebookNode

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
CONTROL_NOTE = "<em>A control stands here when the notebook is opened in JupyterLab.</em>"

TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}
{%- if resources.plotlyjs -%}
<script>window.PlotlyConfig = {MathJaxConfig: 'local'};</script>
<script>{{ resources.plotlyjs }}</script>
{%- endif -%}
{%- endblock html_head_js -%}
{%- block jupyter_widgets -%}{%- endblock jupyter_widgets -%}
{%- block html_head_js_mathjax -%}{%- endblock html_head_js_mathjax -%}
{%- block html_head_js_mermaidjs -%}{%- endblock html_head_js_mermaidjs -%}
{%- block html_head_css -%}
<style>
main { max-width: 1080px; margin: 0 auto; padding: 0 16px 48px; }
details.code > summary { cursor: pointer; color: #595959; font: 12px sans-serif; padding: 4px 8px; }
.jp-OutputArea-output { overflow-x: auto; }
</style>
{%- endblock html_head_css -%}
{%- block input_group -%}
<details class="code"><summary>Code</summary>{{ super() }}</details>
{%- endblock input_group -%}
"""


def write_report(notebook: NotebookNode, path: str | Path) -> Path:
    """Write ``notebook`` with its outputs as one HTML file.

    Formulas stay as they are typed, since MathJax would come from the network.

    Parameters
    ----------
    notebook
        An executed notebook; not changed.
    path
        The file to write. It appears whole or not at all.
    """
    target = Path(path)
    page = copy.deepcopy(notebook)
    figures = _prepare(page)
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"report.html.j2": TEMPLATE})],
        template_file="report.html.j2",
        embed_images=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    resources = {
        "metadata": {"name": _title(page) or target.stem, "path": ""},
        "plotlyjs": get_plotlyjs() if figures else "",
    }
    html, _ = exporter.from_notebook_node(page, resources=resources)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    partial.write_text(html, encoding="utf-8")
    return partial.replace(target)


def _prepare(page: NotebookNode) -> int:
    """Turn figures into HTML and take out what needs a kernel; return the number of figures."""
    figures = 0
    page.metadata.pop("widgets", None)
    for cell in page.cells:
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            data = output.get("data", {})
            if PLOTLY in data:
                figures += 1
                output.data = {"text/html": _figure_html(data[PLOTLY])}
            elif WIDGET in data:
                if _is_progress_bar(data.get("text/plain", "")):
                    continue
                output.data = {"text/html": CONTROL_NOTE}
            kept.append(output)
        cell.outputs = kept
    return figures


def _figure_html(figure: dict[str, object]) -> str:
    drawing = {key: value for key, value in figure.items() if key != "config"}
    return str(
        plotly.io.to_html(
            drawing,
            config={"responsive": True, "displaylogo": False},
            include_plotlyjs=False,
            full_html=False,
            validate=False,
        )
    )


def _is_progress_bar(text: str) -> bool:
    """Whether a widget's plain text is that of a tqdm bar: elapsed time in brackets."""
    return re.search(r"\[\d\d:\d\d", text) is not None


def _title(page: NotebookNode) -> str:
    for cell in page.cells:
        heading = re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and heading:
            return heading[1].strip()
    return ""
