"""Asks a model and prints its answers, each behind its possibility number.

  plural ask --model models/mistral-7b-instruct-v0.2 --adapter runs/mine/adapter "Any plans for tonight?"
  plural ask --model DIR --adapter DIR --chat

The prompt is the one that the model or adapter was trained with, which its folder says (plural.json); a
model that does not say it gets its chat template, or plain text.
"""

# Owns: the command line, what is printed. Does not own: prompts (prompts.py), the dialogue (chat.py), the
# model's process.

from __future__ import annotations

import argparse
import hashlib
import json
import sys

from plural_text.ask.chat import converse
from plural_text.ask.choices import Choice
from plural_text.ask.model_options import (
    add_model_options,
    add_sampling_options,
    command_of,
    description,
    open_prompts,
    sampling_of,
    warn,
)
from plural_text.ask.prompts import Ask, Prompts
from plural_text.ask.showing import json_line, print_cut, show_prompts, shown
from plural_text.ask.waiting import wait_for
from plural_text.common.errors import UsageError
from plural_text.common.model_process import ModelProcess
from plural_text.common.options import whole_number

_DEFAULT_ANSWERS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("question", nargs="?", metavar="QUESTION", help="in quotation marks; a dialogue: one turn per line")
    add(
        "-n",
        type=whole_number(1, 100_000),
        metavar="N",
        help="answers (default: 5, or one for each number that --possibilities names)",
    )
    add("--chat", action="store_true", help="a dialogue in the terminal; /help tells its commands")
    add("--system", metavar="TEXT", help="system message, where the chat template has a place for it")
    add("--show-prompt", action="store_true", help="show what the model reads, too")
    add("--json", action="store_true", help="one JSON object, in the form of `plural generate`'s lines")
    add("--quiet", action="store_true", help="no notes; warnings stay")
    add_model_options(parser)
    add_sampling_options(parser)


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    prompts, choice = open_prompts(arguments)
    if arguments.chat:
        prompts.turns("question", arguments.system)  # whether --system has a place
        if prompts.template.format not in ("chat", "dialogue"):
            raise UsageError(
                f"--chat: template '{prompts.template.name}' has no conversations; ask without --chat, or "
                "name another --template"
            )
    ask = None if arguments.chat else _ask_of(arguments, prompts, choice)
    if not arguments.quiet:
        print(f"plural: asks with {description(prompts, choice)}", file=sys.stderr)
    with ModelProcess(command_of(arguments)) as model:
        if ask is None:
            return converse(model, prompts, choice, arguments)
        waited = wait_for(
            model.send(ask.request), "loading the model and answering", sys.stderr, quiet=arguments.quiet
        )
    _print(prompts, ask, waited, arguments)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.chat:
        for option, given in (
            ("a question", arguments.question),
            ("-n", arguments.n),
            ("--json", arguments.json),
        ):
            if given:
                raise UsageError(
                    "--chat reads questions one by one and gives an answer each (/again gives another); "
                    f"leave out {option}"
                )
    elif arguments.question is None:
        raise UsageError("give a question in quotation marks, or --chat for a dialogue")


def _ask_of(arguments: argparse.Namespace, prompts: Prompts, choice: Choice) -> Ask:
    turns = prompts.turns(arguments.question, arguments.system)
    count = arguments.n or len(choice.given) or _DEFAULT_ANSWERS
    # Draws are keyed by the question, as those of a corpus are by its ids.
    key = f"ask:{hashlib.sha256(arguments.question.encode('utf-8', 'replace')).hexdigest()[:16]}"
    ask = prompts.ask(key, turns, count, choice, sampling_of(arguments, prompts))
    if ask.dropped_turns:
        warn(f"the oldest {ask.dropped_turns:,} turns of the question have no room and are left out")
    return ask


def _print(prompts: Prompts, ask: Ask, fields: dict, arguments: argparse.Namespace) -> None:
    answers = prompts.answers(ask, fields)
    if arguments.show_prompt:
        show_prompts(answers)
    if arguments.json:
        print(json.dumps(json_line(ask.request["id"], answers, ask.prompts), ensure_ascii=False))
        return
    for answer in answers:
        print(shown(answer, len(answers)))
    if not arguments.quiet:
        print_cut(answers, ask.request["max_new_tokens"])
