"""The command line of `plural prepare`: its options, and what they may not be together.

Does not own: the order of work (command.py), the options on replies (replies.py). Thread rule: free of state.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from plural_text.common.errors import UsageError
from plural_text.common.new_output import add_force
from plural_text.prepare.format_finding import named_format, parse_columns
from plural_text.prepare.groups import Limits
from plural_text.prepare.masks import ENGLISH, WORD_RULES
from plural_text.prepare.replies import add_arguments as add_reply_arguments
from plural_text.prepare.stories import CONTEXT_SENTENCES, SENTENCES
from plural_text.prepare.templates import DEFAULTS, template_names

_DEFAULT_POSSIBILITIES = {"dialogue": 9, "chat": 9, "targets": 0, "text": 0}
_DEFAULT_RESPONSE_WORDS = {"dialogue": 60}
_MAX_POSSIBILITIES = 1000
_MAX_LENGTH = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="files or folders")
    add(
        "--tokenizer",
        required=True,
        type=Path,
        metavar="DIR_OR_FILE",
        help="model folder, its name on the Hugging Face Hub once it has been downloaded, tokenizer.json, "
        "sentencepiece .model or tekken .json",
    )
    add(
        "--format",
        type=named_format,
        metavar="FORMAT",
        help="what the inputs hold, one of those above (default: found by the first record)",
    )
    add(
        "--columns",
        type=parse_columns,
        metavar="NAME=KEY,...",
        help="the inputs' own names of a format's keys, such as question=prompt,answer=completion",
    )
    add(
        "--story-sentences",
        type=int,
        choices=range(1, len(SENTENCES)),
        help=f"of --format story: how many sentences the prompt has (default: {CONTEXT_SENTENCES}); the "
        "others are the reply",
    )
    add(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="CORPUS.h5",
        help="written whole or not at all; a SHA-256 goes beside it",
    )
    add_force(add)
    add(
        "--template",
        metavar="NAME_OR_FILE",
        help=f"prompt template: {', '.join(template_names())}, or a .json file, or a .jinja chat template "
        f"(default: {', '.join(f'{v} for {k}' for k, v in DEFAULTS.items() if k != v)}, and the "
        "tokenizer's own for chat)",
    )
    add(
        "--possibilities",
        type=_count,
        metavar="M",
        help="largest possibility number, 0 for none (default: 9 for dialogue and chat where the template "
        "has a place for it, else 0)",
    )
    add(
        "--align",
        metavar="M|kinds|CORPUS.h5",
        help="give numbers a meaning that is the same for every prompt, for group.assignment aligned: M "
        'clusters of replies found by a sentence encoder, the records\' own "kinds", or what another '
        "corpus's numbers mean; sets --possibilities",
    )
    add("--align-seed", type=_count, metavar="SEED", help="for --align M (default: 0)")
    add(
        "--encoder",
        type=Path,
        metavar="DIR",
        help="sentence-transformers model for --align (default: all-MiniLM-L6-v2, which comes with plural)",
    )
    add(
        "--max-prompt-tokens",
        type=_count,
        default=0,
        metavar="N",
        help="drop whole oldest turns until prompts fit; 0: no limit (default)",
    )
    add(
        "--max-response-words",
        type=_count,
        metavar="N",
        help="cut longer responses, the end token stays; 0: no limit (default: 60 for dialogue, else 0)",
    )
    add(
        "--max-length",
        type=_count,
        default=1024,
        metavar="N",
        help="tokens of a piece of plain text, begin token included (default: 1024)",
    )
    add("--prompts-only", action="store_true", help="leave responses out: a corpus to generate for")
    add(
        "--strict-sharing",
        action="store_true",
        help="refuse a template whose possibility number stands before the content",
    )
    add(
        "--stopwords",
        type=Path,
        default=ENGLISH,
        metavar="FILE",
        help="words that content masks leave out, one per line (default: English)",
    )
    add(
        "--words",
        choices=WORD_RULES,
        default="spaces",
        help="what masks take for a word: what stands between spaces (default), or what Unicode's word "
        "boundaries enclose, for languages without spaces",
    )
    add_reply_arguments(add)
    add(
        "--bos",
        metavar="TOKEN",
        help="begin token (default: the tokenizer's; chat templates write their own)",
    )
    add(
        "--eos",
        metavar="TOKEN",
        help="the only end token (default: the one that the chat template writes, else the tokenizer's)",
    )
    add("--quiet", action="store_true", help="no progress and no summary; warnings stay")


def limits_of(arguments: argparse.Namespace) -> Limits:
    """Errors: UsageError."""
    source_format = arguments.format
    possibilities = arguments.possibilities
    if possibilities is None:
        possibilities = _DEFAULT_POSSIBILITIES[source_format]
    if possibilities > _MAX_POSSIBILITIES:
        raise UsageError(f"--possibilities {possibilities}: at most {_MAX_POSSIBILITIES}")
    words = arguments.max_response_words
    if words is None:
        words = _DEFAULT_RESPONSE_WORDS.get(source_format, 0)
    if words and source_format in ("targets", "text"):
        raise UsageError(f"--max-response-words cuts dialogue and chat responses only, not {source_format}")
    if not 2 <= arguments.max_length <= _MAX_LENGTH:
        raise UsageError(
            f"--max-length {arguments.max_length}: from 2 (the begin token and one more) to {_MAX_LENGTH}"
        )
    return Limits(possibilities, arguments.max_prompt_tokens, words, arguments.max_length)


def check_align(arguments: argparse.Namespace) -> None:
    """Errors: UsageError."""
    if arguments.align is None:
        for option, value in (("--align-seed", arguments.align_seed), ("--encoder", arguments.encoder)):
            if value is not None:
                raise UsageError(f"{option} has no effect without --align; leave it out")
    elif arguments.format not in ("dialogue", "chat"):
        raise UsageError(
            f"--align gives replies their numbers, --format {arguments.format} has no possibility "
            "numbers; it goes with dialogue and chat"
        )
    elif arguments.prompts_only:
        raise UsageError(
            "--align needs responses, --prompts-only leaves them out; give --possibilities M instead, "
            "prompts need no alignment"
        )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of 0 or more")
    return int(text)
