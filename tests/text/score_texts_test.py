"""`plural score` for texts: the ids that reach the compiled program, and what is passed on as it is."""

import json
import sys
import unittest

from text.answering import CHAT, AnsweringTest
from text.support import open_tokenizer, run, write_lines

# Keeps its command and the input that it was given.
PROGRAM = """#!{python}
import json, os, sys
path = sys.argv[sys.argv.index("--input") + 1] if "--input" in sys.argv else None
lines = open(path).read().split("\\n") if path and os.path.exists(path) else None
json.dump([sys.argv[1:], lines], open(os.environ["LOG"], "w"))
sys.exit(int(os.environ.get("CODE", 0)))
"""


class Score(AnsweringTest):
    def setUp(self):
        super().setUp()
        (self.folder / "program").write_text(PROGRAM.format(python=sys.executable))
        self.tokenizer = open_tokenizer(self.model)
        self.input = self.folder / "in.jsonl"

    def score(self, *lines, code=0, options=(), **environment):
        write_lines(self.input, list(lines))
        done = run(
            "score",
            *("--model", self.model, "--input", self.input, "-o", "out", "--threads", "2", *options),
            env=self.environment | environment,
        )
        self.assertEqual(done.returncode, code, done.stderr)
        if code:
            return done.stderr
        command, lines = json.loads(self.log.read_text())
        self.command_line = command
        return [json.loads(line) if line else "" for line in lines[:-1]]

    def text(self, ids):
        return self.tokenizer.decode(ids).decode()

    def test_a_text_as_it_stands(self):
        (line,) = self.score({"id": 7, "prompt": "Hello <|im_end|>", "response": " you <|im_end|>"})
        self.assertEqual(line["id"], 7)
        self.assertEqual(self.text(line["prompt_tokens"]), "<s>Hello <|im_end|>")
        end = self.tokenizer.id_of("<|im_end|>")
        self.assertEqual(line["prompt_tokens"][-1], end, "a special token in a prompt stands for it")
        self.assertEqual(self.text(line["response_tokens"]), " you <|im_end|>")
        self.assertNotIn(end, line["response_tokens"], "in a response it is plain text")
        self.assertEqual(self.command_line[:1], ["score"])
        for word in ("--threads", "2", "-o", "out", str(self.model)):
            self.assertIn(word, self.command_line)

    def test_messages(self):
        user, reply = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
        whole, split = self.score(
            {"id": "a", "messages": [user, reply]}, {"id": "a", "messages": [user], "response": "Ho"}
        )
        self.assertEqual(whole, split)
        prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        self.assertEqual(self.text(whole["prompt_tokens"]), prompt)
        self.assertEqual(self.text(whole["response_tokens"]), "Ho")

    def test_a_question_as_it_was_trained(self):
        self.trained()
        (line,) = self.score(
            {"id": "a", "question": "Hi", "responses": ["x", "y z"], "possibility": 3},
            options=("--adapter", self.adapter),
        )
        self.assertEqual(self.text(line["prompt_tokens"]), "<s>Person A: Hi\nPerson B, #3:")
        self.assertEqual([self.text(r["tokens"]) for r in line["responses"]], ["x", "y z"])
        self.assertEqual([(r["index"], r["possibility"]) for r in line["responses"]], [(0, 3), (1, 3)])
        self.assertIn(str(self.adapter), self.command_line)
        self.trained(CHAT)
        (line,) = self.score(
            {"question": "Hi", "response": "x", "possibility": 2}, options=("--adapter", self.adapter)
        )
        self.assertIn("Hi #2<|im_end|>", self.text(line["prompt_tokens"]))
        self.assertEqual(line["id"], "in.jsonl:1")

    def test_lines_keep_their_numbers(self):
        record = {"id": "a", "prompt": "x", "response": "y"}
        lines = self.score("", record, "", "", record)
        self.assertEqual([bool(line) for line in lines], [False, True, False, False, True])

    def test_ids_and_answers_are_passed_on(self):
        for record in (
            {"id": 1, "prompt_tokens": [3], "response_tokens": [4]},
            {
                "id": "q",
                "prompt": "x",
                "prompt_tokens": [3],
                "responses": [{"tokens": [4], "tail_tokens": [5]}],
            },
        ):
            self.assertEqual(self.score(record), [record])
            self.assertIn(str(self.input), self.command_line)
        error = self.score(record, code=64, options=("--tokenizer", self.model))
        self.assertIn("--tokenizer is for lines of text", error)

    def test_the_programs_own_words(self):
        self.assertEqual(self.score({"prompt": "x", "response": "y"}, code=77, CODE="77"), "")
        done = run("score", "--help", env=self.environment)
        self.assertEqual((done.returncode, json.loads(self.log.read_text())[0]), (0, ["score", "--help"]))

    def test_mistakes(self):
        first = {"id": "a", "prompt": "x", "response": "y"}
        for record, words in (
            ({"prompt": "x"}, "key 'response' is missing"),
            ({"prompt": "x", "question": "x", "response": "y"}, "needs one of the keys"),
            ({"prompt": "x", "response": ""}, "response 1 has no tokens"),
            ({"prompt": 1, "response": "y"}, "key 'prompt' holds a number"),
            ({"prompt": "x", "responses": []}, "'responses' must hold a list"),
            ({"prompt": "x", "responses": [{"tokens": [1]}]}, "answers of an earlier version"),
            ({"prompt_tokens": [1], "response_tokens": [1]}, "a file has one of the two"),
            ({"id": [], "prompt": "x", "response": "y"}, "key 'id' holds a list"),
            ({"question": " ", "response": "y"}, "'question' is empty"),
            ({"question": "x", "response": "y", "possibility": -1}, "'possibility' holds -1"),
            ({"messages": [{"role": "user", "content": "x"}]}, "do not end with one"),
            ({"messages": [], "response": "y"}, "must end with the user's"),
            ({"messages": "x", "response": "y"}, "must hold a list of"),
        ):
            with self.subTest(words):
                error = self.score(first, record, code=65)
                self.assertIn("in.jsonl:2: ", error)
                self.assertIn(words, error)
                self.assertEqual(error.count("\n"), 1)
                self.assertFalse(self.log.exists(), "the program was started")


if __name__ == "__main__":
    unittest.main()
