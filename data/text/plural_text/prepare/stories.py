"""Stories of five sentences, as ROCStories has them, turned into dialogue records.

Owns: the columns of such a story, what becomes its context and its continuation. Does not own: tables
(separated.py), the wording of prompts (a template). Thread rule: functions without state.
"""

from __future__ import annotations

from plural_text.prepare.json_records import Mistake, kind_of

STORY = "story"  # its name as a format
SENTENCES = tuple(f"sentence{i}" for i in range(1, 6))
CONTEXT_SENTENCES = 4  # where nobody says how many
TEMPLATE = "plain-story"
_KNOWN = {"storyid", "storytitle", *SENTENCES}


def is_story(keys) -> bool:
    return keys >= set(SENTENCES)


def story_fields(fields: dict, context_sentences: int) -> dict:
    """A row as a record of dialogue: the first sentences as one turn, the others as one continuation.

    The title is in no prompt: it often tells the end. Keys that no story has stay, so that the reader can
    name them. Errors: Mistake for a sentence that is missing.
    """
    sentences = []
    for key in SENTENCES:
        if key not in fields:
            raise Mistake(
                f"key '{key}' is missing, a story has {SENTENCES[0]} to {SENTENCES[-1]}; found "
                f"{', '.join(map(repr, fields)) or 'no keys'}"
            )
        if not isinstance(fields[key], str):
            raise Mistake(f"{key} is a {kind_of(fields[key])}, must be a text")
        sentence = " ".join(fields[key].split())
        if not sentence:
            raise Mistake(f"{key} is empty")
        sentences.append(sentence)
    record = {key: value for key, value in fields.items() if key not in _KNOWN}
    if "storyid" in fields:
        record["id"] = fields["storyid"]
    record["context"] = " ".join(sentences[:context_sentences])
    record["candidates"] = [" ".join(sentences[context_sentences:])]
    return record
