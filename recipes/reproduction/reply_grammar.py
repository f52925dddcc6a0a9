"""Toy grammars of prompts and replies (dialogue.json, story.json): texts to train on, exact meanings of
replies.

Owns: prompts, replies, what a model from nothing reads, parsing. Does not own: files, commands.
Every draw comes from the Random that is passed in.

A reply's meaning is its answer: (category, kind). It is valid for a prompt when it is of the topic's
category. So semantic diversity is exact: 1 for a pair of replies with different meanings, 0 otherwise, which
is what cosine similarity would say if meanings were orthogonal.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# The usual answers of a model: its favourite, the other valid kinds, something of another category.
FAVOURITE_SHARE = 0.70
INVALID_SHARE = 0.02
# The texts that a model from nothing reads about each topic, in two parts one after the other: to rate a
# reply it must know already which category a topic and an answer are of; both at once it learns much later.
READING = (
    {"replies": 25, "dictionary": 25, "lists": 4, "counts": 2, "ratings": 0},
    {"replies": 25, "dictionary": 10, "lists": 10, "counts": 2, "ratings": 30},
)
NUMBERS = 9
GOOD, BAD = 9, 2  # ratings of a reply that is valid and of one that is not


@dataclass(frozen=True)
class Prompt:
    id: str
    category: str
    context: str


class ReplyGrammar:
    """`file`: dialogue.json or story.json; `categories`: use only the first so many; `reading`: as READING.

    Thread rule: immutable.
    """

    def __init__(self, file: Path, categories: int | None = None, reading: tuple[dict, ...] = READING):
        self._reading = reading
        spec = json.loads(file.read_text(encoding="utf-8"))
        topics = json.loads((_HERE.parent / "quickstart" / "questions.json").read_text(encoding="utf-8"))
        self._categories = {entry["name"]: entry for entry in spec["categories"][:categories]}
        self._topics = {
            entry["name"]: entry["topics"]
            for entry in topics["categories"]
            if entry["name"] in self._categories
        }
        self._held_out = topics["held_out_topics_per_category"]
        self._wordings, self._openers, self._closers = spec["wordings"], spec["openers"], spec["closers"]
        self.kinds: list[str] = spec["kinds"]
        self.reply_tokens: int = spec["reply_tokens"]  # enough for the longest reply and its end
        # Reply text -> (category, kind), for every answer, opener and closer.
        self._meaning = {
            self._reply(name, kind, opener, closer): (name, kind)
            for name in self._categories
            for kind in range(len(self.kinds))
            for opener in self._openers
            for closer in self._closers
        }

    # Prompts.

    def prompts_to_tune_on(self, draw: random.Random) -> list[Prompt]:
        """One prompt a topic in any wording: 300."""
        return [
            self._prompt(category, topic, draw.randrange(len(self._wordings)))
            for category, topics in self._topics.items()
            for topic in topics[: -self._held_out]
        ]

    def prompts_to_ask(self) -> list[Prompt]:
        """The 30 topics that tuning never sees, in every wording."""
        return [
            self._prompt(category, topic, wording)
            for category, topics in self._topics.items()
            for topic in topics[-self._held_out :]
            for wording in range(len(self._wordings))
        ]

    def _prompt(self, category: str, topic: str, wording: int) -> Prompt:
        return Prompt(f"{category}/{topic}/{wording}", category, self._wordings[wording].format(topic))

    # Replies.

    def reply(self, category: str, kind: int, draw: random.Random) -> str:
        return self._reply(category, kind, draw.choice(self._openers), draw.choice(self._closers))

    def replies(self, prompt: Prompt, count: int, draw: random.Random) -> tuple[list[str], list[int]]:
        """`count` valid replies of different kinds in random order, and their kinds, 0-based."""
        kinds = draw.sample(range(len(self.kinds)), count)
        return [self.reply(prompt.category, kind, draw) for kind in kinds], kinds

    def usual_reply(self, category: str, draw: random.Random) -> str:
        """As the model to start from replies: its favourite most of the time, now and then something
        invalid."""
        favourite = self._categories[category]["favourite"] - 1
        chance = draw.random()
        if chance < INVALID_SHARE:
            category = draw.choice([name for name in self._categories if name != category])
            return self.reply(category, draw.randrange(len(self.kinds)), draw)
        if chance < INVALID_SHARE + FAVOURITE_SHARE:
            return self.reply(category, favourite, draw)
        return self.reply(category, draw.choice([k for k in range(len(self.kinds)) if k != favourite]), draw)

    def _reply(self, category: str, kind: int, opener: str, closer: str) -> str:
        return f"{opener} {self._categories[category]['answers'][kind]}{closer}"

    # The texts for a model from nothing.

    def documents(self, draw: random.Random, templates: dict[str, dict]) -> list[tuple[str, str]]:
        """Pairs of a prompt, up to its last line break, and what stands behind, in the order to read them.

        `templates` (dialogue, list, rating) are those that prompts are made with later. Half of the replies
        have a number in their prompt that means nothing yet. The dictionary says in few words which category
        a topic is of, which replies alone teach slowly. Counting is where a number in the prompt matters: a
        model that never had to read it would not find it in tuning.
        """
        writers = {
            "replies": self._reply_pair,
            "dictionary": self._dictionary_pair,
            "lists": self._list_pair,
            "counts": self._count_pair,
            "ratings": self._rating_pair,
        }
        ordered = []
        for part in self._reading:
            pairs = [
                writers[kind](templates, category, topic, draw)
                for category, topics in self._topics.items()
                for topic in topics
                for kind, count in part.items()
                for _ in range(count)
            ]
            draw.shuffle(pairs)
            ordered += pairs
        return ordered

    def _reply_pair(self, templates, category: str, topic: str, draw: random.Random) -> tuple[str, str]:
        k = draw.choice([0, draw.randint(1, NUMBERS)])
        prompt = templates["dialogue"]["prompt_with_number" if k else "prompt"]
        return prompt.format(context=self._turn(topic, draw), k=k), self.usual_reply(category, draw)

    def _dictionary_pair(self, _templates, category: str, topic: str, draw: random.Random) -> tuple[str, str]:
        return f"About {topic}:\n", draw.choice(self._categories[category]["answers"])

    def _list_pair(self, templates, category: str, topic: str, draw: random.Random) -> tuple[str, str]:
        """Five different kinds in a list: a model that lists looks back at what stands there already."""
        kinds = draw.sample(range(len(self.kinds)), 5)
        return templates["list"]["prompt"].format(context=self._turn(topic, draw)), "\n".join(
            f"{place}. {self.reply(category, kind, draw)}" for place, kind in enumerate(kinds, 1)
        )

    def _count_pair(self, templates, _category: str, _topic: str, draw: random.Random) -> tuple[str, str]:
        k = draw.randint(1, NUMBERS)
        prompt = templates["dialogue"]["prompt_with_number"].format(context="A: Count the ways.", k=k)
        return prompt, " ".join(map(str, range(1, k + 1)))

    def _rating_pair(self, templates, category: str, topic: str, draw: random.Random) -> tuple[str, str]:
        """A reply and a rating of its coherence: high when valid, low when it is of another category."""
        valid = draw.random() < 0.5
        other = category if valid else draw.choice([name for name in self._categories if name != category])
        reply = self.reply(other, draw.randrange(len(self.kinds)), draw)
        prompt = templates["rating"]["prompt"].format(context=self._turn(topic, draw), response=reply)
        return prompt, str(GOOD if valid else BAD)

    def _turn(self, topic: str, draw: random.Random) -> str:
        return "A: " + draw.choice(self._wordings).format(topic)

    # Measuring.

    def meaning(self, text: str) -> tuple[str, int] | None:
        """(category, kind), or None when the text is no reply of the grammar."""
        return self._meaning.get(text.strip())

    def measure(self, lines: list[dict]) -> dict[str, float]:
        """Exact figures of `plural generate`'s lines, whose ids are those of the prompts.

        diversity: share of pairs of replies to one prompt with different meanings (two texts that do not
        parse differ unless they are equal). different: different valid answers per prompt.
        incoherent_percent: replies that do not parse or are of another category.
        """
        pairs = apart = wrong = total = different = 0
        for line in lines:
            category = line["id"].split("/")[0]
            texts = [response["text"].strip() for response in line["responses"]]
            meanings = [self.meaning(text) or ("", text) for text in texts]
            valid = [meaning for meaning in meanings if meaning[0] == category]
            different += len(set(valid))
            wrong += len(texts) - len(valid)
            total += len(texts)
            pairs += len(texts) * (len(texts) - 1) // 2
            apart += sum(a != b for a, b in combinations(meanings, 2))
        if not pairs:
            raise ValueError("diversity is undefined for one response a prompt")
        return {
            "diversity": apart / pairs,
            "different": different / len(lines),
            "incoherent_percent": 100 * wrong / total,
        }
