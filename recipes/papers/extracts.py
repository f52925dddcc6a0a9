"""What a paper prints of the answers themselves: the most frequent values, answers side by side.

    values      {title, rows: [titles], prompts: [ids], top: N}: the N most frequent answers to a prompt
                with their counts, row beside row
    attributes  {title, rows: [titles], top: N}: the same of each attribute of biographies
    examples    {title, rows: [titles], prompts: N, responses: N}: whole answers to the first N prompts
    talks       {title, rows: [titles], talks: N}: the first N conversations of personas

Owns: these parts of FOLDER/table.md. Does not own: figures. Counts are those of the first seed, as the papers
have one. Thread rule: free of state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from measured import Measured
from plural_text.metrics.biography import attribute_values
from plural_text.metrics.coverage import answer_key
from plural_text.metrics.responses import Answers

_VALUE_CHARACTERS = 40


def extracts(found: Measured) -> list[str]:
    """A section of Markdown for each that is wanted and has an answer. Errors: BadData."""
    sections = []
    for one in found.definition.extracts:
        if one["kind"] == "talks":
            if body := _talks(found, one):
                sections.append(f"**{one['title']}**\n\n{body}")
            continue
        kind = {"values": _values, "attributes": _attributes, "examples": _examples}[one["kind"]]
        answered = [(title, _first_seed(found, title)) for title in one["rows"]]
        body = kind(one, [(title, answers) for title, answers in answered if answers])
        if body:
            sections.append(f"**{one['title']}**\n\n{body}")
    return sections


def _first_seed(found: Measured, title: str) -> Sequence[Answers]:
    return next(iter(found.answers(found.row(title))), ())


def _values(one: Mapping[str, Any], answered: Sequence[tuple[str, Sequence[Answers]]]) -> str:
    tables = []
    for prompt in one["prompts"]:
        columns = []
        for title, answers in answered:
            texts = [text for each in answers if each.id == prompt for text in each.texts]
            if texts:
                columns.append((title, Counter(map(answer_key, texts))))
        if columns:
            tables.append(_side_by_side(prompt, columns, one["top"]))
    return "\n\n".join(tables)


def _attributes(one: Mapping[str, Any], answered: Sequence[tuple[str, Sequence[Answers]]]) -> str:
    values = [
        (title, attribute_values(text for each in answers for text in each.texts))
        for title, answers in answered
    ]
    names = values[0][1] if values else ()
    return "\n\n".join(
        _side_by_side(
            name.replace("_", " "), [(title, Counter(own[name])) for title, own in values], one["top"]
        )
        for name in names
    )


def _side_by_side(head: str, columns: Sequence[tuple[str, Counter[str]]], top: int) -> str:
    """Of each column the most frequent values with their counts; equals in the order of the alphabet."""
    shown = [
        [
            f"{_short(value)} ({count:,})"
            for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ]
        for _, counts in columns
    ]
    lines = [
        [str(place + 1), *(own[place] if place < len(own) else "" for own in shown)] for place in range(top)
    ]
    return _markdown([head, *(title for title, _ in columns)], [line for line in lines if any(line[1:])])


def _examples(one: Mapping[str, Any], answered: Sequence[tuple[str, Sequence[Answers]]]) -> str:
    parts = []
    ids = list(dict.fromkeys(each.id for _, answers in answered for each in answers))[: one["prompts"]]
    for prompt in ids:
        own = [(title, each) for title, answers in answered for each in answers if each.id == prompt]
        lines = [_quoted(own[0][1].prompt)]
        for title, each in own:
            lines += ["", f"{title}:", ""]
            lines += [f"{i}. {_one_line(text)}" for i, text in enumerate(each.texts[: one["responses"]], 1)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _talks(found: Measured, one: Mapping[str, Any]) -> str:
    parts = []
    for title in one["rows"]:
        for turns in found.conversations(found.row(title))[: one["talks"]]:
            lines = [f"Person {'AB'[place % 2]}: {_one_line(turn)}  " for place, turn in enumerate(turns)]
            parts.append("\n".join([f"{title}:", "", *lines]).rstrip())
    return "\n\n".join(parts)


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())


def _short(text: str) -> str:
    text = _one_line(text)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[: _VALUE_CHARACTERS - 1]}…"


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "(nothing)"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [[_one_line(cell).replace("|", "\\|") if cell else "" for cell in line] for line in (head, *rows)]
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
