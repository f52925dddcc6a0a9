"""Judges behind endpoints: a real local server with the chat-completions protocol."""

import json
import threading
import unittest

from plural_text.common.asking import AnswerCache
from plural_text.common.endpoint import Endpoint, EndpointFailed, EndpointLimits
from plural_text.common.errors import BadData, CannotCreate
from plural_text.metrics import judge
from text.chat_server import completion, server
from text.support import FolderTest, run, write_lines


class Parser(unittest.TestCase):
    def test_published_vectors(self):
        for answer, rating in [
            ("Coherence rating: [8]", 8),
            ("Coherence rating: 4.5", 4),
            ("Coherence rating: [10]/10", 10),
            ("Note: Coherence rating: [3]", None),
            ("Coherence rating:\n[7]", None),
            ("Coherence rating: [3]\nCoherence rating: [9]", 9),
        ]:
            self.assertEqual(judge.parse_rating(answer), rating, answer)

    def test_every_question_asks_for_what_the_parser_reads(self):
        for name in ("coherence", "story"):
            template = judge.read_template(judge.COHERENCE.with_name(f"{name}.json"))
            asked = template.question("CONTEXT {response}", "RESPONSE")
            self.assertEqual((asked.count("CONTEXT {response}"), asked.count("RESPONSE")), (1, 1), name)
            self.assertEqual(judge.parse_rating(asked, template.label), 5, name)

    def test_other_answers(self):
        for answer, rating in [
            ("", None),
            ("It is fine.", None),
            ("coherence: 5", None),
            ("Coherence rating: high", None),
            ("Coherence rating: [0]", None),
            ("Coherence rating: 47", None),
            ("Coherence rating: " + "9" * 5000, None),
            ("**Coherence rating:** [5]", 5),
            ("Good.\nCoherence rating: [6]\nThanks!", 6),
            ("Coherence rating: [2]\nCoherence rating: none", 2),
        ]:
            self.assertEqual(judge.parse_rating(answer), rating, answer[:40])


class Template(FolderTest):
    def test_braces_in_texts_stay(self):
        template = judge.read_template()
        question = template.question("A: {response}", "{context} {x}")
        self.assertIn("A: {response}", question)
        self.assertIn("{context} {x}", question)
        self.assertIn(f"{template.label}: [5]", question)

    def test_refused(self):
        for spec in (
            {"prompt": "{context}", "label": "x"},
            {"prompt": "{context}{response}{response}", "label": "x"},
            {"prompt": "{context}{response}", "label": " "},
            {"label": "x"},
        ):
            path = self.folder / "t.json"
            path.write_text(json.dumps(spec))
            with self.assertRaisesRegex(BadData, "t.json"):
                judge.read_template(path)


class Rate(FolderTest):
    LIMITS = EndpointLimits(timeout_seconds=5, retries=2)

    def rate(self, questions, *urls, label="Coherence rating"):
        with AnswerCache(self.folder / "cache.jsonl") as cache:
            judges = [Endpoint(url, f"m{i}", self.LIMITS) for i, url in enumerate(urls)]
            return judge.rate(questions, judges, label, cache, threshold=6, parallel=2)

    def test_next_judge_is_asked_only_where_the_first_settles_nothing(self):
        first = lambda question, *_: completion(
            "?" if question == "none" else f"Coherence rating: [{question}]"
        )
        second = lambda *_: completion("Coherence rating: [4]")
        with server(first) as (a, asked_a), server(second) as (b, asked_b):
            found = self.rate(["6", "5", "none", "6"], a, b)
            self.assertEqual(found, [[6], [5, 4], [None, 4], [6]])
            self.assertEqual((sorted(asked_a), sorted(asked_b)), (["5", "6", "none"], ["5", "none"]))

    def test_busy_server_is_asked_again(self):
        busy_once = lambda question, model, times: (
            completion("Coherence rating: [9]") if times else (429, {"error": "busy"})
        )
        with server(busy_once) as (url, asked):
            self.assertEqual(self.rate(["q"], url), [[9]])
            self.assertEqual(asked, ["q", "q"])

    def test_answers_are_kept_when_the_judge_goes_down(self):
        down = threading.Event()
        answer = lambda question, *_: (
            (500, {"error": "down"})
            if down.is_set() and question == "c"
            else completion("Coherence rating: [3]")
        )
        with server(answer) as (url, asked):
            self.assertEqual(self.rate(["a", "b"], url), [[3], [3]])
            down.set()
            with self.assertRaisesRegex(
                EndpointFailed, r"status 500.*; 2 of 3 answers are kept in .*cache.jsonl"
            ):
                self.rate(["a", "b", "c"], url)
            self.assertEqual(sorted(asked), ["a", "b", "c", "c", "c"])  # two retries
            down.clear()
            self.assertEqual(self.rate(["a", "b", "c"], url), [[3]] * 3)
            self.assertEqual(sorted(asked), ["a", "b", "c", "c", "c", "c"])

    def test_no_server_and_no_protocol(self):
        with server(lambda *_: completion("")) as (url, _):
            pass
        with self.assertRaisesRegex(EndpointFailed, "no answer"):
            self.rate(["a"], url)
        for reply in ((200, "<html>hello</html>"), (200, {"choices": []}), (200, {"hello": 1})):
            with (
                server(lambda *_: reply) as (url, _),
                self.assertRaisesRegex(EndpointFailed, "not a chat completion"),
            ):
                self.rate(["a"], url)
        with server(lambda *_: (200, {"choices": [{"message": {"content": None}}]})) as (url, _):
            self.assertEqual(self.rate(["a"], url), [[None]])

    def test_rate_limit_spaces_requests(self):
        slept = []
        with server(lambda *_: completion("x")) as (url, _):
            limits = EndpointLimits(requests_per_minute=1200)
            endpoint = Endpoint(url, "m", limits, clock=lambda: 7.0, sleep=slept.append)
            for _ in range(3):
                endpoint.ask([{"role": "user", "content": "q"}], 0, 1)
        for found, expected in zip(slept, [0.0, 0.05, 0.10], strict=True):
            self.assertAlmostEqual(found, expected)

    def test_cache(self):
        path = self.folder / "cache.jsonl"
        first, other = Endpoint("http://localhost:1/v1", "m"), Endpoint("http://localhost:1/v1", "other")
        with AnswerCache(path) as cache:
            cache.put(first, "q", "half \ud800 a pair")
            cache.put(first, "r", "two\nlines")
            self.assertRaisesRegex(CannotCreate, "another process", AnswerCache, path)
        path.write_bytes(path.read_bytes()[:-5])  # killed while writing
        with AnswerCache(path) as cache:
            self.assertEqual(cache.get(first, "q"), "half ? a pair")
            self.assertIsNone(cache.get(first, "r"))
            self.assertIsNone(cache.get(other, "q"))
            cache.put(first, "r", "again")
        with AnswerCache(path) as cache:
            self.assertEqual(cache.get(first, "r"), "again")
        for foreign in ("{\n", '{"id": "a"}\n{"id"', "not ours", '{"key": "k"}\n'):
            path.write_text(foreign)
            with self.assertRaisesRegex(BadData, "cache.jsonl:1"):
                AnswerCache(path)
            self.assertEqual(path.read_text(), foreign)


class Command(FolderTest):
    def setUp(self):
        super().setUp()
        self.file = write_lines(
            self.folder / "r.jsonl",
            [
                {
                    "id": str(n),
                    "prompt": f"context {n}",
                    "responses": [{"text": f"good {n}"}, {"text": f"bad {n}"}],
                }
                for n in range(3)
            ],
        )

    def metrics(self, *options):
        use = ("metrics", self.file, "--metrics", "incoherence", "-o", self.folder / "f.json", "--force")
        return run(*use, *options)

    def test_figures_of_judges(self):
        answer = lambda question, *_: completion(f"Hm.\nCoherence rating: [{3 if 'bad' in question else 8}]")
        with server(answer) as (url, asked):
            usual = ("--judge", url, "--judge-model", "one", "--judge", url, "--judge-model", "two")
            done = self.metrics(*usual)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(len(asked), 9)
            self.assertTrue(any("context 2" in question and "good 2" in question for question in asked))
            figures = json.loads((self.folder / "f.json").read_text())["figures"]
            self.assertEqual(figures["incoherence_judged_percent"]["value"], 50.0)
            self.assertEqual(
                figures["judge_2_abstentions"],
                {"value": 0, "count": 3, "of": "responses", "interval_95": None, "note": "two"},
            )
            self.assertIn("no response has a rating", figures["incoherence_rated_percent"]["reason"])
            self.assertEqual(self.metrics(*usual).returncode, 0)
            self.assertEqual(len(asked), 9)  # all from the cache

    def test_contexts_of_the_dialogues(self):
        dialogues = write_lines(
            self.folder / "d.jsonl", [{"id": str(n), "context": f"first {n}\nhi\nlast {n}"} for n in range(3)]
        )
        with server(lambda *_: completion("Coherence rating: 9")) as (url, asked):
            use = ("--judge", url, "--judge-model", "m", "--judge-contexts", dialogues)
            self.assertEqual(self.metrics(*use).returncode, 0)
            self.assertTrue(
                any("\n\nPerson A: first 1\nPerson B: hi\nPerson A: last 1\n\n" in q for q in asked), asked
            )
            self.assertFalse(any("context 1" in question for question in asked))
            write_lines(dialogues, [{"id": "0", "context": "x"}])
            done = self.metrics(*use)
            self.assertEqual(done.returncode, 65)
            self.assertIn("no dialogue has the id '1'", done.stderr)

    def test_judge_that_is_down(self):
        with server(lambda *_: completion("")) as (url, _):
            pass
        done = self.metrics("--judge", url, "--judge-model", "m", "--judge-retries", "0")
        self.assertEqual((done.returncode, done.stderr.count("\n"), done.stdout), (69, 1, ""), done.stderr)
        self.assertIn("0 of 6 answers are kept in", done.stderr)

    def test_bad_options(self):
        for options, said in [
            (("--judge", "x"), "give one model for each endpoint"),
            (("--judge", "x", "--judge-model", "m"), "must be an http:// or https:// address"),
            (("--judge-cache", "c.jsonl"), "--judge-cache is for judges"),
            (("--judge-retries", "-1"), "--judge-retries"),
            (("--judge-timeout-seconds", "nan"), "is not a number from"),
        ]:
            done = self.metrics(*options)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (64, 1), done.stderr)
            self.assertIn(said, done.stderr)


if __name__ == "__main__":
    unittest.main()
