"""Chat records in other programs' shapes: what becomes the prompt, what the response, what is refused."""

import unittest

from plural_text.common.errors import BadData
from plural_text.prepare.formats import InputFiles
from text.support import MISTRAL_V3, FolderTest, read_corpus, write_lines


def says(role, content):
    return {"role": role, "content": content}


USER, REPLY, MORE = says("user", "Hi."), says("assistant", "Ho."), says("user", "And?")


class Shapes(FolderTest):
    def read(self, *records, **options):
        file = write_lines(self.folder / "c.jsonl", list(records))
        self.notes = []
        inputs = InputFiles([str(file)], "chat", self.notes.append, **options)
        found = [(record.turns, record.responses) for record in inputs]
        self.shapes = dict(inputs.shapes)
        return found

    def refused(self, record, *words):
        with self.assertRaises(BadData) as caught:
            self.read(record)
        for word in ("c.jsonl:1: ", *words):
            self.assertIn(word, str(caught.exception))

    def test_our_own(self):
        self.assertEqual(
            self.read({"messages": [USER, REPLY, MORE], "responses": ["a"]}), [([USER, REPLY, MORE], ["a"])]
        )
        self.assertEqual(self.read({"messages": [USER]}), [([USER], None)])
        self.assertEqual(self.shapes, {})

    def test_messages_that_end_with_the_assistant(self):
        system = says("system", "Be kind.")
        found = self.read(
            {"messages": [system, USER, REPLY, MORE, says("assistant", "End.")], "prompt": "Hi."}
        )
        self.assertEqual(found, [([system, USER, REPLY, MORE], ["End."])])
        self.assertEqual(self.shapes, {"conversations that end with the assistant": 1})
        self.assertIn("'prompt'", self.notes[0])

    def test_sharegpt(self):
        turns = [("system", "Be kind."), ("human", "Hi."), ("gpt", "Ho."), ("human", "And?"), ("gpt", "End.")]
        record = {"conversations": [{"from": who, "value": text} for who, text in turns], "id": "x"}
        roles = {"conversations": [{**USER, "weight": 1}, REPLY]}
        found = self.read(record, roles)
        self.assertEqual(found[0], ([says("system", "Be kind."), USER, REPLY, MORE], ["End."]))
        self.assertEqual(found[1], ([USER], ["Ho."]))
        self.assertEqual(self.shapes, {"ShareGPT conversations": 2})
        self.assertIn("'conversations[].weight' is passed over", self.notes[0])

    def test_alpaca(self):
        found = self.read(
            {"instruction": "Add.", "input": "1, 2", "output": "3"},
            {"instruction": "Name one.", "input": "", "output": "Plum.", "system": "Be kind."},
            {"instruction": "Name one.", "output": "Quince."},
        )
        self.assertEqual(found[0], ([says("user", "Add.\n\n1, 2")], ["3"]))
        self.assertEqual(found[1], ([says("system", "Be kind."), says("user", "Name one.")], ["Plum."]))
        self.assertEqual(found[2], ([says("user", "Name one.")], ["Quince."]))

    def test_prompts_with_an_answer(self):
        found = self.read(
            {"prompt": "Hi.", "completion": "Ho."},
            {"prompt": [USER], "completion": [REPLY]},
            {"prompt": "Hi.", "chosen": "Ho.", "rejected": "No."},
            {"prompt": "Hi.", "chosen": [USER, REPLY], "rejected": [USER, says("assistant", "No.")]},
            {"chosen": [USER, REPLY], "rejected": [USER, says("assistant", "No.")]},
        )
        self.assertEqual(found, [([USER], ["Ho."])] * 5)
        self.assertEqual((sum(self.shapes.values()), self.notes), (5, []))

    def test_prompts_only(self):
        found = self.read(
            {"conversations": [{"from": "human", "value": "Hi."}]},
            {"messages": [USER, REPLY]},
            {"prompt": "Hi."},
            {"instruction": "Hi.", "output": ""},
            prompts_only=True,
        )
        self.assertEqual(found, [([USER], None)] * 4)

    def test_refused(self):
        human, gpt = {"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Ho."}
        self.refused(
            {"conversations": [human]}, "ends with the user's turn, the assistant's answer is missing"
        )
        self.refused(
            {"conversations": [human, human, gpt]}, "conversations[1] is the user's", "assistant is due"
        )
        self.refused({"conversations": [gpt]}, "conversations[0] is the assistant's")
        self.refused({"conversations": []}, "'conversations' must hold a list")
        self.refused({"conversations": [{"from": "tool", "value": "x"}]}, "from 'tool', allowed: human, gpt")
        self.refused({"conversations": [{"from": "human"}]}, "must be an object with 'from' and 'value'")
        self.refused({"conversations": [human, {"from": "gpt", "value": ""}]}, "responses[0] is empty")
        self.refused({"messages": [USER, REPLY, REPLY]}, "messages[2] is the assistant's", "user is due")
        self.refused({"messages": [says("system", "s"), REPLY]}, "messages[1] is the assistant's")
        self.refused({"instruction": "a"}, "key 'output' is missing", "--prompts-only")
        self.refused({"instruction": "a", "output": " "}, "key 'output' is empty")
        self.refused({"instruction": 1, "output": "a"}, "'instruction' holds a number")
        self.refused({"prompt": "a", "completion": 3}, "'completion' holds a number")
        self.refused({"prompt": 3, "completion": "a"}, "'prompt' holds a number")
        self.refused({"chosen": "a", "rejected": "b"}, "'chosen' holds a text and there is no 'prompt'")
        self.refused({"text": "a"}, "'messages' must hold a list")


class OtherFormats(FolderTest):
    def test_the_format_that_reads_them_is_named(self):
        turns = [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Ho."}]
        for source_format, record, name in (
            ("dialogue", {"conversations": turns}, "ShareGPT conversations"),
            ("targets", {"instruction": "a", "output": "b"}, "Alpaca records"),
        ):
            file = write_lines(self.folder / "c.jsonl", [record])
            with self.assertRaises(BadData) as caught:
                list(InputFiles([str(file)], source_format, print))
            self.assertIn(f"these are {name}; --format chat reads them", str(caught.exception))


class Command(FolderTest):
    def test_grouped_and_said(self):
        turns = lambda text: [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": text}]
        lines = [{"conversations": turns("One.")}, {"instruction": "Hi.", "output": "Two."}]
        file = write_lines(self.folder / "c.jsonl", [*lines, {"conversations": turns("Three.")}])
        template = self.folder / "t.jinja"
        template.write_text(
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
            "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
        )
        usual = (file, "--tokenizer", MISTRAL_V3, "--format", "chat", "--template", template)
        done = self.prepare(*usual, "--group-by-prompt")
        self.assertEqual(
            done.stderr,
            "plural: reads 2 ShareGPT conversations\nplural: reads 1 Alpaca records\n"
            "plural: 2 records joined an earlier one with the same prompt\n",
        )
        _, (group,), vocabulary = read_corpus(self.folder / "corpus.h5")
        text = [b"".join(vocabulary[i] for i in ids).strip() for ids in group.responses]
        self.assertEqual((group.id, text), ("c:1", [b"One.</s>", b"Two.</s>", b"Three.</s>"]))
        self.assertEqual(self.prepare(*usual, "--quiet").stderr, "")
        self.assertEqual(len(read_corpus(self.folder / "corpus.h5")[1]), 3)


if __name__ == "__main__":
    unittest.main()
