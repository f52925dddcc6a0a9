"""The options that say which model answers and how, and the process that they start.

Owns: options that `ask` and `serve` share. Does not own: what they ask. Thread rule: main thread.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from plural_text.ask.choices import Choice, parse_choice
from plural_text.ask.prompts import Prompts, tokenizer_folder
from plural_text.ask.training import check_folders, read_training
from plural_text.common.compute_options import add_compute_options, compute_words
from plural_text.common.hub import hub_folder
from plural_text.common.options import number, whole_number
from plural_text.common.program import program

_NEW_TOKENS = 256


def add_model_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the model").add_argument
    add(
        "--model",
        required=True,
        type=Path,
        metavar="DIR",
        help="Hugging Face folder of the model, or its name on the Hub once it has been downloaded",
    )
    add("--adapter", type=Path, metavar="DIR", help="its adapter, such as runs/NAME/adapter")
    add(
        "--tokenizer",
        type=Path,
        metavar="DIR_OR_FILE",
        help="(default: the model's folder)",
    )
    add(
        "--template",
        metavar="NAME_OR_FILE",
        help="prompt template (default: what the model or adapter was trained with, else the model's chat "
        "template, else plain-dialogue)",
    )
    add(
        "--possibilities",
        metavar="CHOICE",
        help="none, first (1, 2, ...), sample (different ones), or numbers such as 1,4 (default: sample "
        "where the model was trained with numbers, else none)",
    )
    add_compute_options(add)


def add_sampling_options(parser: argparse.ArgumentParser, seed: bool = True) -> None:
    """seed: False where requests bring their own."""
    add = parser.add_argument_group("sampling").add_argument
    add("--temperature", type=number(0, 100), default=1.0, metavar="T", help="0: the likeliest (default: 1)")
    add("--top-p", type=number(1e-9, 1), default=1.0, metavar="P", help="(default: 1)")
    add("--top-k", type=whole_number(0), default=0, metavar="K", help="0: all tokens (default)")
    add(
        "--max-new-tokens",
        type=whole_number(1, 1 << 20),
        metavar="N",
        help=f"of an answer (default: {_NEW_TOKENS}, or half of what a smaller model has room for)",
    )
    if not seed:
        parser.set_defaults(seed=0)
        return
    add(
        "--seed",
        type=whole_number(0),
        default=42,
        metavar="N",
        help="the same seed gives the same answers to the same question (default: 42)",
    )


def new_tokens(prompts: Prompts) -> int:
    """Where nobody says how many."""
    half = prompts.context_tokens // 2
    return max(1, min(_NEW_TOKENS, half)) if half else _NEW_TOKENS


def sampling_of(arguments: argparse.Namespace, prompts: Prompts) -> dict:
    """Settings of a request."""
    return {
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "max_new_tokens": arguments.max_new_tokens or new_tokens(prompts),
        "seed": arguments.seed,
    }


def open_prompts(arguments: argparse.Namespace) -> tuple[Prompts, Choice]:
    """Names of the Hub become folders in `arguments`. Errors: MissingInput, BadData, UsageError."""
    resolve_names(arguments)
    check_folders(arguments.model, arguments.adapter)
    prompts = Prompts(
        arguments.model,
        read_training(arguments.model, arguments.adapter),
        arguments.template,
        tokenizer_folder(arguments.model, arguments.adapter, arguments.tokenizer),
        warn,
    )
    choice = prompts.default_choice()
    if arguments.possibilities:
        choice = parse_choice("--possibilities", arguments.possibilities)
    prompts.check_choice(choice)
    if arguments.adapter and prompts.training is None and not arguments.template:
        warn(
            f"{arguments.adapter} does not say which prompts it was trained with; {prompts.template.name} is "
            "used, name another with --template and its numbers with --possibilities"
        )
    return prompts, choice


def description(prompts: Prompts, choice: Choice) -> str:
    """One line: how questions are asked."""
    training, parts = prompts.training, [f"template {prompts.template.name}"]
    if training and training.latents:
        parts.append(f"one of {training.latents} latents an answer")
    elif choice.policy == "given":
        parts.append(f"possibility numbers {','.join(map(str, choice.given))}")
    elif choice.policy != "none":
        parts.append(f"possibility numbers 1 to {prompts.largest_number}")
    else:
        parts.append("no possibility numbers")
    if training:
        parts.append(f"method {training.method} by {training.where}")
    return ", ".join(parts)


def resolve_names(arguments: argparse.Namespace) -> None:
    for option in ("model", "adapter", "tokenizer"):
        given = getattr(arguments, option)
        if given is not None:
            setattr(arguments, option, hub_folder(given, f"--{option}", "folder"))


def command_of(arguments: argparse.Namespace) -> list[str]:
    command = [program(), "generate", "--stream", "--model", str(arguments.model)]
    command += ["--adapter", str(arguments.adapter)] if arguments.adapter else []
    return [*command, *compute_words(arguments)]


def warn(line: str) -> None:
    print(f"plural: warning: {line}", file=sys.stderr)
