"""`plural ask`: the prompt that a model was trained with, numbers, dialogues, mistakes; with a made model."""

import json
import unittest

from plural_text.ask.choices import Choice, parse_choice
from plural_text.common.errors import UsageError
from text.answering import CHAT, AnsweringTest, older_run
from text.support import open_tokenizer, run


class Choices(unittest.TestCase):
    def test_samples_differ_until_all_are_drawn(self):
        drawn = Choice("sample").numbers(7, 3, "key")
        self.assertEqual([sorted(drawn[:3]), sorted(drawn[3:6])], [[1, 2, 3]] * 2)
        self.assertEqual(drawn, Choice("sample").numbers(7, 3, "key"))
        keys = {tuple(Choice("sample").numbers(3, 3, str(i))) for i in range(40)}
        self.assertEqual(len(keys), 6, "every order is drawn")

    def test_words(self):
        self.assertEqual(parse_choice("-p", "first").numbers(4, 3, ""), [1, 2, 3, 1])
        self.assertEqual(parse_choice("-p", "none").numbers(2, 3, ""), [0, 0])
        self.assertEqual(parse_choice("-p", "4,1").numbers(3, 9, ""), [4, 1, 4])
        for text in ("", "0", "1,", "-1", "one", "1.5", "\u0661"):
            with self.assertRaises(UsageError, msg=text):
                parse_choice("-p", text)


class Ask(AnsweringTest):
    def ask(self, *arguments, code=0, adapter=True, model=None, **environment):
        folders = ["--model", model or self.model, *(["--adapter", self.adapter] if adapter else [])]
        done = run("ask", *folders, *arguments, env=self.environment | environment)
        self.assertEqual(done.returncode, code, done.stderr)
        if code:
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            return done.stderr
        self.notes = done.stderr
        return done.stdout

    def prompts(self, request) -> list[str]:
        tokenizer = open_tokenizer(self.model)
        tails = request.get("tails") or [[]] * request.get("responses", 1)
        return [tokenizer.decode(request["prompt_tokens"] + tail).decode() for tail in tails]

    def test_numbers_of_the_adapter(self):
        self.trained()
        printed = self.ask("Hello!", "--quiet").splitlines()
        prompts = self.prompts(self.requests()[0])
        expected = [f"<s>Person A: Hello!\nPerson B, #{k}:" for k in (1, 2, 3, 4)]
        self.assertEqual(sorted(prompts[:4]), expected, "each number once before any comes again")
        self.assertEqual(len(prompts), 5)
        for line, prompt in zip(printed, prompts, strict=True):
            number = prompt[-2]
            self.assertEqual(line, f"#{number}  #{number}:")
        self.assertEqual(self.notes, "")
        self.assertIn(str(self.adapter), self.command())

    def test_numbers_that_are_named(self):
        self.trained()
        self.ask("Hello!", "--possibilities", "3,1")
        self.ask("Hello!", "--possibilities", "none", "-n", "2")
        self.ask("Hello!", "--possibilities", "first", "-n", "6")
        named, none, first = map(self.prompts, self.requests())
        self.assertEqual([text[-3:] for text in named], ["#3:", "#1:"])
        self.assertEqual(none, ["<s>Person A: Hello!\nPerson B:"] * 2)
        self.assertEqual([text[-2] for text in first], list("123412"))

    def test_earlier_turns_are_lines(self):
        self.trained()
        self.ask("Hi\n\nHello\nWhy?", "-n", "1")
        text = self.prompts(self.requests()[0])[0]
        self.assertTrue(text.startswith("<s>Person A: Hi\nPerson B: Hello\nPerson A: Why?\n"), text)

    def test_a_chat_template_with_numbers(self):
        self.trained(CHAT)
        self.ask("Name a fruit", "--possibilities", "2", "--system", "Be brief.")
        self.assertEqual(
            self.prompts(self.requests()[0]),
            [
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nName a fruit #2<|im_end|>\n"
                "<|im_start|>assistant\n"
            ],
        )

    def test_a_model_that_does_not_say(self):
        self.ask("Hi", "-n", "1", adapter=False)
        self.assertIn("template chat, no possibility numbers", self.notes)
        (self.model / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>", "bos_token": "<s>"}')
        self.ask("Hi", "-n", "1")
        self.assertIn("does not say which prompts it was trained with; plain-dialogue is used", self.notes)
        chat, plain = map(self.prompts, self.requests())
        self.assertEqual(chat, ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"])
        self.assertEqual(plain, ["<s>Person A: Hi\nPerson B:"])

    def test_an_older_run(self):
        """Its recipe and corpus say what plural.json would."""
        older_run(self.folder, self.adapter)
        self.ask("Hi", "--possibilities", "3")
        self.assertIn("recipe.yaml", self.notes)
        self.assertEqual(self.prompts(self.requests()[0]), ["<s>Hi, number 3"])

    def test_latents(self):
        self.trained(method="cvf", possibilities=0, latents=3)
        printed = self.ask("Hi", "-n", "3", "--quiet").splitlines()
        request = self.requests()[0]
        self.assertEqual(sorted(request["latents"]), [1, 2, 3])
        self.assertEqual(
            [line.split("  ")[0] for line in printed], [f"latent {k}" for k in request["latents"]]
        )

    def test_settings_reach_the_model(self):
        options = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "max_new_tokens": 9, "seed": 5}
        words = [w for key, value in options.items() for w in ("--" + key.replace("_", "-"), value)]
        self.ask("Hi", *words, "-n", "2", adapter=False)
        request = self.requests()[0]
        self.assertEqual({key: request[key] for key in options}, options)
        self.ask("Hi", adapter=False)
        self.assertEqual(self.requests()[1]["max_new_tokens"], 100, "half of the model's context")

    def test_how_it_is_computed_reaches_the_model(self):
        options = {"--device": "cuda", "--dtype": "bf16", "--quantize": "nf4", "--threads": "3"}
        self.ask("Hi", *(word for option in options.items() for word in option), adapter=False)
        words = self.command()
        self.assertEqual({option: words[words.index(option) + 1] for option in options}, options)

    def test_what_is_printed(self):
        self.trained()
        self.ask("a\x1b[31mb", "-n", "1", "--show-prompt", "--max-new-tokens", "2")
        self.assertIn('"<s>Person A: a\\u001b[31mb', self.notes)
        self.assertIn("1 of 1 answer was cut at 2 tokens", self.notes)
        line = json.loads(self.ask("Hi", "--json", "--possibilities", "3,4"))
        (request,) = self.requests()[1:]
        self.assertEqual([r["possibility"] for r in line["responses"]], [3, 4])
        for response, tail in zip(line["responses"], request["tails"], strict=True):
            self.assertEqual(line["prompt_tokens"] + response["tail_tokens"], request["prompt_tokens"] + tail)
            k = response["possibility"]
            self.assertEqual(line["prompt"] + response["tail"], f"<s>Person A: Hi\nPerson B, #{k}:")

    def test_signs_that_steer_a_terminal(self):
        printed = self.ask("x\x1b[2Jy", "-n", "1", "--quiet", "--template", "text", adapter=False, READ="9")
        self.assertNotIn("\x1b", printed)
        self.assertIn("x\\x1b[2Jy", printed)

    def test_a_dialogue(self):
        self.trained()
        spoken = "Hi\n/again\n\nWhy?\n/nonsense\n/new\nAnew\n/quit\nnever\n"
        done = run(
            "ask",
            *("--model", self.model, "--adapter", self.adapter, "--chat", "--possibilities", "2,3"),
            env=self.environment,
            input=spoken,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        prompts = [self.prompts(request)[0] for request in self.requests()]
        self.assertEqual(
            prompts,
            [
                "<s>Person A: Hi\nPerson B, #2:",
                "<s>Person A: Hi\nPerson B, #2:",
                "<s>Person A: Hi\nPerson B: #2:\nPerson A: Why?\nPerson B, #2:",
                "<s>Person A: Anew\nPerson B, #2:",
            ],
        )
        self.assertEqual(len({request["id"] for request in self.requests()}), 4, "draws of their own")
        self.assertEqual(done.stdout, "#2  #2:\n" * 4)
        self.assertIn("/again", done.stderr)

    def test_turns_without_room(self):
        self.trained()
        words = "\n".join(f"turn {i}" for i in range(100))
        self.ask(words, "-n", "1")
        self.assertIn("oldest", self.notes)
        text = self.prompts(self.requests()[0])[0]
        self.assertTrue(text.endswith("turn 99\nPerson B, #" + text[-2] + ":"), text)
        self.assertLess(len(self.requests()[0]["prompt_tokens"]), 100)
        error = self.ask("word " * 300, code=65)
        self.assertIn("the model has room for 100", error)

    def test_mistakes(self):
        self.trained()
        for words, arguments, code, options in (
            ("give a question", [], 64, {}),
            ("the question is empty", [" "], 64, {}),
            ("leave out a question", ["--chat", "Hi"], 64, {}),
            ("trained with the numbers 1 to 4", ["Hi", "--possibilities", "5"], 64, {}),
            ("has no place for a possibility", ["Hi", "--possibilities", "1", "--template", "text"], 64, {}),
            ("--system", ["Hi", "--system", "Be kind."], 64, {}),
            ("has no conversations", ["--chat", "--template", "plain-targets"], 64, {}),
            ("asks how well", ["Hi", "--template", "coherence-rating"], 64, {}),
            ("no template 'nope'", ["Hi", "--template", "nope"], 66, {}),
            ("is no folder, nor a name of the Hugging Face Hub", ["Hi"], 66, {"model": self.folder / "nope"}),
            ("give it as --adapter", ["Hi"], 66, {"model": self.adapter}),
            ("did you mean", ["Hi", "--adapter", self.adapter.parent], 66, {"adapter": False}),
            ("max_position_embeddings", ["Hi", "--max-new-tokens", "200"], 65, {}),
        ):
            with self.subTest(words):
                self.assertIn(words, self.ask(*arguments, code=code, **options))
                self.assertFalse(self.log.exists(), "the model was started")

    def test_a_record_that_is_damaged(self):
        for text, words in (
            ("{", "not valid JSON"),
            ('{"method": "peft"}', "'template'"),
            ('{"method": "peft", "possibilities": -1, "template": {}}', "'possibilities'"),
        ):
            (self.adapter / "plural.json").write_text(text)
            error = self.ask("Hi", code=65)
            self.assertIn(words, error)
            self.assertIn("plural.json", error)

    def test_a_model_that_fails(self):
        self.trained()
        self.assertIn("no such tensor", self.ask("Hi", "--quiet", code=69, FAILS="no such tensor"))


if __name__ == "__main__":
    unittest.main()
