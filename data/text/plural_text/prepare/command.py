"""Turns text into a pre-tokenized corpus that `plural train` and `plural generate` read.

  plural prepare my.jsonl --tokenizer models/mistral-7b-instruct-v0.2 -o my.h5

formats, found by the keys of the first record, or named with --format:
  dialogue    {"context": turns joined by newline, "candidates": [replies]}; the last turn is Person A's
  targets     {"request", "response": prefix, "targets": [...], "weights": [...], "eos": true}
  chat        {"messages": [{"role", "content"}, ...], "responses": [...]}, or any of the next five
  messages    {"messages"} that end with the assistant, whose last message is learnt
  sharegpt    {"conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, ...]}
  alpaca      {"instruction", "input", "output"}
  completion  {"prompt", "completion"}, as texts or as messages
  preference  {"prompt", "chosen", "rejected"}; the chosen answer is learnt
  story       a row per story: storyid, storytitle, sentence1 to sentence5, as ROCStories; read as dialogue
  text        .txt documents, or {"text": ...}
Inputs are .jsonl or .json files, for all formats but dialogue and targets also .csv, .tsv, .parquet, .gz,
JSON arrays and folders that the package datasets saved; another folder means all its files, of dialogue and
targets those of its folders, too. Every object may carry its own "id". Without candidates, targets or
responses it is a prompt to generate for. dialogue and chat may have "kinds", one per reply, for --align
kinds.
"""

# Owns: the order of work, warnings. Does not own: the options (options.py), any step of the work.

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from plural_text.common.errors import BadData, UsageError
from plural_text.common.new_output import require_new
from plural_text.common.progress import Progress
from plural_text.prepare.alignment import Aligner, open_aligner
from plural_text.prepare.chat_turn import ChatTurn
from plural_text.prepare.corpus_check import CorpusCheck
from plural_text.prepare.corpus_writer import CorpusWriter, is_prepared
from plural_text.prepare.end_tokens import EndTokens, find_end_tokens
from plural_text.prepare.format_finding import find_format
from plural_text.prepare.formats import InputFiles, Record
from plural_text.prepare.groups import GroupBuilder, Limits
from plural_text.prepare.masks import MODES, MaskBuilder, StopWords
from plural_text.prepare.options import add_arguments, check_align, limits_of
from plural_text.prepare.ratings import RatingBuilder
from plural_text.prepare.replies import Replies, unreported
from plural_text.prepare.stories import CONTEXT_SENTENCES, STORY
from plural_text.prepare.stories import TEMPLATE as STORY_TEMPLATE
from plural_text.prepare.summary import Summary
from plural_text.prepare.templates import ChatTemplate, Template, open_template
from plural_text.prepare.tokenizer import Tokenizer
from plural_text.prepare.tokenizer_files import open_tokenizer

__all__ = ["add_arguments", "run"]

# A batch ends at the first of these: enough for the tokenizer to be fast, little enough to hold.
_BATCH_RECORDS = 128
_BATCH_CHARACTERS = 1 << 20


def run(arguments: argparse.Namespace) -> int:
    form = arguments.format or find_format(arguments.inputs, arguments.columns or {})
    if form.found and not arguments.quiet:
        print(f"plural: format {form.name}: {form.found}", file=sys.stderr)
    arguments.format, arguments.shape = form.name, form.shape
    if arguments.story_sentences and form.shape != STORY:
        raise UsageError("--story-sentences is for --format story; leave it out")
    limits = limits_of(arguments)
    progress = None

    def warn(line: str) -> None:
        if progress:
            progress.clear()
        print(f"plural: warning: {line}", file=sys.stderr)

    inputs = _open_inputs(arguments, warn, arguments.prompts_only)
    _check_output(arguments.output, inputs.files, arguments.force, warn)
    check_align(arguments)
    replies = Replies.of(arguments)
    stop_words = StopWords(arguments.stopwords)
    tokenizer = open_tokenizer(arguments.tokenizer, arguments.bos, arguments.eos, warn)
    by_default = STORY_TEMPLATE if arguments.shape == STORY else None
    template = open_template(arguments.template or by_default, arguments.format, tokenizer)
    if arguments.template is None and arguments.format in ("dialogue", "targets") and tokenizer.chat_template:
        warn(
            f"{tokenizer.path.parent} has a chat template, and {template.name} writes prompts without it: a "
            "model tuned for chats is then trained on bare text; name a --template of its family, or give "
            "--format chat"
        )
    end_tokens = _end_tokens(arguments, tokenizer, template, warn)
    tokenizer.eos_id = end_tokens.ids[0]
    if arguments.possibilities is None and not template.has_numbers():
        limits = replace(limits, possibilities=0)
    if arguments.align and not template.has_numbers():
        raise UsageError(
            f"template '{template.name}' has no place for a possibility number, to which --align would "
            "give a meaning; give another --template"
        )
    replies.ignored = bool(template.ratings)
    aligner = _open_aligner(arguments, inputs, replies)
    if aligner:
        limits = _with_numbers_of(aligner, limits, arguments)
    if limits.possibilities and not template.has_numbers():
        raise UsageError(
            f"template '{template.name}' has no place for a possibility number; give "
            "--possibilities 0 or another --template"
        )
    builder = (RatingBuilder if template.ratings else GroupBuilder)(
        tokenizer, template, MaskBuilder(tokenizer, stop_words, arguments.words), limits
    )
    attributes = {
        "vocab_size": len(tokenizer.token_bytes),
        "possibilities": limits.possibilities,
        "source_format": arguments.format,
        "tokenizer_name": tokenizer.name,
        "tokenizer_sha256": tokenizer.sha256,
        "bos_token_id": -1 if tokenizer.bos_id is None else tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "end_token_ids": end_tokens.ids,
        "template_name": template.name,
        "mask_modes": ",".join(MODES),
        "stopwords_sha256": stop_words.sha256,
    }
    if arguments.words != "spaces":
        attributes["word_rule"] = arguments.words
    summary = Summary()
    summary.end_tokens = end_tokens.line(tokenizer)
    check = CorpusCheck(tokenizer, template)
    progress = Progress("prepare", inputs.total_bytes, "groups", sys.stderr, quiet=arguments.quiet)
    try:
        with (
            CorpusWriter(arguments.output, attributes, tokenizer.token_bytes, template.json) as writer,
            aligner or contextlib.nullcontext(),
        ):
            for batch in _batches(replies.tidy(_unique(inputs), arguments.format)):
                built = builder.build(batch)
                # Only a plain document makes several groups.
                for record, group in zip(batch if len(batch) == len(built) else [None] * len(built), built):
                    writer.append(group)
                    summary.add(group)
                    check.add(record, group)
                if aligner:
                    aligner.add(batch)
                if arguments.strict_sharing:
                    _check_sharing(builder, summary)
                progress.update(inputs.bytes_read, summary.groups)
            if summary.groups == 0:
                raise BadData(
                    f"{', '.join(arguments.inputs)}: {replies.nothing_left() or 'no records in the input'}"
                )
            if summary.responses == 0 and not arguments.prompts_only:
                raise BadData(
                    f"{', '.join(arguments.inputs)}: no record has responses; check the keys, or give "
                    "--prompts-only for a corpus to generate for"
                )
            if aligner:
                progress.close()
                progress = Progress("align", 1.0, "vectors", sys.stderr, quiet=arguments.quiet)
                alignment = aligner.finish(progress.update)
                writer.add_alignment(alignment)
                summary.alignment = alignment.summary
            sha256 = writer.commit()
    finally:
        progress.close()
    replies.warn(warn)
    _report_changes(builder, summary, warn)
    check.report(warn)
    few = summary.mask_warning(arguments.words)
    if few and arguments.format in ("dialogue", "chat") and not template.ratings:
        warn(few)
    if not arguments.quiet:
        shapes = [f"reads {count:,} {shape}" for shape, count in inputs.shapes.items()]
        for line in [*shapes, *replies.notes()]:
            print(f"plural: {line}", file=sys.stderr)
        print("\n".join(summary.lines(builder.changes, str(arguments.output), sha256)))
    return 0


def _end_tokens(
    arguments: argparse.Namespace, tokenizer: Tokenizer, template: Template, warn: Callable[[str], None]
) -> EndTokens:
    written = None
    if isinstance(template, ChatTemplate):
        written = ChatTurn(template, tokenizer).end_id
        if template.reads_clock:
            warn(
                f"the chat template of {template.where} reads the clock (strftime_now): where it writes the "
                "date, a corpus of another day has other prompts"
            )
    return find_end_tokens(tokenizer, written, arguments.eos is not None, warn)


def _open_inputs(
    arguments: argparse.Namespace, note: Callable[[str], None], prompts_only: bool = False
) -> InputFiles:
    inputs = InputFiles(
        arguments.inputs, arguments.format, note, prompts_only, arguments.shape, arguments.columns
    )
    inputs.story_sentences = arguments.story_sentences or CONTEXT_SENTENCES
    inputs.may_lack_responses = bool(arguments.min_responses)  # which leaves those prompts out
    return inputs


def _open_aligner(arguments: argparse.Namespace, inputs: InputFiles, replies: Replies) -> Aligner | None:
    if arguments.align is None:
        return None

    def records() -> Iterator[Record]:
        again = _open_inputs(arguments, lambda line: None)
        again.reads_kinds = True
        return unreported(replies).tidy(again, arguments.format)

    aligner = open_aligner(
        arguments.align, arguments.align_seed, arguments.encoder, arguments.output.parent, records
    )
    inputs.reads_kinds = aligner.reads_kinds
    return aligner


def _with_numbers_of(aligner: Aligner, limits: Limits, arguments: argparse.Namespace) -> Limits:
    if arguments.possibilities is not None and arguments.possibilities < aligner.possibilities:
        raise UsageError(
            f"--possibilities {arguments.possibilities} is fewer than the {aligner.possibilities} "
            f"numbers of --align {arguments.align}; leave it out, or give at least as many"
        )
    return replace(limits, possibilities=arguments.possibilities or aligner.possibilities)


def _check_output(output: Path, inputs: list[Path], force: bool, warn: Callable[[str], None]) -> None:
    if output.exists() and any(output.samefile(file) for file in inputs):
        raise UsageError(f"{output}: is an input too; name another output")
    # A corpus as it was prepared can be prepared again, and often is, with other options. Runs notice.
    again = not force and is_prepared(output)
    require_new(output, force or again)
    if again:
        warn(f"{output}: was prepared before and is made anew; a run begun with it refuses the new one")


def _unique(records: Iterable[Record]) -> Iterator[Record]:
    ids: set[str] = set()  # all that stays in memory of a record: some 100 bytes
    for record in records:
        if record.id in ids:
            raise BadData(
                f"{record.where}: id '{record.id}' stands twice; ids must differ (without own ids "
                "they are made of file names: rename one of two files of the same name)"
            )
        ids.add(record.id)
        yield record


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch, characters = [], 0
    for record in records:
        batch.append(record)
        characters += sum(len(turn) for turn in record.turns)
        if len(batch) >= _BATCH_RECORDS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _sharing_line(builder: GroupBuilder, summary: Summary) -> str:
    lost = builder.changes.prompt_tokens_lost / summary.groups
    return (
        f"the template puts the possibility number before the content: {lost:.1f} prompt tokens lost "
        "per group (mean) against the number placed last"
    )


def _check_sharing(builder: GroupBuilder, summary: Summary) -> None:
    if builder.number_is_early:
        raise BadData(f"{_sharing_line(builder, summary)}; move {{k}} behind the content in the template")


def _report_changes(builder: GroupBuilder, summary: Summary, warn) -> None:
    changes = builder.changes
    if builder.number_is_early:
        warn(_sharing_line(builder, summary))
    if changes.respelled_responses:
        warn(
            f"the tokenizer spells {changes.respelled_responses:,} responses other than they are written, "
            f"the first in {changes.first_respelled}; the model learns the tokenizer's spelling"
        )
