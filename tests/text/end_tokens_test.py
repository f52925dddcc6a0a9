"""End tokens: which one is trained, which ones end a response, what is said about contradictions."""

import itertools
import json
import unittest

from plural_text.prepare.chat_turn import ChatTurn
from plural_text.prepare.corpus_check import CorpusCheck
from plural_text.prepare.end_tokens import find_end_tokens
from plural_text.prepare.formats import Record
from plural_text.prepare.groups import Group
from plural_text.prepare.templates import open_template
from text.support import FolderTest, open_tokenizer, read_corpus, write_lines
from text.tiny_tokenizers import TEMPLATES, byte_level

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


class EndTokenTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.open()

    def open(self, template=TEMPLATES["chatml"]):
        self.model = byte_level(
            self.folder / "model", SPECIAL, {"bos_token": None, "eos_token": "<|endoftext|>"}, template
        )
        self.tokenizer = open_tokenizer(self.model)
        self.end, self.start, self.turn_end = map(self.tokenizer.id_of, SPECIAL)
        self.template = open_template(None, "chat", self.tokenizer)

    def beside(self, name, value):
        (self.model / name).write_text(json.dumps({"eos_token_id": value}))


class Sets(EndTokenTest):
    def find(self, written=None, is_option=False):
        self.warned = []
        return find_end_tokens(self.tokenizer, written, is_option, self.warned.append)

    def test_the_trained_one_first_and_none_twice(self):
        self.beside("generation_config.json", [self.end, 5])
        self.beside("config.json", 5)
        found = self.find(self.turn_end)
        self.assertEqual((found.ids, found.source), ([self.turn_end, self.end, 5], "template"))
        self.assertIn("'<|im_end|>'", found.line(self.tokenizer))
        self.assertIn("also '<|endoftext|>'", found.line(self.tokenizer))
        self.assertEqual((self.find().ids, self.find().source), ([self.end, 5], "tokenizer"))
        self.assertEqual(self.warned, [])

    def test_an_option_is_the_only_one(self):
        self.beside("generation_config.json", [5])
        found = self.find(self.turn_end, is_option=True)
        self.assertEqual((found.ids, found.source, self.warned), ([self.end], "--eos", []))

    def test_contradictions_are_told(self):
        self.beside("generation_config.json", 5)
        self.assertEqual(self.find().ids, [self.end, 5])
        (line,) = self.warned
        for words in ("tokenizer_config.json", "generation_config.json", "<|endoftext|>", "eos_token_id 5"):
            self.assertIn(words, line)
        self.beside("generation_config.json", [self.end, 10_000])
        self.assertEqual(self.find().ids, [self.end])
        self.assertRegex(self.warned[0], "eos_token_id 10000 is outside the vocabulary")

    def test_what_a_template_writes_behind_a_response(self):
        self.assertEqual(ChatTurn(self.template, self.tokenizer).end_id, self.turn_end)
        for jinja, expected in (
            ("{% for m in messages %}{{ m.content }}\n<|im_end|>{% endfor %}", self.turn_end),
            ("{% for m in messages %}{{ m.content }} End.<|im_end|>{% endfor %}", None),
            ("{{ raise_exception('no') }}", None),
            ("nothing of the messages", None),
        ):
            self.open(jinja)
            self.assertEqual(ChatTurn(self.template, self.tokenizer).end_id, expected, jinja)


class Commands(EndTokenTest):
    def prepare_chat(self, *options):
        row = {"messages": [{"role": "user", "content": "Hello!"}], "responses": ["Fine.", "Plum."]}
        file = write_lines(self.folder / "in.jsonl", [row])
        done = self.prepare(file, "--tokenizer", self.model, "--format", "chat", *options)
        return done, *read_corpus(self.folder / "corpus.h5")[:2]

    def test_the_corpus_names_them(self):
        done, attributes, (group,) = self.prepare_chat()
        self.assertEqual(attributes["end_token_ids"], [self.turn_end, self.end])
        self.assertEqual(attributes["eos_token_id"], self.turn_end)
        self.assertEqual([row[-1] for row in group.responses], [self.turn_end] * 2)
        self.assertEqual(attributes["largest_token_id"], self.turn_end)
        self.assertRegex(
            done.stdout, r"\nend tokens +'<\|im_end\|>' \(\d+\) is trained, from template; also "
        )
        self.assertEqual(done.stderr, "")

    def test_eos_overrides(self):
        _, attributes, (group,) = self.prepare_chat("--eos", "<|endoftext|>")
        self.assertEqual((attributes["end_token_ids"], attributes["eos_token_id"]), ([self.end], self.end))
        self.assertEqual(group.responses[0][-1], self.end)

    def test_a_clock_is_told(self):
        self.open("{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}" + TEMPLATES["chatml"])
        done, *_ = self.prepare_chat("--quiet")
        self.assertRegex(done.stderr, r"^plural: warning: .*strftime_now.*\n$")


class Checks(EndTokenTest):
    def report(self, check):
        lines = []
        check.report(lines.append)
        return lines

    def test_bytes_that_are_not_what_the_library_decodes(self):
        ids = self.tokenizer.encode_text(["Name a fruit."])[0]
        check = CorpusCheck(self.tokenizer, self.template)
        check.add(Record("g", "f:1", [], []), Group("g", ids, [[]]))
        self.assertEqual(self.report(check), [])
        self.tokenizer.token_bytes[ids[-1]] = b"?"
        self.assertRegex(self.report(check)[0], r"^group g: .* spell '\?' where .* decodes '\.'")

    def test_a_response_that_the_template_writes_otherwise(self):
        turns = [{"role": "user", "content": "Hello!"}]
        prompt = self.tokenizer.encode_prompts([self.template.render(turns, 0)])[0]
        answer = self.tokenizer.encode_text(["Fine."])[0]
        for end, lines in ((self.turn_end, 0), (self.end, 1)):
            check = CorpusCheck(self.tokenizer, self.template)
            group = Group("g", prompt, [[]], [[*answer, end]])
            check.add(Record("g", "f:7", turns, ["Fine."]), group)
            self.assertEqual(len(self.report(check)), lines)
        place = len(prompt) + len(answer)
        self.assertRegex(self.report(check)[0], rf"^f:7: .* from token {place} on: '<\|endoftext\|>' is ")

    def test_the_sample_is_spread_over_the_corpus(self):
        check = CorpusCheck(self.tokenizer, self.template)
        for i in range(1000):
            check.add(None, Group(str(i), [i], [[]]))
        kept = [int(group.id) for _, group in check._sample]
        self.assertTrue(16 <= len(kept) <= 32 and kept[0] == 0 and kept[-1] > 900, kept)
        self.assertEqual(len({b - a for a, b in itertools.pairwise(kept)}), 1, kept)


if __name__ == "__main__":
    unittest.main()
