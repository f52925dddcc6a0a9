"""Talks with a model of the persona toy, and measures who it says it is.

    python persona_figures.py --base MODEL --tokenizer DIR --seed N --conversations N RESULT RUN OUTPUT.json

A conversation is an opening, then five questions in turn, each answered by one sampled reply that becomes
part of the next prompt; the same openings for every model of a seed. A model tuned with numbers gets a new
one at every turn. OUTPUT: entropy in bits of what the replies reveal, slot by slot, and the share of those
that answer no question; beside it, in conversations/, what was said. Owns: the conversations. Does not own:
the language (persona_grammar.py), answers (plural generate).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from pathlib import Path

from commands import Commands, measuring, model_words, numbers_of
from persona_grammar import PersonaGrammar
from plural_text.metrics.entropy import entropy_bits
from words import read_lines, write_figures, write_lines

TEMPLATE = Path(__file__).resolve().parent / "templates" / "dialogue.json"
SAMPLING = ["--responses", "1", "--temperature", "1.0", "--top-k", "50", "--max-new-tokens", "16"]


def converse(grammar: PersonaGrammar, options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """All conversations, one turn after the other; answers by slot."""
    commands = Commands(folder)
    draw = random.Random(f"openings {options.seed}")
    openings = grammar.openings(held_out=True)
    turns = [list(draw.choice(openings)) for _ in range(options.conversations)]
    ask = [*model_words(options), "--seed", str(options.seed), "--threads", "1", *SAMPLING]
    ask += ["--possibilities", "sample" if numbers_of(options.run) else "none"]
    answers = {}
    for place, slot in enumerate(grammar.slots):
        text, corpus, said = (folder / f"{place}-{slot}{end}" for end in (".jsonl", ".h5", "-said.jsonl"))
        for conversation in turns:
            conversation.append(grammar.question(slot))
        write_lines(
            text,
            (
                {"id": f"{slot}/{i}", "context": "\n".join(conversation)}
                for i, conversation in enumerate(turns)
            ),
        )
        prepare = ["--format", "dialogue", "--template", str(TEMPLATE), "--prompts-only"]
        commands.plural("prepare", str(text), *prepare, "--tokenizer", str(options.tokenizer), output=corpus)
        commands.plural("generate", "--corpus", str(corpus), *ask, output=said)
        # A text of several lines would be read as further turns.
        answers[slot] = [" ".join(line["responses"][0]["text"].split()) or "..." for line in read_lines(said)]
        for conversation, answer in zip(turns, answers[slot]):
            conversation.append(answer)
    return answers


def main() -> None:
    parser = measuring(__doc__)
    add = parser.add_argument
    add("--tokenizer", type=Path, required=True)
    add("--seed", type=int, required=True)
    add("--conversations", type=int, default=300)
    options = parser.parse_args()
    grammar = PersonaGrammar()
    counts, invalid = grammar.measure(converse(grammar, options, options.output.parent / "conversations"))
    bits = {slot: entropy_bits(list(counts[slot].values())) for slot in grammar.slots}
    figures = {f"{slot}_entropy_bits": value for slot, value in bits.items()}
    figures |= {"average_entropy_bits": statistics.fmean(bits.values()), "invalid_percent": invalid}
    write_figures(options.output, figures)


if __name__ == "__main__":
    sys.exit(main())
