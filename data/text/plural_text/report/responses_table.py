"""Responses as compact columns, which the page's script shows a page at a time.

Owns: the form of the data, the controls. Does not own: filtering and paging (page.js), reading (answers.py).
Thread rule: free of state.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from plural_text.report.answers import AnswersFile


def columns(answers: Sequence[AnswersFile]) -> dict:
    """`labels`, `methods`, `prompts` ([id, text]) as lists without repetition; of each response its place in
    them under `source`, `method`, `prompt`, and its own fields. All columns have one length."""
    prompts: dict[tuple[str, str], int] = {}
    methods: dict[str, int] = {}
    found: dict[str, list] = {
        key: [] for key in "source prompt method possibility latent logprob_nats finished text".split()
    }
    for source, file in enumerate(answers):
        for prompt in file.prompts:
            place = prompts.setdefault((prompt.id, prompt.prompt), len(prompts))
            method = methods.setdefault(prompt.method, len(methods))
            for response in prompt.responses:
                found["source"].append(source)
                found["prompt"].append(place)
                found["method"].append(method)
                found["possibility"].append(response.possibility)
                found["latent"].append(response.latent)
                found["logprob_nats"].append(response.logprob_nats)
                found["finished"].append(int(response.finished))
                found["text"].append(response.text)
    return {
        "labels": [file.label for file in answers],
        "methods": list(methods),
        "prompts": [list(key) for key in prompts],
        **found,
    }


def controls(data: dict) -> str:
    numbers = [(str(number), str(number or "none")) for number in sorted(set(data["possibility"]))]
    labels = [(str(place), label) for place, label in enumerate(data["labels"])]
    methods = [(str(place), method or "unknown") for place, method in enumerate(data["methods"])]
    return f"""<form id="filters" class="controls">
<label>Text contains <input type="search" id="filter-text" autocomplete="off"></label>
{_select("filter-source", "Answers", labels)}
{_select("filter-method", "Method", methods)}
{_select("filter-possibility", "Possibility number", numbers)}
<fieldset><legend>View</legend>
<label><input type="radio" name="view" value="list" checked> list</label>
<label><input type="radio" name="view" value="beside"> side by side</label>
</fieldset>
</form>
<div class="pager"><button type="button" id="page-first">First</button>
<button type="button" id="page-previous">Previous</button>
<span id="page-where" role="status"></span>
<button type="button" id="page-next">Next</button>
<button type="button" id="page-last">Last</button></div>
<div class="scroll" tabindex="0" role="region" aria-label="Responses">
<table id="responses-table"></table></div>
"""


def _select(name: str, label: str, options: Sequence[tuple[str, str]]) -> str:
    inside = "".join(f'<option value="{value}">{html.escape(text)}</option>' for value, text in options)
    return f'<label>{label} <select id="{name}"><option value="">all</option>{inside}</select></label>'
