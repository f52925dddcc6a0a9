"""What people leave in their records without meaning it: blank turns, line ends, equal replies.

Owns: what is taken out between reading and tokenising, the options that say so, the counts and the warnings
about them. Does not own: the formats (formats.py), what a group's tokens are (groups.py). Thread rule: one
thread at a time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from plural_text.common.errors import BadData, UsageError
from plural_text.common.options import whole_number
from plural_text.prepare.formats import Record

_DIALOGUES = ("dialogue", "chat")
_DUPLICATES = ("keep", "drop", "refuse")
_NAMED = 10
_GROUPING = "--group-by-prompt makes one group of all with the same prompt"


def add_arguments(add: Callable) -> None:
    add(
        "--duplicates",
        choices=_DUPLICATES,
        help="equal replies to one prompt: keep them with a warning (default), drop the later ones, or "
        "refuse the input",
    )
    add(
        "--group-by-prompt",
        action="store_true",
        help="make one group of all records with the same prompt; holds the records in memory",
    )
    add(
        "--min-responses",
        type=whole_number(1, 1_000_000),
        metavar="N",
        help="leave out prompts with fewer responses, and name them; as many as the recipe's group.responses "
        "asks for",
    )


@dataclass
class _Count:
    """How often something was found, in how many records, and where first."""

    found: int = 0
    records: int = 0
    where: str = ""

    def add(self, found: int, where: str) -> None:
        self.found += found
        self.records += found > 0
        self.where = self.where or (where if found else "")

    def line(self, one: str, many: str) -> str:
        return (
            f"{self.found:,} {one if self.found == 1 else many} in {self.records:,} "
            f"record{'s' * (self.records != 1)}"
        )


@dataclass
class Replies:
    """Records as they are trained on. Errors of `tidy`: BadData naming the record."""

    duplicates: str = "keep"
    group_by_prompt: bool = False
    min_responses: int = 0
    ignored: bool = False  # the template passes replies over
    _blank: _Count = field(default_factory=_Count)
    _ends: _Count = field(default_factory=_Count)
    _equal: _Count = field(default_factory=_Count)
    _merged: _Count = field(default_factory=_Count)
    _records: int = 0
    _most: int = 0  # replies of a record
    _few: int = 0
    _few_named: list[str] = field(default_factory=list)  # the first, with how many they have

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Replies:
        """Errors: UsageError for an option that does not go with the format."""
        if arguments.format not in _DIALOGUES:
            for option, given in (
                ("--duplicates", arguments.duplicates),
                ("--group-by-prompt", arguments.group_by_prompt),
            ):
                if given:
                    raise UsageError(
                        f"{option} has no effect on --format {arguments.format}, it goes with "
                        f"{' and '.join(_DIALOGUES)}; leave it out"
                    )
        if arguments.min_responses and (arguments.prompts_only or arguments.format == "text"):
            what = "--prompts-only" if arguments.prompts_only else "--format text"
            raise UsageError(f"--min-responses has no effect with {what}; leave it out")
        return cls(arguments.duplicates or "keep", arguments.group_by_prompt, arguments.min_responses or 0)

    def tidy(self, records: Iterable[Record], source_format: str) -> Iterator[Record]:
        """The records in order, groups with the same prompt at the first one's place."""
        for record in self._grouped(records) if self.group_by_prompt else records:
            self._blank.add(record.blank_turns, record.where)
            if record.responses and not self.ignored and source_format in _DIALOGUES:
                self._records += 1
                self._most = max(self._most, len(record.responses))
                self._strip_line_ends(record)
                self._find_equal(record)
            if self._is_enough(record):
                yield record

    def warn(self, warn: Callable[[str], None]) -> None:
        """One line for each thing that was found."""
        if self._blank.found:
            verb = "is" if self._blank.found == 1 else "are"
            warn(
                f"{self._blank.line('blank turn', 'blank turns')} {verb} left out, the first in "
                f"{self._blank.where}; speakers take turns without it"
            )
        if self._ends.found:
            warn(
                f"line ends behind {self._ends.line('reply', 'replies')} are left out, the first in "
                f"{self._ends.where}"
            )
        if self._equal.found:
            self._warn_equal(warn)

    def notes(self) -> list[str]:
        """What was asked for and done, and what is there to ask for."""
        notes = []
        if not self.group_by_prompt and self._records > 1 and self._most == 1:
            notes.append(f"every record has one response; {_GROUPING}")
        if self.group_by_prompt:
            records = "record" if self._merged.found == 1 else "records"
            notes.append(f"{self._merged.found:,} {records} joined an earlier one with the same prompt")
        if self.min_responses:
            notes.append(self._few_line())
        return notes

    def nothing_left(self) -> str:
        """What to say where every record was left out; "" where none was."""
        if not self._few:
            return ""
        single = not self.group_by_prompt and self._most == 1
        return f"nothing is left: {self._few_line()}{f'; {_GROUPING}' if single else ''}"

    def _is_enough(self, record: Record) -> bool:
        found = len(record.responses or ())
        if found >= self.min_responses:
            return True
        if len(self._few_named) < _NAMED:
            self._few_named.append(f"{record.id} ({found})")
        self._few += 1
        return False

    def _few_line(self) -> str:
        line = (
            f"{self._few:,} prompt{'s' * (self._few != 1)} with fewer than {self.min_responses:,} "
            f"response{'s' * (self.min_responses != 1)} left out"
        )
        if not self._few:
            return line
        more = f" and {self._few - _NAMED:,} more" if self._few > _NAMED else ""
        return f"{line}: {', '.join(self._few_named)}{more}"

    def _warn_equal(self, warn: Callable[[str], None]) -> None:
        found = self._equal.line("reply is equal to an earlier one", "replies are equal to an earlier one")
        if self.duplicates == "drop":
            warn(f"{found}, the first in {self._equal.where}; left out (--duplicates drop)")
        else:
            warn(
                f"{found}, the first in {self._equal.where}; method poexft raises and lowers the same tokens "
                "there; --duplicates drop leaves the later ones out, refuse stops at them"
            )

    def _strip_line_ends(self, record: Record) -> None:
        stripped = [text.rstrip("\r\n") for text in record.responses]
        self._ends.add(sum(a != b for a, b in zip(stripped, record.responses)), record.where)
        record.responses = stripped

    def _find_equal(self, record: Record) -> None:
        texts = [text.strip() for text in record.responses]
        first = {text: i for i, text in reversed(list(enumerate(texts)))}
        kept = sorted(first.values())
        if len(kept) == len(texts):
            return
        if self.duplicates == "refuse":
            later = next(i for i, text in enumerate(texts) if first[text] != i)
            raise BadData(
                f"{record.where}: reply {later + 1} is equal to reply {first[texts[later]] + 1}, "
                f"{_shown(texts[later])}; take one out, or give --duplicates drop"
            )
        self._equal.add(len(texts) - len(kept), record.where)
        if self.duplicates == "drop":
            record.responses = [record.responses[i] for i in kept]
            record.kinds = record.kinds and [record.kinds[i] for i in kept]

    def _grouped(self, records: Iterable[Record]) -> Iterator[Record]:
        groups: dict[str, Record] = {}
        for record in records:
            first = groups.setdefault(json.dumps(record.turns), record)
            if first is record:
                continue
            self._merged.add(1, record.where)
            if record.responses:
                first.responses = first.responses + record.responses
                first.kinds = first.kinds and first.kinds + record.kinds
        yield from groups.values()


def unreported(replies: Replies) -> Replies:
    """The same rules with counts of their own, to read the input once more."""
    return Replies(replies.duplicates, replies.group_by_prompt, replies.min_responses, replies.ignored)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
