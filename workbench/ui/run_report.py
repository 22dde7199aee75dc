"""A run as one HTML file: figures, tables, settings, versions and seeds, readable offline.

The file carries plotly.js and all data; it loads nothing and can be printed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.io
from jinja2 import Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from workbench.ui import grouping_plots, run_plots
from workbench.ui.panel_run import sentence

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.search.run import Run

_FAILURES = 100
"""So many rows of failures are shown one by one; all are counted."""


def write_run_report(run: Run, path: str | Path) -> Path:
    """Write a run as one HTML file that needs no network.

    Parameters
    ----------
    run
        The run; it need not be finished.
    path
        The file to write; it appears whole or not at all.

    Returns
    -------
    Where the report is.

    Raises
    ------
    ValueError
        If the run has no result yet.
    """
    if run.frontier().empty:
        raise ValueError(f"run {run.path} has no result yet: its first iteration has not ended")
    target = Path(path)
    drawn, tabled = figures(run), tables(run)
    page = Environment(autoescape=True).from_string(_TEMPLATE)
    html = page.render(
        title=run.path.name,
        headline=headline(run),
        sections=[
            {
                "title": title,
                "text": text,
                "figures": [_figure_html(drawn[name]) for name in shown if name in drawn],
                "tables": [
                    (name, _table_html(tabled[name])) for name in listed if not tabled[name].empty
                ],
            }
            for title, text, shown, listed in _SECTIONS
        ],
        changes=[sentence(event) for event in run.of("change", "link")],
        started=run.manifest.get("started", ""),
        plotlyjs=Markup(get_plotlyjs()),  # noqa: S704  # plotly's own file
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    partial.write_text(html, encoding="utf-8")
    return partial.replace(target)


def headline(run: Run) -> str:
    """Say in one sentence what the run found."""
    table = run.frontier()
    first, last = table.iloc[0], table.iloc[-1]
    return (
        f"{run.iterations} iteration{'' if run.iterations == 1 else 's'}"
        f"{'' if run.finished else ' so far'}: MACs "
        f"{last['macs'] / first['macs'] - 1:+.1%}, size "
        f"{last['size_bytes'] / first['size_bytes'] - 1:+.1%}, accuracy "
        f"{first['accuracy']:.3f} → {last['accuracy']:.3f}, in "
        f"{table['duration_s'].sum() / 60:.1f} minutes on the network."
    )


def figures(run: Run) -> dict[str, go.Figure]:
    """Return the figures of a run by name, those for which it has something to show."""
    shown = {}
    if len(run.frontier()):
        shown["frontier"] = run_plots.frontier(run)
        if run.iterations:
            shown["candidates"] = run_plots.candidates(run, run.iterations)
    if len(run.rounds()):
        shown["rounds"] = run_plots.round_durations(run)
        shown["traffic"] = run_plots.traffic(run)
    grouped = sorted({event["iteration"] for event in run.of("group")})
    if grouped:
        ends = dict.fromkeys((grouped[0], grouped[-1]))
        shown["groups"] = grouping_plots.groups({f"iteration {n}": run.grouping(n) for n in ends})
        shown["labels"] = grouping_plots.label_distribution(run.grouping(grouped[-1]))
    return shown


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """Return the tables of a run by name."""
    failures = run.failures()
    if not failures.empty:
        failures = failures.assign(client=[run.fleet.names[row] for row in failures["client"]])
    grouped = sorted({event["iteration"] for event in run.of("group")})
    groups = [run.grouping(n).table().assign(iteration=n) for n in grouped]
    rounds = run.rounds()
    summary = (
        rounds.groupby("iteration", as_index=False).agg(
            rounds=("round", "count"),
            mean_s=("duration_s", "mean"),
            longest_s=("duration_s", "max"),
            replies=("replies", "sum"),
        )
        if len(rounds)
        else rounds
    )
    counted = (
        failures.groupby(["status", "reason"], as_index=False).size().rename(columns={"size": "n"})
        if not failures.empty
        else failures
    )
    costs = run.client_costs().rename_axis("cost").reset_index(name="value")
    return {
        "iterations": run.frontier(),
        "candidates": run.candidates(),
        "rounds": summary,
        "costs": costs,
        "groups": pd.concat(groups, ignore_index=True) if groups else pd.DataFrame(),
        "failures": counted,
        "failures one by one": failures.head(_FAILURES),
        "settings": _flat(run.config),
        "versions": _flat(run.manifest),
    }


def _flat(data: object, place: str = "") -> pd.DataFrame:
    """Return nested settings as a table of names and values."""

    def walk(value: object, name: str) -> list[tuple[str, str]]:
        if isinstance(value, dict):
            return [
                pair
                for key, entry in value.items()
                for pair in walk(entry, f"{name}.{key}" if name else str(key))
            ]
        return [(name, value if isinstance(value, str) else json.dumps(value))]

    return pd.DataFrame(walk(data, place), columns=["name", "value"])


def _figure_html(figure: go.Figure) -> Markup:
    text = plotly.io.to_html(
        figure,
        config={"responsive": True, "displaylogo": False},
        include_plotlyjs=False,
        full_html=False,
    )
    return Markup(text)  # noqa: S704  # plotly escapes its data


def _table_html(table: pd.DataFrame) -> Markup:
    def number(value: Any) -> str:  # noqa: ANN401  # whatever a cell holds
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"

    text = table.to_html(index=False, border=0, float_format=number, na_rep="–")
    return Markup(text)  # noqa: S704  # pandas escapes the cells


_SECTIONS: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "What was found",
        (
            "Left: each point is the network after an iteration; left is cheaper, up is better. "
            "Right: what is left of the initial network."
        ),
        ("frontier",),
        ("iterations",),
    ),
    (
        "Candidates",
        (
            "In each iteration every block that can be pruned gave one candidate; the figure shows "
            "those of the last iteration. The one with the least accuracy lost per saving was kept."
        ),
        ("candidates",),
        ("candidates",),
    ),
    (
        "Rounds and traffic",
        "A round lasts as long as its slowest client takes to receive, train and send back.",
        ("rounds", "traffic"),
        ("rounds", "costs"),
    ),
    (
        "Groups",
        (
            "How many clients of each tier each group had, in the first and last iteration, and "
            "which classes the last groups had too much or too little of."
        ),
        ("groups", "labels"),
        ("groups",),
    ),
    (
        "Late, failed, away",
        "Replies that did not count, by reason.",
        (),
        ("failures", "failures one by one"),
    ),
    ("Settings and seeds", "Everything that decides what is found.", (), ("settings",)),
    ("Versions and machine", "What the run was made with.", (), ("versions",)),
)

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Run {{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1080px;
  margin: 0 auto; padding: 16px 20px 60px; }
h1 { margin-bottom: 0; } h2 { margin: 36px 0 4px; border-bottom: 1px solid #ccc; }
h3 { font-size: 14px; margin: 14px 0 4px; } .quiet { color: #595959; }
.scroll { max-height: 420px; overflow: auto; border: 1px solid #ddd; width: fit-content;
  max-width: 100%; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 2px 10px; text-align: right; vertical-align: top; overflow-wrap: anywhere; }
th { white-space: nowrap; } thead th { position: sticky; top: 0; background: #f2f2f2; }
tbody tr:nth-child(even) { background: #fafafa; }
.pairs td { text-align: left; }
figure { margin: 8px 0; }
@media print {
  body { max-width: none; padding: 0; font-size: 11px; }
  .scroll { max-height: none; overflow: visible; border: none; }
  thead th { position: static; } thead { display: table-header-group; }
  table { font-size: 9px; } figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .modebar { display: none; }
}
</style>
<script>window.PlotlyConfig = {MathJaxConfig: 'local'};</script>
<script>{{ plotlyjs }}</script>
</head><body>
<h1>Run {{ title }}</h1>
<p class="quiet">begun {{ started }}</p>
<p><strong>{{ headline }}</strong></p>
{%- for section in sections %}
{%- if section.figures or section.tables %}
<section><h2>{{ section.title }}</h2>
<p>{{ section.text }}</p>
{%- for figure in section.figures %}<figure>{{ figure }}</figure>{% endfor %}
{%- for name, table in section.tables %}
{%- set pairs = name in ("settings", "versions") %}
{%- if name != section.title | lower and not pairs %}<h3>{{ name | capitalize }}</h3>{% endif %}
<div class="scroll{{ ' pairs' if pairs }}" tabindex="0">{{ table }}</div>
{%- endfor %}</section>
{%- endif %}
{%- endfor %}
{%- if changes %}
<section><h2>Changed while it ran</h2><ul>
{%- for change in changes %}<li>{{ change }}</li>{% endfor %}</ul></section>
{%- endif %}
<script>
const plots = () => document.querySelectorAll('.js-plotly-plot');
// Paper is narrower than the window: figures are drawn anew for it.
window.addEventListener('beforeprint', () =>
  plots().forEach(plot => Plotly.relayout(plot, {width: 690})));
window.addEventListener('afterprint', () =>
  plots().forEach(plot => Plotly.relayout(plot, {width: null, autosize: true})));
</script>
</body></html>
"""
