"""The items of a list that a model wrote, as `plural generate --method list` finds them.

Owns: what counts as an item. Does not own: which items are alike (different.py). The rules, and the vectors
of their tests, are those of trainer/generate/list_prompting.h. Thread rule: functions without state.
"""

from __future__ import annotations

import re

_FEWEST_CHARACTERS = 5
_SPACE = " \t\r"
_BULLET = re.compile(r"[-*+\u2022\u2013\u2014](?=[ \t\r]|$)")
# [word] [(#[] number [.)]:]... with one sign at least, so that "3 apples" and "1984 was" are no labels.
_NUMBER = re.compile(r"(?P<word>[A-Za-z]*)[ \t\r]*(?P<open>[(#\[]*)[0-9]{1,4}(?P<close>[)\].:]*)(?![0-9])")


def split_list(text: str) -> list[str]:
    """The items, one per line, without their labels and without space around them.

    Where any line has a label, lines without one (a heading, an afterword) are no items. Items of under five
    characters are left out.
    """
    labelled, all_lines, any_label = [], [], False
    for line in text.split("\n"):
        line = line.strip(_SPACE)
        label = _label_length(line)
        item = line[label:].strip(_SPACE)
        any_label |= label > 0
        if len(item) >= _FEWEST_CHARACTERS:
            all_lines.append(item)
            if label:
                labelled.append(item)
    return labelled if any_label else all_lines


def _label_length(line: str) -> int:
    """Characters of the label that `line` starts with; 0: none."""
    if bullet := _BULLET.match(line):
        return bullet.end()
    number = _NUMBER.match(line)
    if not number:
        return 0
    # "At 5." is a sentence; "Response 5:" is a label.
    is_label = number["close"].endswith(":") if number["word"] else number["open"] or number["close"]
    return number.end() if is_label else 0
