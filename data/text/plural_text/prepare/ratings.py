"""Records to the groups of a rating corpus: questions about how well a future response would fit.

Owns: the parts of a question. Does not own: the wording (templates.py), trimming (groups.py).

A judged sequence is prompt + response + tail 0 + rating. The prompt is the text up to the response's place,
tail 0 the text after it, and the group's ten responses are the ratings. The response itself is not known yet:
`plural generate --rerank` and `plural rate` put the ids that a model generated in its place. So each part is
tokenised on its own.
"""

from __future__ import annotations

import itertools

from plural_text.common.errors import BadData
from plural_text.prepare.formats import Record
from plural_text.prepare.groups import Group, GroupBuilder, Limits
from plural_text.prepare.masks import MaskBuilder
from plural_text.prepare.templates import Template
from plural_text.prepare.tokenizer import Tokenizer

# Text before which a tokenizer may put the word start that the text after it does not have. No vocabulary
# merges it with others.
_BEFORE = "\x01"


class RatingBuilder(GroupBuilder):
    """Errors: BadData when the template's ratings have no tokens or one begins like another."""

    def __init__(self, tokenizer: Tokenizer, template: Template, masks: MaskBuilder, limits: Limits):
        super().__init__(tokenizer, template, masks, limits)
        self._after = _continued(tokenizer, template.after_response)
        self._ratings = [_continued(tokenizer, rating) for rating in template.ratings]
        _check_ratings(template, self._ratings)

    def build(self, records: list[Record]) -> list[Group]:
        """The questions for the records, in order; responses of records are passed over."""
        return [
            Group(
                group.id,
                group.prompt,
                [self._after],
                self._ratings,
                [bytes(len(ids)) for ids in self._ratings],
                [1.0] * len(self._ratings),
            )
            for group in self._prompts(records)
        ]


def _continued(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of text that goes on after other text: no space is put before it."""
    plain, with_before, before = tokenizer.encode_prompts([text, _BEFORE + text, _BEFORE])
    rest = with_before[len(before) :]
    if with_before[: len(before)] == before and tokenizer.decode(rest) == text.encode():
        return rest
    return plain


def _check_ratings(template: Template, ratings: list[list[int]]) -> None:
    # In lexicographic order a list stands directly before those that begin with it.
    order = sorted(zip(ratings, template.ratings))
    for (first, name), (second, other) in itertools.pairwise(order):
        if second[: len(first)] == first:
            raise BadData(
                f"{template.where}: template key 'ratings': {name!r} is the beginning of {other!r} in "
                "tokens; close every rating with the same sign, such as ']'"
            )
