"""Asks a model questions of two turns each; a judge rates every answer: what is left of its general ability.

    ability.py --output FIGURES.json --model DIR [--tuned DIR] --judge BASE_URL --judge-model NAME

Owns: the conversations and the figures: mean ratings of all answers, of each turn and of each category. Does
not own: answering (plural serve), the judge's question (data/text/judges/ability.json), the user's questions
(ability-questions.jsonl). The order is that of questions; answers depend on the seed alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plural_text.__main__ import STOPPED, take_stops
from plural_text.common.asking import AnswerCache, ask_all
from plural_text.common.endpoint import DEFAULT_KEY_VARIABLE, Endpoint
from plural_text.common.errors import CommandError
from plural_text.common.json_lines import read_objects
from plural_text.common.places import FILES
from plural_text.common.progress import Progress
from plural_text.metrics.judge import parse_rating, read_template
from plural_text.sweep.files import write_whole

QUESTIONS = Path(__file__).resolve().parent / "ability-questions.jsonl"
TEMPLATE = FILES / "judges" / "ability.json"


@dataclass(frozen=True)
class Turn:
    category: str
    place: int  # from 1
    context: str  # what was said before, and the question
    answer: str


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tuned", type=Path, help="an adapter of the model, or the model itself")
    parser.add_argument("--questions", type=Path, default=QUESTIONS)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--judge-model", required=True)
    parser.add_argument("--key-variable", default=DEFAULT_KEY_VARIABLE)
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args(words)
    take_stops()  # the server goes, too
    try:
        with served(options) as address:
            turns = converse(address, options)
        write_whole(options.output, json.dumps(rated(turns, options), indent=1) + "\n")
    except CommandError as error:
        print(f"plural: error: {error} [exit {error.exit_code}]", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return STOPPED
    return 0


@contextmanager
def served(options: argparse.Namespace) -> Iterator[str]:
    """The address of the model's own endpoint. Errors: CommandError with the server's line."""
    command = [sys.executable, "-P", "-m", "plural_text", "serve", "--model", options.model, "--port", "0"]
    command += ["--template", "chat", "--name", "model", "--quiet"]
    if options.tuned and (options.tuned / "adapter_config.json").exists():
        command += ["--adapter", str(options.tuned)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if " at http" not in line:
                error = CommandError(f"plural serve does not serve {options.model}; its own line says why")
                error.exit_code = server.wait() or CommandError.exit_code
                raise error
            yield line.partition(" at ")[2].partition(",")[0]
        finally:
            server.terminate()


def converse(address: str, options: argparse.Namespace) -> list[Turn]:
    """Errors: EndpointFailed."""
    endpoint = Endpoint(address, "model")
    asked = [fields for _, fields in read_objects(options.questions)]
    turns = []
    with Progress("asking", len(asked), "questions", sys.stderr) as progress:
        for done, question in enumerate(asked, 1):
            said: list[dict] = []
            for place, text in enumerate(question["turns"], 1):
                said.append({"role": "user", "content": text})
                answer = endpoint.ask(
                    said, question["temperature"], options.max_new_tokens, seed=options.seed
                )
                turns.append(Turn(question["category"], place, _spoken(said), answer))
                said.append({"role": "assistant", "content": answer})
            progress.update(done, done)
    return turns


def rated(turns: list[Turn], options: argparse.Namespace) -> dict:
    """Errors: EndpointFailed."""
    template = read_template(TEMPLATE)
    judge = Endpoint(options.judge, options.judge_model, key_variable=options.key_variable)
    with AnswerCache(options.output.with_name(f"{options.output.name}.judge.jsonl")) as cache:
        answers = ask_all([template.question(turn.context, turn.answer) for turn in turns], judge, cache)
    ratings = [(turn, parse_rating(answer, template.label)) for turn, answer in zip(turns, answers)]
    known = [(turn, rating) for turn, rating in ratings if rating is not None]
    places = sorted({turn.place for turn in turns})
    return {
        "rating_mean": _mean([rating for _, rating in known]),
        "abstentions": len(ratings) - len(known),
        "turn": {str(at): _mean([rating for turn, rating in known if turn.place == at]) for at in places},
        "category": {
            name: _mean([rating for turn, rating in known if turn.category == name])
            for name in dict.fromkeys(turn.category for turn in turns)
        },
    }


def _spoken(said: list[dict]) -> str:
    names = {"user": "User", "assistant": "Assistant"}
    return "\n\n".join(f"{names[one['role']]}: {one['content']}" for one in said)


def _mean(ratings: list[int]) -> float | None:
    return statistics.fmean(ratings) if ratings else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
