"""Persona (table 4 of the first paper) on a toy grammar: what `launch/reproduce persona` runs.

300 conversations with a model: an opening, then five questions in turn, each answered by one sampled reply
that becomes part of the next prompt. Entropy in bits of what the replies reveal, slot by slot. A model tuned
with numbers gets a new one at every turn. Owns: rows, published figures, the conversation. Does not own: the
language (persona_grammar.py).
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from pathlib import Path

from persona_grammar import PersonaGrammar
from plural_text.metrics.entropy import entropy_bits
from reply_study import CANDIDATES, METHODS, TEMPLATES, TOP_K, Method, tune
from report import Figure, Row
from study import Seed, Study, run
from words import write_lines, write_tokenizer

CONVERSATIONS = 300
PROMPTS_TUNED_ON = 300
DOCUMENTS = 6000
TEMPERATURE = 1.0
ANSWER_TOKENS = 16
SLOTS = ("age", "gender", "location", "education", "occupation")
BITS = [Figure(f"{slot}_entropy_bits", slot, "{:.2f}") for slot in SLOTS]
AVERAGE = Figure("average_entropy_bits", "average, bits", "{:.2f}")
INVALID = Figure("invalid_percent", "no answer to the question, %", "{:.1f}")


def _published(*bits: float) -> dict[str, float]:
    return dict(zip([figure.key for figure in (*BITS, AVERAGE)], bits))


TABLE_4 = [
    Row("base", "base", _published(1.3, 1.0, 1.6, 0.9, 2.5, 1.5)),
    Row("otoft", "OTOFT", _published(1.2, 1.7, 2.1, 1.2, 3.0, 1.8)),
    Row("otmft", "OTMFT", _published(1.4, 1.7, 2.5, 1.6, 3.4, 2.1)),
    Row("peft", "POEXFT", _published(1.9, 1.9, 3.1, 1.9, 3.7, 2.5)),
]


def write_texts(seed: Seed, grammar: PersonaGrammar) -> int:
    """Tokenizer, documents, prompts to tune on; returns the size of the vocabulary."""
    draw = random.Random(seed.number)
    template = json.loads((TEMPLATES / "dialogue.json").read_text(encoding="utf-8"))
    documents = grammar.documents(DOCUMENTS, template, draw)
    write_lines(seed.path("text/base.jsonl"), ({"text": text} for text in documents))
    openings = draw.sample(grammar.openings(held_out=False), PROMPTS_TUNED_ON)
    tuned_on = []
    for place, opening in enumerate(openings):
        slots = draw.sample(grammar.slots, draw.randint(1, len(grammar.slots)))
        tuned_on.append(
            {
                "id": f"{place}",
                "context": "\n".join(grammar.history(slots, opening, draw)),
                "candidates": grammar.candidates(slots[-1], CANDIDATES, draw),
            }
        )
    write_lines(seed.path("text/train.jsonl"), tuned_on)
    return write_tokenizer(seed.path("text/tokenizer"), documents)


def converse(
    seed: Seed, grammar: PersonaGrammar, base: Path, adapter: Path | None, method: Method
) -> dict[str, list[str]]:
    """All conversations with one model, one turn after the other; answers by slot."""
    draw = random.Random(f"openings {seed.number}")  # the same ones for every method
    openings = grammar.openings(held_out=True)
    turns = [list(draw.choice(openings)) for _ in range(CONVERSATIONS)]
    answers = {}
    for place, slot in enumerate(grammar.slots):
        name = f"{method.key}-{place}-{slot}"
        for conversation in turns:
            conversation.append(grammar.question(slot))
        write_lines(
            seed.path(f"text/{name}.jsonl"),
            (
                {"id": f"{slot}/{i}", "context": "\n".join(conversation)}
                for i, conversation in enumerate(turns)
            ),
        )
        seed.prepare(
            f"text/{name}.jsonl",
            f"corpora/{name}.h5",
            format="dialogue",
            template=TEMPLATES / "dialogue.json",
            options=["--prompts-only"],
        )
        lines = seed.generate(
            f"replies/{name}.jsonl",
            model=base,
            adapter=adapter,
            corpus=f"corpora/{name}.h5",
            options=[
                "--responses",
                1,
                "--temperature",
                TEMPERATURE,
                "--top-k",
                TOP_K,
                "--max-new-tokens",
                ANSWER_TOKENS,
                *method.ask,
            ],
        )
        # A text of several lines would be read as further turns.
        answers[slot] = [" ".join(line["responses"][0]["text"].split()) or "..." for line in lines]
        for conversation, answer in zip(turns, answers[slot]):
            conversation.append(answer)
    return answers


def measure_seed(seed: Seed) -> dict[str, dict[str, float]]:
    grammar = PersonaGrammar()
    vocabulary = write_texts(seed, grammar)
    seed.prepare("text/base.jsonl", "corpora/base.h5", format="text")
    seed.prepare(
        "text/train.jsonl", "corpora/train.h5", format="dialogue", template=TEMPLATES / "dialogue.json"
    )
    base = seed.train(
        "base", "base", {"data.train": "corpora/base.h5", "model.config.vocab_size": vocabulary}
    )
    rows = {}
    for row in TABLE_4:
        method = METHODS[row.key]
        counts, invalid = grammar.measure(converse(seed, grammar, base, tune(seed, base, method), method))
        bits = {slot: entropy_bits(list(counts[slot].values())) for slot in SLOTS}
        rows[row.key] = {f"{slot}_entropy_bits": value for slot, value in bits.items()}
        rows[row.key] |= {"average_entropy_bits": statistics.fmean(bits.values()), "invalid_percent": invalid}
    return rows


def work(study: Study) -> None:
    report = study.report
    for seed, rows in study.each_seed(measure_seed).items():
        for row, figures in rows.items():
            report.add(row, seed, figures)
    report.table(
        f"Table 4, entropy in bits over {CONVERSATIONS} conversations, t = {TEMPERATURE}",
        TABLE_4,
        [*BITS, AVERAGE, INVALID],
    )
    report.check_increasing(
        "average entropy: base < OTOFT < OTMFT < POEXFT", AVERAGE, [row.key for row in TABLE_4]
    )
    for row in TABLE_4:
        report.check_bound(
            f"{row.title}: at most 2 % of the replies answer no question", INVALID, row.key, high=2.0
        )


if __name__ == "__main__":
    sys.exit(run("persona", "Persona: table 4 of the first paper, on a toy grammar.", work))
