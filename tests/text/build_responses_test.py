"""`plural build-responses`: lists from a local server and a made model, what is kept of them, going on."""

import json
import unittest

from plural_text.build_responses.different import LeftOut, different, tidy
from plural_text.build_responses.list_items import split_list
from text.answering import AnsweringTest
from text.chat_server import completion, server
from text.support import FolderTest, run, write_lines

PROMPTS = [{"id": name, "context": f"Hello.\nHi!\nDo you like {name}?"} for name in ("tea", "dogs", "rain")]
LIST = (
    'Here you are:\n**1.** Yes, every day.\n2. "No, never!"\n3. Person B: What is {}?\n4. yes - every day\n'
)


def listed(question, _, times):
    name = next(prompt["id"] for prompt in PROMPTS if f"like {prompt['id']}?" in question)
    return completion(LIST.format(name))


class Items(unittest.TestCase):
    """The vectors of tests/unit/generate/list_prompting_test.cc."""

    def test_labels_are_cut(self):
        labels = "1. 2) (3) [4] 5: #6 - * \u2022 #10. 12)."
        for label in [*labels.split(), "Response 7:", "response 8:", "Person 9:"]:
            self.assertEqual(split_list(f"{label} I like dogs."), ["I like dogs."], label)
            self.assertEqual(split_list(f"  {label}\tI like dogs. \r\n\n"), ["I like dogs."], label)

    def test_what_only_looks_like_a_label_stays(self):
        for text in (
            *("3 dogs are enough.", "3.50 dollars a dog.", "5:30 is too late.", "At 5. Not before."),
            *("-2 degrees outside.", "*smiles* Hello there.", "20000. It is a number.", "Fine, thanks."),
        ):
            self.assertEqual(split_list(text), [text])

    def test_headings_and_short_lines(self):
        text = "Here are some:\n1. A first one.\n\n2. A second one.\nI hope this helps!"
        self.assertEqual(split_list(text), ["A first one.", "A second one."])
        self.assertEqual(split_list("A first one.\nA second one.\n"), ["A first one.", "A second one."])
        self.assertEqual(split_list("1. Yes.\n2. Sure.\n3. \n4.\n"), ["Sure."])
        chinese = "\u4f60\u597d\u4f60\u597d"
        self.assertEqual(split_list(f"1. {chinese}\n2. {chinese}\u3002"), [f"{chinese}\u3002"])
        self.assertEqual((split_list(""), split_list("\n\n \n")), ([], []))


class Different(unittest.TestCase):
    def test_equal_and_nearly_equal(self):
        replies = [
            "I love big dogs.",
            "i love, big dogs",
            "I love big old dogs.",
            "No.",
            "?!",
            "?!",
            "...",
            "Yes.",
        ]
        left_out = LeftOut()
        self.assertEqual(
            different(replies, 5, 0.79, left_out), ["I love big dogs.", "No.", "?!", "...", "Yes."]
        )
        self.assertEqual((left_out.equal, left_out.near), (2, 1))
        # Four of five words are common: a share of 0.8, which is not more than 0.8.
        self.assertEqual(len(different(replies[:3], 5, 0.8, LeftOut())), 2)
        self.assertEqual(
            different(["dogs love I", "I love dogs"], 5, 1, LeftOut()), ["dogs love I", "I love dogs"]
        )
        self.assertEqual(different(["a b", "c d", "e f"], 2, 0.8, LeftOut()), ["a b", "c d"])

    def test_reply_of_an_item(self):
        self.assertEqual(tidy('"Fine,  thanks."', ("Person A", "Person B")), "Fine, thanks.")
        self.assertEqual(tidy("Ann: Fine.", ("Ann", "Bo")), "Fine.")


class FromAnEndpoint(FolderTest):
    def setUp(self):
        super().setUp()
        self.prompts = write_lines(self.folder / "prompts.jsonl", PROMPTS)
        self.output = self.folder / "replies.jsonl"

    def build(self, url, *more, code=0, prompts=None):
        done = run(
            *(
                "build-responses",
                prompts or self.prompts,
                "-o",
                self.output,
                "--endpoint",
                url,
                "--model",
                "m",
            ),
            *("--retries", "0", *more),
        )
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done

    def lines(self):
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def test_replies_and_what_is_kept(self):
        with server(listed) as (url, asked):
            done = self.build(url, "--responses", "3")
            self.assertEqual(len(asked), 3)
            self.assertIn(
                "Person A: Hello.\nPerson B: Hi!\nPerson A: Do you like tea?", asked[0] + asked[1] + asked[2]
            )
            self.assertIn("set of 3 possible responses", asked[0])
            replies = [line["candidates"] for line in self.lines()]
            self.assertEqual(replies[0], ["Yes, every day.", "No, never!", "What is tea?"])
            self.assertEqual([line["id"] for line in self.lines()], ["tea", "dogs", "rain"])
            self.assertEqual(self.lines()[0]["context"], PROMPTS[0]["context"])
            self.assertRegex(done.stdout, r"(?m)^prompts +3 of 3$")
            before = self.output.read_bytes()
            self.build(url, "--responses", "3", code=73)  # never over an older file
            self.build(url, "--responses", "3", "--force")
            self.assertEqual((len(asked), self.output.read_bytes()), (3, before))

    def test_more_lists_while_there_are_too_few(self):
        def answer(question, model, times):
            return completion(
                f"1. Answer number {'one two three four'.split()[times]} here.\n2. Yes, of course.\n"
            )

        with server(answer) as (url, asked):
            done = self.build(
                url, "--responses", "5", "--min-responses", "4", "--attempts", "3", "--max-overlap", "0.7"
            )
            self.assertEqual(len(asked), 9)
            self.assertEqual(len(self.lines()[0]["candidates"]), 4)
            self.assertRegex(done.stdout, r"(?m)^left out +6 equal, 0 nearly equal$")
            self.assertRegex(done.stdout, r"(?m)^fewer than 5 replies +3 prompts$")
        with server(listed) as (url, asked):
            self.build(url, "--min-responses", "9", "--force", "--attempts", "1", code=65)
            self.assertEqual(len(self.lines()[0]["candidates"]), 4, "the older file stays")

    def test_prompts_with_too_few_are_named(self):
        def answer(question, model, times):
            return (
                completion("I cannot help with that.")
                if "rain" in question
                else listed(question, model, times)
            )

        with server(answer) as (url, _):
            done = self.build(url)
        self.assertEqual([line["id"] for line in self.lines()], ["tea", "dogs"])
        self.assertRegex(done.stdout, r"(?m)^fewer than 2 replies +1 prompts, left out: rain \(1\)$")

    def test_an_endpoint_that_fails_and_going_on(self):
        def answer(question, model, times):
            if "dogs" in question and times < 2:
                return 500, {"error": {"message": "overloaded"}}
            return listed(question, model, times)

        with server(answer) as (url, asked):
            done = self.build(url, "--parallel", "1", "--responses", "3", code=69)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn("status 500", done.stderr)
            self.assertRegex(done.stderr, "[12] of 3 answers are kept in .*lists.jsonl")
            self.assertFalse(self.output.exists())
            self.build(url, "--parallel", "1", "--responses", "3", "--retries", "1")
            self.assertEqual(sum("like tea?" in question for question in asked), 1)
        self.assertEqual(len(self.lines()), 3)

    def test_chats_and_what_prepare_makes_of_them(self):
        messages = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Do you like tea?"},
        ]
        chats = write_lines(self.folder / "chats.jsonl", [{"messages": messages}, {"messages": messages}])
        with server(listed) as (url, asked):
            done = self.build(url, "--responses", "3", prompts=chats)
        self.assertIn("System: Be kind.\nUser: Do you like tea?", asked[0])
        self.assertIn("1 prompts equal an earlier one", done.stderr)
        (line,) = self.lines()
        self.assertEqual((line["messages"], len(line["responses"])), (messages, 3))

    def test_refused(self):
        targets = write_lines(self.folder / "t.jsonl", [{"request": "r", "targets": ["a"]}])
        self.assertIn(
            "format targets has no replies", self.build("http://x", prompts=targets, code=64).stderr
        )
        self.assertIn("must be an http://", self.build("localhost", code=64).stderr)
        more = ("--responses", "3", "--min-responses", "4")
        self.assertIn("is more than --responses 3", self.build("http://x", *more, code=64).stderr)
        question = self.folder / "q.json"
        question.write_text('{"prompt": "List {k}."}')
        self.assertIn("{context}", self.build("http://x", "--question", question, code=65).stderr)


class FromAModel(AnsweringTest):
    def test_lists_of_a_model_of_this_machine(self):
        (self.model / "config.json").write_text(json.dumps({"max_position_embeddings": 1000}))
        prompts = write_lines(self.folder / "prompts.jsonl", PROMPTS[:2])
        # The made model answers with the end of what it read, so the list stands in the question.
        question = self.folder / "q.json"
        question.write_text(
            json.dumps({"prompt": "{context} {k}:\n1. red dogs\n2. blue cats\n3. Red dogs!\n"})
        )
        output = self.folder / "replies.jsonl"
        use = ("build-responses", prompts, "-o", output, "--model", self.model, "--question", question)
        environment = self.environment | {"READ": "90"}
        done = run(*use, "--responses", "2", "--device", "cpu", env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("--device cpu", " ".join(self.command()))
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        self.assertEqual([line["candidates"] for line in lines], [["red dogs", "blue cats"]] * 2)
        requests = self.requests()
        self.assertEqual([(r["responses"], r["temperature"]) for r in requests], [(1, 0.0)] * 2)
        self.assertEqual(len({request["id"] for request in requests}), 2)
        run(*use, "--responses", "2", "--force", env=environment)
        self.assertEqual(len(self.requests()), 2, "nothing is asked twice")
        # Lists that are asked for again are sampled, each with draws of its own.
        done = run(*use, "--responses", "5", "--force", env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        again = self.requests()[2:]
        self.assertEqual(sorted(r["temperature"] for r in again), [0.0] * 2 + [1.0] * 4)
        self.assertEqual(len({request["id"] for request in again}), 6)
        run(*use, "--responses", "2", "--force", "--quantize", "nf4", env=environment)
        self.assertEqual(len(self.requests()), 10, "4 bits are another model")

    def test_no_model(self):
        prompts = write_lines(self.folder / "prompts.jsonl", PROMPTS)
        done = run("build-responses", prompts, "-o", self.folder / "r.jsonl", "--model", self.folder / "none")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (66, 1), done.stderr)


if __name__ == "__main__":
    unittest.main()
