"""Figures of distributions: targets beside answers, entropies of prompts, answers of latents.

Owns: counting. Does not own: reading answers, targets and figures. Thread rule: free of state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from plural_text.common.json_lines import finite
from plural_text.metrics.coverage import answer_key
from plural_text.report.answers import AnswersFile
from plural_text.report.figure import SYMBOLS, Figure, axes, colour

OTHER = "(no target)"
# Of one page: prompts with a figure of their own, and bars of one figure.
MAX_PROMPTS = 12
MAX_TARGETS = 40
_TICK_CHARACTERS = 24


def target_figures(answers: Sequence[AnswersFile], sets: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    """For each prompt with targets, the first MAX_PROMPTS: p* beside the share of each target among the
    answers, with counts."""
    counts: dict[str, dict[str, Counter]] = {}
    for file in answers:
        for prompt in file.prompts:
            if prompt.id in sets and prompt.responses:
                keys = (answer_key(response.text) for response in prompt.responses)
                own = counts.setdefault(prompt.id, {}).setdefault(file.label, Counter())
                own.update(key if key in sets[prompt.id] else OTHER for key in keys)
    prompts = list(counts)[:MAX_PROMPTS]
    left_out = len(counts) - len(prompts)
    note = f"The first {MAX_PROMPTS} of {len(counts):,} prompts with targets are shown." if left_out else ""
    labels = [file.label for file in answers]
    return [
        _targets(place, prompt, sets[prompt], counts[prompt], labels, note)
        for place, prompt in enumerate(prompts, 1)
    ]


def _targets(
    place: int,
    prompt: str,
    shares: Mapping[str, float],
    counts: Mapping[str, Counter],
    labels: Sequence[str],
    note: str,
) -> Figure:
    targets = sorted(shares, key=lambda key: -shares[key])
    bars = targets[:MAX_TARGETS]
    if len(targets) > MAX_TARGETS:
        note = f"The {MAX_TARGETS} likeliest of {len(targets):,} targets are shown. {note}".strip()
    bars.append(OTHER)
    places = list(range(len(bars)))
    traces = [
        {
            "type": "bar",
            "name": "target distribution p*",
            "x": places,
            "y": [shares.get(key, 0.0) for key in bars],
            "customdata": bars,
            "meta": {"columns": {"answer": bars}},
            "marker": {"color": "#999999"},
            "hovertemplate": "%{customdata}: %{y}",
        }
    ]
    for number, label in enumerate(labels):
        if label in counts:
            own = [counts[label][key] for key in bars]
            total = sum(counts[label].values())
            traces.append(
                {
                    "type": "bar",
                    "name": f"{label} ({total:,} answers)",
                    "x": places,
                    "y": [count / total for count in own],
                    "text": [f"{count:,}" for count in own],
                    "customdata": [[key, count] for key, count in zip(bars, own)],
                    "meta": {"columns": {"answer": bars, "answers": own}},
                    "textposition": "outside",
                    "cliponaxis": False,
                    "marker": {"color": colour(number)},
                    "hovertemplate": "%{customdata[0]}: %{y}, %{customdata[1]} answers",
                }
            )
    layout = axes("answer", "share of the answers", barmode="group", showlegend=True)
    ticks = [key if len(key) <= _TICK_CHARACTERS else key[: _TICK_CHARACTERS - 1] + "…" for key in bars]
    layout["xaxis"].update(tickmode="array", tickangle=-40, tickvals=places, ticktext=ticks)
    return Figure(f"targets-{place}", "targets", f"Targets of {prompt}", traces, layout, note)


def entropy_figure(prompts: Mapping[str, Sequence[Mapping]]) -> list[Figure]:
    """`prompts`: label -> evaluate's figures of each prompt. The entropy on the targets beside that of the
    target distribution; [] without both."""
    traces, highest = [], 0.0
    for place, (label, own) in enumerate(prompts.items()):
        points = [
            (x, y, str(fields["id"]))
            for fields in own
            if (x := finite(fields.get("target_entropy_nats"))) is not None
            and (y := finite(fields.get("entropy_nats"))) is not None
        ]
        if points:
            highest = max(highest, *(max(x, y) for x, y, _ in points))
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": label,
                    "x": [x for x, _, _ in points],
                    "y": [y for _, y, _ in points],
                    "customdata": [name for _, _, name in points],
                    "meta": {"columns": {"prompt": [name for _, _, name in points]}},
                    "marker": {"color": colour(place), "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 8},
                    "hovertemplate": "%{customdata}: %{x}, %{y}",
                }
            )
    if not traces:
        return []
    equal = {
        "type": "scatter",
        "mode": "lines",
        "name": "equal",
        "x": [0, highest],
        "y": [0, highest],
        "line": {"color": "#888888", "dash": "dash", "width": 1},
        "hoverinfo": "skip",
    }
    layout = axes(
        "entropy of the targets (nats)", "entropy of the model on the targets (nats)", showlegend=True
    )
    return [
        Figure(
            "target-entropy", "targets", "Entropy of each prompt, target and model", [equal, *traces], layout
        )
    ]


def latent_figure(answers: Sequence[AnswersFile]) -> list[Figure]:
    """Responses and different texts of each latent; [] where no answer was asked with a latent."""
    traces = []
    for place, file in enumerate(answers):
        texts: dict[int, list[str]] = {}
        for prompt in file.prompts:
            for response in prompt.responses:
                if response.latent:
                    texts.setdefault(response.latent, []).append(response.text)
        if texts:
            latents = sorted(texts)
            traces.append(
                {
                    "type": "bar",
                    "name": file.label,
                    "x": latents,
                    "y": [len(set(texts[latent])) for latent in latents],
                    "customdata": [len(texts[latent]) for latent in latents],
                    "meta": {"columns": {"answers": [len(texts[latent]) for latent in latents]}},
                    "text": [f"of {len(texts[latent]):,}" for latent in latents],
                    "textposition": "outside",
                    "cliponaxis": False,
                    "marker": {"color": colour(place)},
                    "hovertemplate": "latent %{x}: %{y} different of %{customdata}",
                }
            )
    if not traces:
        return []
    layout = axes("latent", "different texts", barmode="group", showlegend=len(traces) > 1)
    layout["xaxis"]["type"] = "category"
    note = "Above each bar: how many answers were asked with the latent."
    return [Figure("latent-answers", "latents", "Different texts of each latent", traces, layout, note)]
