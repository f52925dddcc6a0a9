"""The page: one HTML file that holds all it needs and asks for nothing else.

Owns: the order of sections, what is embedded. Does not own: figures, tables, how they behave (page.css and
page.js in the folder report of the text side's files). Thread rule: free of state.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from plural_text.common.places import FILES
from plural_text.report import run_tables
from plural_text.report.figure import Figure
from plural_text.report.html_parts import embedded_json, paragraph
from plural_text.report.responses_table import columns, controls
from plural_text.report.sources import Sources
from plural_text.report.sweep_tables import sweep_section

SECTIONS = {
    "sweep": "Sweep",
    "runs": "Runs",
    "comparison": "Diversity against its cost",
    "training": "Training",
    "validation": "Validation",
    "epochs": "Epochs",
    "targets": "Target distributions",
    "latents": "Latents",
    "responses": "Responses",
    "tree": "Token trees",
    "time": "Time of a step",
    "faults": "Faults and restarts",
    "recipes": "Recipes",
}
# Nothing may be loaded, whatever a text in the data says.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page(title: str, sources: Sources, figures: Sequence[Figure], notes: Sequence[str]) -> str:
    """The whole file's text."""
    from plotly.offline import get_plotlyjs

    inside = {section: "" for section in SECTIONS}
    data: dict = {"figures": [], "responses": None}
    if sources.sweep is not None:
        inside["sweep"] += sweep_section(sources.sweep)
    if sources.runs:
        inside["runs"] = run_tables.summary(sources.runs)
        inside["faults"] = run_tables.faults(sources.runs)
        inside["recipes"] = run_tables.recipes(sources.runs)
    if sources.answers:
        data["responses"] = columns(sources.answers)
        inside["responses"] = controls(data["responses"])
    for place, figure in enumerate(figures):
        data["figures"].append({"name": figure.name, "data": figure.traces, "layout": figure.layout})
        inside[figure.section] += _figure(place, figure)
    inside["time"] += run_tables.slowest_ranks(sources.runs)
    if inside["time"] and not any(run.profiles for run in sources.runs):
        inside["time"] += paragraph("Runs made with profile=true also show which parts took the time.")
    shown = {section: content for section, content in inside.items() if content}
    links = "".join(f'<li><a href="#{section}">{SECTIONS[section]}</a></li>' for section in shown)
    body = "".join(
        f'<section id="{section}" aria-labelledby="{section}-title"><h2 id="{section}-title">'
        f"{SECTIONS[section]}</h2>\n{content}</section>\n"
        for section, content in shown.items()
    )
    left_out = "".join(f"<li>{html.escape(note)}</li>" for note in [*sources.notes, *notes])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{_file("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header><h1>{html.escape(title)}</h1>
<button type="button" id="theme" aria-pressed="false">Dark theme</button></header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main id="main">
{body}{f'<section id="notes"><h2>Not shown</h2><ul>{left_out}</ul></section>' if left_out else ""}
</main>
<script type="application/json" id="data">{embedded_json(data)}</script>
<script type="text/plain" id="library">{get_plotlyjs()}</script>
<script>
{_file("page.js")}</script>
</body>
</html>
"""


def _figure(place: int, figure: Figure) -> str:
    title = html.escape(figure.title)
    note = f'<p class="note">{html.escape(figure.note)}</p>' if figure.note else ""
    height = f' style="height: {figure.layout["height"]}px"' if "height" in figure.layout else ""
    return f"""<figure class="plot{" wide" * figure.wide}">
<figcaption><h3>{title}</h3>
<button type="button" class="values" data-figure="{place}" aria-label="Values of {title} as CSV">CSV</button>
</figcaption>
<div class="frame"{' tabindex="0" role="region" aria-label="' + title + '"' if figure.wide else ""}>
<div class="canvas" data-figure="{place}" role="img" aria-label="{title}"{height}></div></div>
{note}</figure>
"""


def _file(name: str) -> str:
    return (FILES / "report" / name).read_text(encoding="utf-8")
