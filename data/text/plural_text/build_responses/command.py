"""Makes data with several replies per prompt out of prompts: a model lists different replies to each.

  plural build-responses prompts.jsonl --endpoint https://api.openai.com/v1 --model NAME -o replies.jsonl
  plural build-responses prompts.jsonl --model models/mistral-7b-instruct-v0.2 -o replies.jsonl

PROMPTS holds dialogues, chats or stories as `plural prepare` reads them; their own replies are not used. The
output is what `plural prepare` reads. Every list is kept in a file beside it as it comes: a second start asks
nothing twice.
"""

# Owns: the command line, the order of work, the report. Does not own: the question (question.py), what an
# item of a list is (list_items.py), which replies are different (different.py), asking (common/asking.py).

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from plural_text.ask.model_options import command_of, resolve_names, warn
from plural_text.ask.prompts import Prompts
from plural_text.ask.training import check_folders
from plural_text.build_responses.different import LeftOut, different, tidy
from plural_text.build_responses.list_items import split_list
from plural_text.build_responses.local_model import LocalModel
from plural_text.build_responses.question import ListQuestion, read_question
from plural_text.common.asking import AnswerCache, Asking, ask_all
from plural_text.common.compute_options import add_compute_options
from plural_text.common.endpoint import DEFAULT_KEY_VARIABLE, Endpoint, EndpointLimits
from plural_text.common.errors import BadData, UsageError
from plural_text.common.model_process import ModelProcess
from plural_text.common.new_output import add_force, require_new, write_whole
from plural_text.common.options import number, whole_number
from plural_text.prepare.format_finding import Format, find_format, named_format
from plural_text.prepare.formats import InputFiles, Record
from plural_text.prepare.stories import CONTEXT_SENTENCES, SENTENCES, STORY

_MOST_REPLIES = 100
_NAMED = 10
_LOCAL_PARALLEL, _ENDPOINT_PARALLEL = 16, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", metavar="PROMPTS", help="files or folders")
    add(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="REPLIES.jsonl",
        help="written whole or not at all",
    )
    add_force(add)
    add(
        "--format",
        type=named_format,
        metavar="FORMAT",
        help="what the inputs hold: dialogue, chat or one of its shapes, story (default: found by the first "
        "record)",
    )
    add(
        "--story-sentences",
        type=int,
        choices=range(1, len(SENTENCES)),
        help=f"of --format story: how many sentences the prompt has (default: {CONTEXT_SENTENCES})",
    )
    add(
        "--responses",
        type=whole_number(2, _MOST_REPLIES),
        default=10,
        metavar="N",
        help="replies to each prompt (default: 10)",
    )
    add(
        "--min-responses",
        type=whole_number(1, _MOST_REPLIES),
        default=2,
        metavar="N",
        help="prompts with fewer different replies are left out and named (default: 2)",
    )
    add(
        "--max-overlap",
        type=number(0, 1),
        default=0.8,
        metavar="SHARE",
        help="a reply that shares more of its words than this with an earlier one is left out: common words "
        "over all words of both (default: 0.8); 1: equal replies alone",
    )
    add(
        "--attempts",
        type=whole_number(1, 20),
        default=3,
        metavar="N",
        help="lists that a prompt is asked for while it has too few replies, the first at temperature 0 "
        "(default: 3)",
    )
    add(
        "--temperature",
        type=number(0, 100),
        default=1.0,
        metavar="T",
        help="of the lists after the first (default: 1)",
    )
    add("--max-new-tokens", type=whole_number(1, 1 << 20), metavar="N", help="of a list (default: 1,024)")
    add(
        "--question",
        type=Path,
        metavar="FILE.json",
        help="asks in other words: prompt with {context} and {k}",
    )
    add(
        "--cache",
        type=Path,
        metavar="FILE.jsonl",
        help="the lists are kept here (default: REPLIES.jsonl.lists.jsonl)",
    )
    add("--quiet", action="store_true", help="no progress and no report; warnings stay")
    add(
        "--model",
        required=True,
        metavar="NAME_OR_DIR",
        help="with --endpoint its model's name; else the folder of a model, or its name on the Hub once it "
        "has been downloaded",
    )
    add(
        "--parallel",
        type=whole_number(1, 1024),
        metavar="N",
        help=f"lists asked for at a time (default: {_ENDPOINT_PARALLEL}, of a model of this machine "
        f"{_LOCAL_PARALLEL})",
    )
    _add_endpoint(parser.add_argument_group("an endpoint").add_argument)
    _add_local(parser.add_argument_group("a model of this machine").add_argument)


def _add_endpoint(add) -> None:
    add("--endpoint", metavar="BASE_URL", help="OpenAI-compatible, such as http://localhost:8000/v1")
    add(
        "--key-variable",
        default=DEFAULT_KEY_VARIABLE,
        metavar="NAME",
        help="environment variable with its key (default: %(default)s)",
    )
    add("--requests-per-minute", type=number(0, 1e6), default=0.0, metavar="N", help="0: no limit (default)")
    add("--timeout-seconds", type=number(0.1, 3600), default=120.0, metavar="S", help="(default: 120)")
    add(
        "--retries",
        type=whole_number(0, 100),
        default=5,
        metavar="N",
        help="tries after a failed one, with growing waits (default: 5)",
    )


def _add_local(add) -> None:
    add("--tokenizer", type=Path, metavar="DIR_OR_FILE", help="(default: the model's folder)")
    add(
        "--seed", type=whole_number(0), default=42, metavar="N", help="of lists after the first (default: 42)"
    )
    add_compute_options(add)


@dataclass
class _Built:
    """Replies by prompt, in the order of the input."""

    replies: dict[str, list[str]]
    left_out: LeftOut = field(default_factory=LeftOut)
    lists: int = 0


def run(arguments: argparse.Namespace) -> int:
    if arguments.min_responses > arguments.responses:
        raise UsageError(
            f"--min-responses {arguments.min_responses} is more than --responses {arguments.responses}"
        )
    form = arguments.format or find_format(arguments.inputs, {})
    if arguments.story_sentences and form.shape != STORY:
        raise UsageError("--story-sentences is for --format story; leave it out")
    kind = "story" if form.shape == STORY else form.name
    if kind not in ("dialogue", "chat", "story"):
        raise UsageError(f"format {kind} has no replies to list; prompts are dialogues, chats or stories")
    require_new(arguments.output, arguments.force)
    question = read_question(kind, arguments.question)
    records = _records(arguments, form)
    built = _Built({record.id: [] for record in records})
    cache_file = arguments.cache or arguments.output.with_name(f"{arguments.output.name}.lists.jsonl")
    with AnswerCache(cache_file) as cache, _models(arguments) as (attempts, max_tokens):
        for attempt, model in enumerate(attempts):
            asking = Asking(arguments.temperature if attempt else 0.0, max_tokens, attempt)
            _ask(records, question, model, cache, asking, arguments, built)
    lines = [
        json.dumps(_line(record, built.replies[record.id], form.name), ensure_ascii=False)
        for record in records
        if len(built.replies[record.id]) >= arguments.min_responses
    ]
    if not lines:
        raise BadData(
            f"no prompt has {arguments.min_responses} different replies; the lists are in {cache_file}: look "
            "whether the model answers with one reply per line"
        )
    write_whole(arguments.output, "".join(f"{line}\n" for line in lines))
    if not arguments.quiet:
        print("\n".join(_report(built, len(lines), arguments)))
    return 0


def _records(arguments: argparse.Namespace, form: Format) -> list[Record]:
    """One of each prompt. Errors: those of InputFiles; BadData for an id that stands twice."""
    inputs = InputFiles(arguments.inputs, form.name, warn, prompts_only=True, shape=form.shape)
    inputs.story_sentences = arguments.story_sentences or CONTEXT_SENTENCES
    by_prompt: dict[str, Record] = {}
    places: dict[str, str] = {}
    for record in inputs:
        if record.id in places:
            raise BadData(f"{record.where}: id '{record.id}' stands already in {places[record.id]}")
        places[record.id] = record.where
        by_prompt.setdefault(json.dumps(record.turns), record)
    if not by_prompt:
        raise BadData(f"{', '.join(arguments.inputs)}: no prompts in the input")
    if len(by_prompt) < len(places):
        warn(f"{len(places) - len(by_prompt):,} prompts equal an earlier one and are asked once")
    return list(by_prompt.values())


@contextlib.contextmanager
def _models(arguments: argparse.Namespace) -> Iterator[tuple[list[Endpoint | LocalModel], int]]:
    """Who is asked, per attempt, and how many tokens a list may have."""
    if arguments.endpoint:
        if not arguments.endpoint.startswith(("http://", "https://")):
            raise UsageError(f"--endpoint '{arguments.endpoint}': must be an http:// or https:// address")
        limits = EndpointLimits(arguments.timeout_seconds, arguments.retries, arguments.requests_per_minute)
        endpoint = Endpoint(arguments.endpoint, arguments.model, limits, arguments.key_variable)
        arguments.parallel = arguments.parallel or _ENDPOINT_PARALLEL
        yield [endpoint] * arguments.attempts, arguments.max_new_tokens or Asking.max_tokens
        return
    if arguments.model.startswith(("http://", "https://")):
        raise UsageError("--model is the model's name or folder; give the address as --endpoint")
    arguments.model, arguments.adapter = Path(arguments.model), None
    resolve_names(arguments)
    check_folders(arguments.model, None)
    prompts = Prompts(arguments.model, None, None, arguments.tokenizer or arguments.model, warn)
    if not prompts.tokenizer.chat_template:
        warn(f"{arguments.model} has no chat template: it is asked with bare text, as a model that goes on")
        prompts = Prompts(arguments.model, None, "text", arguments.tokenizer or arguments.model, warn)
    arguments.parallel = arguments.parallel or _LOCAL_PARALLEL
    most = Asking.max_tokens
    if prompts.context_tokens:
        most = min(most, prompts.context_tokens // 2)
    with ModelProcess(command_of(arguments)) as process:
        yield (
            [
                LocalModel(process, prompts, arguments.model, attempt, arguments.seed, arguments.quantize)
                for attempt in range(arguments.attempts)
            ],
            arguments.max_new_tokens or max(1, most),
        )


def _ask(
    records: list[Record],
    question: ListQuestion,
    model: Endpoint | LocalModel,
    cache: AnswerCache,
    asking: Asking,
    arguments: argparse.Namespace,
    built: _Built,
) -> None:
    """One list more for each prompt that has too few replies."""
    wanting = [record for record in records if len(built.replies[record.id]) < arguments.responses]
    questions = [question.ask(record, arguments.responses) for record in wanting]
    lists = ask_all(questions, model, cache, arguments.parallel, arguments.quiet, asking)
    built.lists += len(lists)
    for record, text in zip(wanting, lists, strict=True):
        # Models often set labels in bold type.
        items = [tidy(item, question.speakers) for item in split_list(text.replace("**", ""))]
        had = built.replies[record.id]
        built.replies[record.id] = different(
            [*had, *filter(None, items)], arguments.responses, arguments.max_overlap, built.left_out
        )


def _line(record: Record, replies: list[str], form: str) -> dict:
    if form == "chat":
        return {"id": record.id, "messages": record.turns, "responses": replies}
    return {"id": record.id, "context": "\n".join(record.turns), "candidates": replies}


def _report(built: _Built, written: int, arguments: argparse.Namespace) -> list[str]:
    counts = {prompt: len(replies) for prompt, replies in built.replies.items()}
    short = sum(count < arguments.responses for count in counts.values())
    few = {prompt: count for prompt, count in counts.items() if count < arguments.min_responses}
    kept = sum(count for count in counts.values() if count >= arguments.min_responses)
    named = ", ".join(f"{prompt} ({count})" for prompt, count in list(few.items())[:_NAMED])
    more = f" and {len(few) - _NAMED:,} more" if len(few) > _NAMED else ""
    return [
        f"replies               {arguments.output}",
        f"prompts               {written:,} of {len(counts):,}",
        f"responses             {kept:,}, {kept / written:.1f} a prompt",
        f"lists read            {built.lists:,}",
        f"left out              {built.left_out.equal:,} equal, {built.left_out.near:,} nearly equal",
        f"fewer than {f'{arguments.responses} replies':<11}{short:,} prompts",
        f"fewer than {f'{arguments.min_responses} replies':<11}{len(few):,} prompts, left out"
        + (f": {named}{more}" if few else ""),
    ]
