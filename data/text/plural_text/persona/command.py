"""Holds conversations with a model and measures the personas that it takes on: the persona study.

A seeker (a script of questions, or a model behind an endpoint) talks with the model under test, which draws
its possibility number anew for every turn. From the finished conversations come the entropies of age, gender,
location, education and occupation in bits. An interrupted command continues when it is started again; with
all conversations in place it only measures.
"""

# Owns: the command line, the order of work. Does not own: turns, the model under test, values, figures.

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from pathlib import Path

from plural_text.common.asking import AnswerCache, ask_all
from plural_text.common.compute_options import add_compute_options
from plural_text.common.endpoint import DEFAULT_KEY_VARIABLE, Endpoint, EndpointLimits
from plural_text.common.errors import BadData, CommandError, UsageError
from plural_text.common.json_lines import kind
from plural_text.common.kept_lines import KeptLines
from plural_text.common.model_process import ModelProcess
from plural_text.common.options import number, whole_number
from plural_text.common.parallel import Parallel
from plural_text.common.progress import Progress
from plural_text.metrics.figure_report import check_output, report, table, write_report
from plural_text.persona import conversation as talk
from plural_text.persona import mapping
from plural_text.persona.conversation import Conversation, ScriptedSeeker, converse
from plural_text.persona.figures import (
    Persona,
    answered,
    figures,
    parse_extraction,
    persona_values,
    value_counts,
)
from plural_text.persona.revealer import RevealerPrompts, generate_command, reveal
from plural_text.persona.values import FOLDER, read_value_sets
from plural_text.prepare.formats import InputFiles
from plural_text.prepare.templates import DEFAULTS

_OPENING_TURNS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="TALKS.jsonl",
        help="the conversations, one line each as it is finished; what stands there is not repeated",
    )
    add("--figures", type=Path, metavar="FIGURES.json", help="all figures; written whole or not at all")
    add("--force", action="store_true", help="replace the file of --figures where it exists")
    add("--conversations", type=whole_number(1, 100_000), default=300, metavar="N", help="(default: 300)")
    add(
        "--values",
        type=Path,
        default=FOLDER,
        metavar="DIR",
        help="value sets, one file per attribute, such as gender.txt",
    )
    add(
        "--parallel",
        type=whole_number(1, 1024),
        default=16,
        metavar="N",
        help="conversations at a time (default: 16)",
    )
    add(
        "--seed",
        type=whole_number(0),
        default=42,
        metavar="N",
        help="of openings, numbers and draws (default: 42)",
    )
    add("--quiet", action="store_true", help="no table and no progress")

    model = parser.add_argument_group("the model under test").add_argument
    model("--model", required=True, type=Path, metavar="DIR")
    model("--adapter", type=Path, metavar="DIR")
    model("--tokenizer", type=Path, metavar="DIR_OR_FILE", help="(default: the model's folder)")
    model(
        "--template",
        default=DEFAULTS["dialogue"],
        metavar="NAME_OR_FILE",
        help="dialogue template (default: %(default)s)",
    )
    model(
        "--possibilities",
        type=whole_number(0, 1000),
        default=0,
        metavar="M",
        help="a number from 1 to M is drawn for every turn; 0: none (default; published: 9)",
    )
    model("--temperature", type=number(0, 100), default=1.0, metavar="T", help="(default: 1)")
    model(
        "--top-k",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="sample from the N likeliest tokens; 0: from all (default; published: 50)",
    )
    model(
        "--max-new-tokens",
        type=whole_number(1, 1 << 20),
        default=64,
        metavar="N",
        help="of a turn (default: 64)",
    )
    model(
        "--max-prompt-tokens",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="drop oldest turns until prompts fit; 0: no limit (default)",
    )
    add_compute_options(model)

    seeker = parser.add_argument_group("the seeker").add_argument
    seeker("--questions", type=Path, metavar="FILE.jsonl", help='a script: {"ask", "attribute"} per line')
    seeker("--seeker", metavar="BASE_URL", help="instead of a script, an OpenAI-compatible endpoint")
    seeker("--seeker-model", metavar="NAME")
    seeker(
        "--openings", type=Path, metavar="FILE", help="dialogues whose first four turns open a conversation"
    )
    seeker(
        "--protocol", type=Path, default=talk.PROTOCOL, metavar="FILE.json", help="the texts of the protocol"
    )

    reader = parser.add_argument_group("the reader of conversations").add_argument
    reader(
        "--extractor",
        metavar="BASE_URL",
        help="an endpoint that tells attributes from a conversation (default: the answers to a script)",
    )
    reader("--extractor-model", metavar="NAME")
    reader(
        "--mapper",
        metavar="BASE_URL",
        help="an endpoint that is asked for the value of a text in which the rules find none",
    )
    reader("--mapper-model", metavar="NAME")
    reader(
        "--key-variable",
        default=DEFAULT_KEY_VARIABLE,
        metavar="NAME",
        help="environment variable with the endpoints' key (default: %(default)s)",
    )
    reader(
        "--timeout-seconds",
        type=number(0.1, 3600),
        default=60.0,
        metavar="S",
        help="of a request (default: 60)",
    )
    reader(
        "--retries",
        type=whole_number(0, 100),
        default=5,
        metavar="N",
        help="after a failed request (default: 5)",
    )


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    protocol = talk.read_protocol(arguments.protocol)
    sets = read_value_sets(arguments.values)
    names = [f"persona-{n}" for n in range(1, arguments.conversations + 1)]
    with KeptLines(arguments.output, "id") as kept:
        talks = _read_talks(kept, _settings(arguments))
        if any(name not in talks for name in names):
            _talk([name for name in names if name not in talks], arguments, protocol, kept, talks)
    personas = _personas([talks[name] for name in names], arguments, protocol)
    mapped = _mapped(personas, sets, arguments, protocol) if arguments.mapper else {}
    values = persona_values(personas, sets, mapped)
    found = figures(values, len(names))
    if arguments.figures:
        head = {
            "conversations_file": str(arguments.output),
            "conversations": len(names),
            "values": value_counts(values),
        }
        write_report(arguments.figures, report(head, found))
    if not arguments.quiet:
        print("\n".join(table(found)))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.questions) == bool(arguments.seeker):
        raise UsageError("give --questions FILE, a script, or --seeker BASE_URL, an endpoint: one of the two")
    for word in ("seeker", "extractor", "mapper"):
        url, model = getattr(arguments, word), getattr(arguments, f"{word}_model")
        if bool(url) != bool(model):
            raise UsageError(f"--{word} and --{word}-model go together")
        if url and not url.startswith(("http://", "https://")):
            raise UsageError(f"--{word} '{url}': must be an http:// or https:// address")
    if arguments.seeker and not arguments.extractor:
        raise UsageError(
            "--seeker needs --extractor: only a script's questions say which attribute an answer is about"
        )
    check_output(arguments.figures, arguments.output, arguments.force)
    check_output(arguments.output, arguments.model, force=True)  # conversations go on where they are


# Conversations.


def _talk(names: list[str], arguments, protocol, kept: KeptLines, talks: dict[str, Conversation]) -> None:
    """Holds the conversations and keeps each when it is finished."""
    openings = _openings(arguments.openings)
    seeker = (
        ScriptedSeeker(talk.read_questions(arguments.questions))
        if arguments.questions
        else talk.EndpointSeeker(_endpoint(arguments, arguments.seeker, arguments.seeker_model), protocol)
    )
    prompts = RevealerPrompts(arguments)
    settings, before = _settings(arguments), len(talks)
    failure: CommandError | None = None
    with (
        ModelProcess(generate_command(arguments)) as revealer,
        Progress(
            "persona",
            arguments.conversations,
            "conversations",
            sys.stderr,
            quiet=arguments.quiet,
            done=before,
        ) as progress,
    ):

        def hold(name: str) -> Conversation:
            opening = opening_of(name, openings, arguments.seed)
            return converse(name, opening, seeker, lambda so_far: reveal(so_far, revealer, prompts))

        held = Parallel(hold, names, arguments.parallel)
        for name, found, error in held:
            if error:  # conversations under way are still kept
                failure = failure or error
                held.stop()
                continue
            talks[name] = found
            kept.append(found.json() | {"settings": settings})
            progress.update(len(talks), len(talks) - before)
    if failure:
        # Its own kind and code, with what the user needs to know besides.
        failure.args = (
            f"{failure}; {len(talks):,} conversations are kept in {kept.path}, the same command goes on "
            "from there",
        )
        raise failure


def opening_of(name: str, openings: list[list[str]], seed: int) -> list[str]:
    """The opening of a conversation persona-N. No two conversations share one until all have been used."""
    if not openings:
        return []
    order = list(range(len(openings)))
    random.Random(f"{seed}:openings").shuffle(order)
    return openings[order[(int(name.rpartition("-")[2]) - 1) % len(order)]]


def _openings(path: Path | None) -> list[list[str]]:
    """The first turns of dialogues, in pairs, so that the seeker is next; of equal ones the first."""
    if path is None:
        return []
    records = InputFiles([str(path)], "dialogue", lambda line: None, prompts_only=True)
    found = [record.turns[: min(_OPENING_TURNS, len(record.turns) // 2 * 2)] for record in records]
    found = [list(turns) for turns in dict.fromkeys(map(tuple, found)) if turns]
    if not found:
        raise BadData(f"{path}: no dialogue has two turns to open a conversation with")
    return found


# Kept conversations.


def _settings(arguments) -> str:
    """Tells conversations held with other settings apart."""
    own = {
        name: str(getattr(arguments, name))
        for name in (
            "model",
            "adapter",
            "template",
            "possibilities",
            "temperature",
            "top_k",
            "max_new_tokens",
            "max_prompt_tokens",
            "seed",
            "seeker",
            "seeker_model",
        )
    }
    for name in ("questions", "openings", "protocol"):
        path = getattr(arguments, name)
        own[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path and path.is_file() else ""
    if arguments.quantize != "none":  # conversations that were kept before there was the option stay known
        own["quantize"] = arguments.quantize
    return hashlib.sha256(json.dumps(own).encode()).hexdigest()[:16]


def _read_talks(kept: KeptLines, settings: str) -> dict[str, Conversation]:
    talks = {}
    for where, fields in kept.found():
        if fields.pop("settings", None) != settings:
            raise UsageError(
                f"{where}: held with other settings (model, template, numbers, seed, script, ...); name "
                "another output, or give the settings of that one"
            )
        try:
            found = Conversation(**fields)
            whole = (
                len(found.turns) == found.opening + 2 * len(found.asked)
                and len(found.possibilities) == len(found.asked)
                and all(isinstance(text, str) for text in [found.id, *found.turns, *found.asked])
            )
        except TypeError:
            whole = False
        if not whole:
            raise BadData(f"{where}: holds {kind(fields)} that is not a conversation; name another output")
        talks[found.id] = found
    return talks


# Personas.


def _personas(talks: list[Conversation], arguments, protocol) -> list[Persona]:
    """The personas of the conversations that reveal one; the other conversations are dropped."""
    if not arguments.extractor:
        return [answered(found) for found in talks]
    questions = [protocol.extract.replace("{conversation}", found.text()) for found in talks]
    endpoint = _endpoint(arguments, arguments.extractor, arguments.extractor_model)
    with AnswerCache(arguments.output.with_name(f"{arguments.output.name}.extracted.jsonl")) as cache:
        answers = ask_all(questions, endpoint, cache, arguments.parallel, arguments.quiet)
    personas = [persona for answer in answers if (persona := parse_extraction(answer))]
    if not personas:
        print(
            f"plural: warning: no answer of '{endpoint.model}' has the six labels that a persona needs",
            file=sys.stderr,
        )
    return personas


def _mapped(personas: list[Persona], sets, arguments, protocol) -> mapping.Mapped:
    """The values that a model gives the texts that the rules do not decide."""
    asked = mapping.unmapped(personas, sets)
    questions = [mapping.question(protocol.map, *each, sets) for each in asked]
    endpoint = _endpoint(arguments, arguments.mapper, arguments.mapper_model)
    with AnswerCache(arguments.output.with_name(f"{arguments.output.name}.mapped.jsonl")) as cache:
        answers = ask_all(questions, endpoint, cache, arguments.parallel, arguments.quiet)
    return {
        each: mapping.values_in(answer, each[0], sets) for each, answer in zip(asked, answers, strict=True)
    }


def _endpoint(arguments, url: str, model: str) -> Endpoint:
    return Endpoint(
        url, model, EndpointLimits(arguments.timeout_seconds, arguments.retries), arguments.key_variable
    )
