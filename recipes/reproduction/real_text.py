"""The first paper's methods on real dialogues: what `launch/reproduce real-text DIALOGUES_DIR` runs.

A small model is trained from nothing, once, and tuned by each method for each seed; five replies are
generated to each of the test contexts. Distinct-n and semantic diversity (all-MiniLM-L6-v2) are of those
replies; perplexity is of the written first replies to the test contexts, exact. For numbers and latents
nothing says which one a written reply would have: perplexity is that of the even mixture over all numbers,
and is not given for latents. Owns: which runs and figures. Does not own: the material
(real_text_material.py).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from real_text_material import Material
from report import Figure, Row
from study import RECIPES, Seed, Study, run

TEMPLATE = RECIPES / "templates" / "real-text.json"
REPLIES, TOP_K, REPLY_TOKENS = 5, 50, 64
TEMPERATURES = (0.5, 0.75, 1.0)
NUMBERS, KINDS = 9, 6
PROMPT_TOKENS = 256  # of the longest prompt; older turns are dropped

DIVERSITY = Figure("semantic_diversity", "semantic diversity")
# The interval of one seed's replies, over prompts; between seeds the table has Student's.
LOW = Figure("semantic_diversity_low", "95 % from")
HIGH = Figure("semantic_diversity_high", "to")
DISTINCT_1 = Figure("distinct_1", "Distinct-1")
DISTINCT_2 = Figure("distinct_2", "Distinct-2")
TOKENS = Figure("tokens", "tokens per reply", "{:.1f}")
# H(mean_k q_k) - mean_k H(q_k) with q_k over the ten written replies, of at most ln 10 = 2.303; the first
# contexts suffice, every number has to read every reply.
INFORMATION = Figure("information_nats", "what a number decides, nats", "{:.4f}")
INFORMATION_PROMPTS = 50
PERPLEXITY = Figure("perplexity", "perplexity of written replies", "{:.1f}")


@dataclass(frozen=True)
class Method:
    key: str
    title: str
    corpus: str = ""  # corpora/<corpus>.h5 to tune on; "": the base model
    numbers: int = 0  # possibility numbers that it is asked with
    latents: bool = False
    published: tuple = ()  # (temperature, Distinct-1, Distinct-2, semantic diversity), ...


METHODS = (
    Method("base", "base"),
    Method("otoft", "OTOFT", "one-to-one", published=((1.0, 0.139, 0.595, 0.495),)),
    Method(
        "otmft", "OTMFT", "one-to-many", published=((0.75, 0.133, 0.529, 0.522), (1.0, 0.150, 0.604, 0.565))
    ),
    Method(
        "peft",
        "POEXFT, random numbers",
        "one-to-many",
        NUMBERS,
        published=((0.5, 0.130, 0.484, 0.530), (0.75, 0.149, 0.561, 0.585)),
    ),
    Method("peft-aligned", "POEXFT, aligned numbers", f"one-to-many-{KINDS}", KINDS),
    Method("cvf", "CVF", "one-to-one", latents=True),
)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dialogues",
        type=Path,
        metavar="DIALOGUES_DIR",
        help="folder with dialogues_one_to_one.jsonl, dialogues_one_to_many.jsonl and dialogues_test.jsonl",
    )


def _start(seed: Seed, dialogues: Path) -> Path:
    """Material, corpora and the model from nothing, in the first seed's folder; returns the model."""
    material = Material(dialogues)
    vocabulary, end = material.write(seed.path("text"))

    def prepare(text: str, corpus: str, *options):
        seed.prepare(
            f"text/{text}.jsonl",
            f"corpora/{corpus}.h5",
            format="dialogue",
            template=TEMPLATE,
            options=["--max-prompt-tokens", PROMPT_TOKENS, *options],
        )

    seed.prepare("text/base.jsonl", "corpora/base.h5", format="text", options=["--max-length", PROMPT_TOKENS])
    prepare("one-to-one", "one-to-one", "--possibilities", 0)
    prepare("one-to-many", "one-to-many", "--possibilities", NUMBERS)
    prepare("one-to-many", f"one-to-many-{KINDS}", "--align", KINDS)
    for numbers in (0, KINDS, NUMBERS):
        prepare("test", f"test-{numbers}", "--possibilities", numbers, "--prompts-only")
        prepare("test", f"replies-{numbers}", "--possibilities", numbers)
    # Written replies behind each number: a template whose only prompt is that of one number.
    for number in range(NUMBERS + 1):
        label = f"\nB {number}:" if number else "\nB:"
        material.write_template(seed.path(f"text/template-{number}.json"), TEMPLATE, label)
        seed.prepare(
            "text/written.jsonl",
            f"corpora/written-{number}.h5",
            format="dialogue",
            template=seed.path(f"text/template-{number}.json"),
            options=["--max-prompt-tokens", PROMPT_TOKENS, "--possibilities", 0],
        )
    return seed.train(
        "base",
        "real-text-base",
        {
            "data.train": "corpora/base.h5",
            "model.config.vocab_size": vocabulary,
            "model.config.eos_token_id": end,
        },
    )


def _ask(
    seed: Seed, first: Seed, method: Method, model: Path, adapter: Path | None, temperature: float
) -> dict:
    """Figures of the replies at one temperature."""
    name = f"{method.key}-{temperature}"
    asked = (
        ["--latents", "sample"]
        if method.latents
        else ["--possibilities", "sample" if method.numbers else "none"]
    )
    lines = seed.generate(
        f"replies/{name}.jsonl",
        model=model,
        adapter=adapter,
        corpus=first.path(f"corpora/test-{method.numbers}.h5"),
        options=[
            "--responses",
            REPLIES,
            "--temperature",
            temperature,
            "--top-k",
            TOP_K,
            "--max-new-tokens",
            REPLY_TOKENS,
            *asked,
        ],
    )
    (measured,) = seed.plural(
        f"metrics {name}",
        [
            "metrics",
            seed.path(f"replies/{name}.jsonl"),
            "--metrics",
            "distinct,semantic",
            "-o",
            seed.path(f"metrics/{name}.json"),
            "--force",
        ],
        [f"metrics/{name}.json"],
    )
    figures = json.loads(measured.read_text(encoding="utf-8"))["figures"]
    low, high = figures["semantic_diversity"]["interval_95"]
    tokens = [len(response["tokens"]) for line in lines for response in line["responses"]]
    return {key: figures[key]["value"] for key in ("distinct_1", "distinct_2", "semantic_diversity")} | {
        "semantic_diversity_low": low,
        "semantic_diversity_high": high,
        "tokens": sum(tokens) / len(tokens),
    }


def _perplexity(seed: Seed, first: Seed, method: Method, model: Path, adapter: Path | None) -> float | None:
    """exp of minus the mean log-probability a token; of numbers, of log (1/M) sum_k p(reply | number k)."""
    if method.latents:
        return None
    by_number = []
    for number in range(1, method.numbers + 1) if method.numbers else (0,):
        figures = seed.evaluate(
            f"exact/{method.key}-{number}.json",
            model=model,
            adapter=adapter,
            corpus=first.path(f"corpora/written-{number}.h5"),
        )
        by_number.append(figures["groups"])
    nats = tokens = 0.0
    for replies in zip(*by_number, strict=True):
        values = [reply["logprob_nats"] for reply in replies]
        top = max(values)
        nats -= top + math.log(math.fsum(math.exp(value - top) for value in values) / len(values))
        tokens += replies[0]["response_tokens"]
    return math.exp(nats / tokens)


def _information(seed: Seed, first: Seed, method: Method, model: Path, adapter: Path | None) -> float | None:
    if not method.numbers:
        return None
    figures = seed.evaluate(
        f"exact/{method.key}-numbers.json",
        model=model,
        adapter=adapter,
        corpus=first.path(f"corpora/replies-{method.numbers}.h5"),
        options=["--possibilities", "--limit", INFORMATION_PROMPTS],
    )
    return figures["summary"]["possibility_information_nats"]


def _work(study: Study) -> None:
    first = Seed(study, study.seeds[0])
    model = _start(first, study.options.dialogues.resolve())

    def one_seed(seed: Seed) -> None:
        for method in METHODS:
            adapter = None
            if method.corpus:
                adapter = seed.train(
                    method.key,
                    f"real-text-{method.key}",
                    {"model.path": model, "data.train": first.path(f"corpora/{method.corpus}.h5")},
                )
            exact = {
                "perplexity": _perplexity(seed, first, method, model, adapter),
                "information_nats": _information(seed, first, method, model, adapter),
            }
            for temperature in TEMPERATURES:
                figures = _ask(seed, first, method, model, adapter, temperature)
                study.report.add(f"{method.key} {temperature}", seed.number, figures | exact)

    study.each_seed(one_seed)
    _tables(study)


def _tables(study: Study) -> None:
    report = study.report
    for temperature in TEMPERATURES:
        rows = []
        for method in METHODS:
            paper = next(
                (
                    dict(zip(("distinct_1", "distinct_2", "semantic_diversity"), figures))
                    for at, *figures in method.published
                    if at == temperature
                ),
                {},
            )
            rows.append(Row(f"{method.key} {temperature}", method.title, paper))
        report.table(
            f"Five replies to each test context, temperature {temperature}, top-k {TOP_K}",
            rows,
            [DISTINCT_1, DISTINCT_2, DIVERSITY, LOW, HIGH, TOKENS, PERPLEXITY, INFORMATION],
        )
    for temperature in TEMPERATURES:
        order = [f"{key} {temperature}" for key in ("base", "otoft", "otmft", "peft")]
        for name, low, high in (
            ("OTOFT over base", 0, 1),
            ("OTMFT over OTOFT", 1, 2),
            ("POEXFT over OTMFT", 2, 3),
        ):
            report.check_increasing(
                f"temperature {temperature}: semantic diversity, {name}", DIVERSITY, [order[low], order[high]]
            )
        report.check_increasing(
            f"temperature {temperature}: semantic diversity, aligned over random numbers",
            DIVERSITY,
            [order[3], f"peft-aligned {temperature}"],
        )


if __name__ == "__main__":
    sys.exit(run("real-text", __doc__.splitlines()[0], _work, _add_options))
