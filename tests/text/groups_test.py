"""Records to token ids: full prompts, what is shared, trimming, truncation, prefix-free target sets."""

import json
import random
import unittest

from plural_text.common.errors import BadData
from plural_text.prepare import groups
from plural_text.prepare.formats import Record
from plural_text.prepare.groups import GroupBuilder, Limits
from plural_text.prepare.masks import MaskBuilder, StopWords
from plural_text.prepare.templates import open_template
from text.support import MISTRAL_V1, TEKKEN, FolderTest, PieceTokenizer, byte_level_folder, open_tokenizer


class Builders(FolderTest):
    def builder(self, template, source_format="dialogue", tokenizer=None, **limits):
        tokenizer = tokenizer or open_tokenizer(MISTRAL_V1)
        limits = Limits(**{"possibilities": 9 if source_format == "dialogue" else 0, **limits})
        self.tokenizer = tokenizer
        self.template = open_template(template, source_format, tokenizer)
        return GroupBuilder(tokenizer, self.template, MaskBuilder(tokenizer, StopWords()), limits)

    def refused(self, builder, record, *words):
        with self.assertRaises(BadData) as caught:
            builder.build([record])
        for word in (record.where, *words):
            self.assertIn(word, str(caught.exception))


class Prompts(Builders):
    def test_a_full_prompt_has_the_ids_of_its_whole_text(self):
        for tokenizer in (
            open_tokenizer(MISTRAL_V1),
            open_tokenizer(TEKKEN),
            open_tokenizer(byte_level_folder(self.folder / "model")),
        ):
            builder = self.builder("mistral-dialogue", tokenizer=tokenizer, possibilities=12)
            (group,) = builder.build([Record("g", "f:1", ["Hello.", "Hi 3 times"], ["Yes.", "No"])])
            for k, tail in enumerate(group.tails):
                text = self.template.render(["Hello.", "Hi 3 times"], k)
                self.assertEqual(
                    group.prompt + tail, [tokenizer.bos_id, *tokenizer.encode_prompts([text])[0]]
                )
            self.assertEqual(len(group.tails), 13)
            # As much as possible is shared: not all tails begin with the same token.
            self.assertNotEqual(len({tuple(tail[:1]) for tail in group.tails}), 1)
            self.assertEqual(
                group.responses, [[*ids, tokenizer.eos_id] for ids in tokenizer.encode_text(["Yes.", "No"])]
            )
            self.assertEqual([mask[-1] for mask in group.masks], [0, 0])
            self.assertEqual([len(m) for m in group.masks], [len(r) for r in group.responses])

    def test_the_prompt_is_what_all_full_prompts_share_and_no_less(self):
        file = self.folder / "one.json"
        file.write_text(
            json.dumps(
                {
                    "name": "one",
                    "format": "dialogue",
                    "prompt": "{context} #1.",
                    "prompt_with_number": "{context} #{k}.",
                }
            )
        )
        (group,) = self.builder(str(file), possibilities=3).build([Record("g", "f:1", ["Why?"])])
        # The prompt without a number equals that of number 1; the others branch off before it.
        self.assertEqual(group.tails[0], group.tails[1])
        self.assertEqual(len({tail[0] for tail in group.tails}), 3)
        self.assertEqual(self.tokenizer.decode(group.prompt), b"<s> Why? #")

    def test_without_numbers_all_is_prompt(self):
        (group,) = self.builder("question", possibilities=0).build([Record("g", "f:1", ["Why?"])])
        self.assertEqual((group.tails, group.responses, group.weights), ([[]], [], []))
        self.assertEqual(group.prompt, [1, *self.tokenizer.encode_text(["Why?"])[0]])

    def test_the_begin_token_is_not_doubled(self):
        folder = byte_level_folder(self.folder / "model")
        (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[-1].content }}")
        builder = self.builder(None, "chat", open_tokenizer(folder))
        (group,) = builder.build([Record("g", "f:1", [{"role": "user", "content": "dogs"}], ["the"])])
        self.assertEqual(group.prompt, [0, *self.tokenizer.encode_text(["dogs"])[0]])

    def test_response_prefix_is_part_of_the_prompt(self):
        (group,) = self.builder("mistral-targets", "targets").build(
            [Record("g", "f:1", ["Pick."], ["{a}", "{b}"], None, "Sure: ")]
        )
        self.assertEqual(group.prompt, [1, *self.tokenizer.encode_text(["[INST] Pick. [/INST]Sure: "])[0]])

    def test_trimming_drops_whole_oldest_turns_and_keeps_the_labels(self):
        turns = ["word " * 30 + "old", "word " * 30 + "middle", "last?"]
        (free,) = self.builder("plain-dialogue").build([Record("g", "f:1", turns)])
        longest = len(free.prompt) + max(map(len, free.tails))
        builder = self.builder("plain-dialogue", max_prompt_tokens=longest - 1)
        (cut,) = builder.build([Record("g", "f:1", turns)])
        text = self.tokenizer.decode(cut.prompt + cut.tails[0]).decode()
        self.assertTrue(text.startswith("<s> Person B: word"), text)
        self.assertTrue(text.endswith("Person A: last?\nPerson B:"), text)
        self.assertEqual(builder.changes.trimmed_prompts, 1)
        same = self.builder("plain-dialogue", max_prompt_tokens=longest)
        self.assertEqual(same.build([Record("g", "f:1", turns)]), [free])
        self.assertEqual(same.changes.trimmed_prompts, 0)

    def test_a_last_turn_that_does_not_fit_is_refused(self):
        self.refused(
            self.builder("plain-dialogue", max_prompt_tokens=20),
            Record("g", "f:7", ["a", "word " * 30]),
            "--max-prompt-tokens allows 20",
        )
        self.refused(
            self.builder("mistral-targets", "targets", max_prompt_tokens=5),
            Record("g", "f:7", ["one two three"], ["a"]),
            "--max-prompt-tokens",
        )

    def test_a_group_that_no_reader_takes(self):
        limit, groups._MAX_GROUP_TOKENS = groups._MAX_GROUP_TOKENS, 50
        self.addCleanup(setattr, groups, "_MAX_GROUP_TOKENS", limit)
        self.refused(self.builder("question"), Record("g", "f:7", ["word " * 60], ["a"]), "at most 50")

    def test_tokens_lost_by_an_early_number(self):
        file = self.folder / "early.json"
        file.write_text(
            json.dumps(
                {
                    "name": "early",
                    "format": "dialogue",
                    "prompt": "{context}\nGo.",
                    "prompt_with_number": "{k}\n{context}\nGo.",
                }
            )
        )
        builder = self.builder(str(file), possibilities=4)
        context = "one two three four five six"
        builder.build([Record("g", "f:1", [context])])
        # By hand: now every number has its own copy of the context; with the number last only the number
        # and its space are its own.
        encode = lambda text: [1, *self.tokenizer.encode_text([text])[0]]
        early = [encode(f"{k}\n{context}\nGo.") for k in range(1, 5)]
        late = [encode(f"\n{context}\nGo. {k}") for k in range(1, 5)]
        count = lambda rows: len({tuple(row[:n]) for row in rows for n in range(1, len(row) + 1)})
        self.assertEqual(builder.changes.prompt_tokens_lost, count(early) - count(late))
        self.assertGreater(builder.changes.prompt_tokens_lost, 3 * 6)


class Responses(Builders):
    def test_cut_after_the_last_allowed_word_with_the_end_token(self):
        builder = self.builder("question", max_response_words=3)
        (group,) = builder.build([Record("g", "f:1", ["Why?"], ["a  b\nc d", "a b c ", "a b"])])
        self.assertEqual(
            [self.tokenizer.decode(r) for r in group.responses],
            [b" a  b\nc</s>", b" a b c </s>", b" a b</s>"],
        )
        self.assertEqual(builder.changes.truncated_responses, 1)

    def test_without_end_token(self):
        (group,) = self.builder("mistral-targets", "targets").build(
            [Record("g", "f:1", ["Pick."], ["{a}", "{b}"], [1.0, 3.0], eos=False)]
        )
        self.assertEqual(group.responses, self.tokenizer.encode_text(["{a}", "{b}"]))
        self.assertEqual(group.weights, [1.0, 3.0])

    def test_weights_are_one_unless_given(self):
        (group,) = self.builder("mistral-targets", "targets").build(
            [Record("g", "f:1", ["Pick."], ["a", "b"])]
        )
        self.assertEqual(group.weights, [1.0, 1.0])

    def test_end_token_inside_a_response(self):
        tokenizer = PieceTokenizer([" a", " b", "c", " #", "1", "</s>"])
        tokenizer.eos_id = 5  # a tokenizer that reads its end token from plain text
        self.refused(
            self.builder("question", tokenizer=tokenizer, possibilities=1),
            Record("g", "f:3", ["a"], ["b</s>c"]),
            "holds the end token '</s>'",
        )


class PrefixFree(Builders):
    def test_numbers_need_the_end_token(self):
        numbers = [str(n) for n in range(1, 11)]
        builder = self.builder("mistral-targets", "targets")
        self.assertEqual(len(builder.build([Record("g", "f:1", ["Pick."], numbers)])[0].responses), 10)
        self.refused(
            builder,
            Record("g", "f:1", ["Pick."], numbers, eos=False),
            "targets[0] '1'",
            "targets[9] '10'",
            "beginning",
        )

    def test_equal_targets(self):
        self.refused(
            self.builder("mistral-targets", "targets"),
            Record("g", "f:1", ["Pick."], ["b", "a", " b"]),
            "targets[0] 'b'",
            "targets[2] ' b'",
            "same tokens",
        )

    def test_equal_responses_of_a_dialogue_are_fine(self):
        (group,) = self.builder("question").build([Record("g", "f:1", ["Why?"], ["b", "b"])])
        self.assertEqual(group.responses[0], group.responses[1])

    def test_against_all_pairs(self):
        draw = random.Random(1)
        builder = self.builder("mistral-targets", "targets")
        found = 0
        for _ in range(300):
            targets = [
                "".join(draw.choice("ab\n") for _ in range(draw.randint(1, 5))) + "." for _ in range(4)
            ]
            targets = [t[:-1] if draw.random() < 0.5 else t for t in targets if t.strip()]
            if not targets:
                continue
            ids = self.tokenizer.encode_text(targets)
            clash = any(i != j and b[: len(a)] == a for i, a in enumerate(ids) for j, b in enumerate(ids))
            try:
                builder.build([Record("g", "f:1", ["Pick."], targets, eos=False)])
                self.assertFalse(clash, targets)
            except BadData:
                self.assertTrue(clash, targets)
            found += clash
        self.assertTrue(30 < found < 290, found)  # both kinds were seen


class PlainText(Builders):
    def test_pieces_join_to_the_document(self):
        for length in (2, 7, 1000):
            builder = self.builder(None, "text", max_length_tokens=length)
            document = "The quick brown fox\njumps over the lazy dog. " * 3
            pieces = builder.build([Record("doc", "f", [document])])
            whole = [*self.tokenizer.encode_text([document])[0], 2]
            self.assertEqual([t for g in pieces for t in g.responses[0]], whole)
            sizes = [len(g.responses[0]) for g in pieces]
            self.assertLessEqual(max(sizes), length - 1)
            self.assertLessEqual(max(sizes) - min(sizes), 1)
            self.assertTrue(all(g.prompt == [1] and g.tails == [[]] for g in pieces))
            self.assertEqual([g.id for g in pieces], [f"doc:{n}" for n in range(1, len(pieces) + 1)])

    def test_without_a_begin_token_the_end_token_begins(self):
        folder = byte_level_folder(self.folder / "model")
        (folder / "tokenizer_config.json").write_text('{"bos_token": null, "eos_token": "<end>"}')
        (piece,) = self.builder(None, "text", open_tokenizer(folder)).build([Record("doc", "f", ["dogs"])])
        self.assertEqual(piece.prompt, [1])


if __name__ == "__main__":
    unittest.main()
