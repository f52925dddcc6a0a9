"""`plural generate` as a user calls it: ranks and batches, presets, latents, streams of requests, bad
input."""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

import training


def timeless(line):
    """An answer without what differs from run to run."""
    if isinstance(line, dict):
        return {key: timeless(value) for key, value in line.items() if key != "seconds"}
    return [timeless(item) for item in line] if isinstance(line, list) else line


class GenerateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.groups = training.random_groups(7)
        training.write_corpus(cls.folder / "corpus.h5", cls.groups)
        short = "train: {steps: 1, groups_per_step: 2}\ncheckpoint: {every_steps: 0}"
        cls.run_recipe("base", method="otmft", adapter=False, extra=short)
        # The same base again, with latents beside it.
        cls.run_recipe(
            "latent",
            method="cvf",
            extra=f"{short}\ngroup: {{responses: 2}}\ncvf: {{latents: 4}}",
            model="path: runs/base/model",
        )
        cls.model, cls.adapter = ("--model", "runs/base/model"), ("--adapter", "runs/latent/adapter")

    @classmethod
    def run_recipe(cls, name, model=None, **recipe):
        path = cls.folder / f"{name}.yaml"
        training.write_recipe(path, name, **recipe)
        if model:
            path.write_text(path.read_text().replace(f"config: {training.MODEL}", model))
        result = training.train(cls.folder, path.name)
        assert result.returncode == 0, result.stderr

    def generate(self, *arguments, ranks=1, **options):
        launcher = [] if ranks == 1 else training.mpirun(ranks)
        command = [
            *launcher,
            training.PLURAL,
            "generate",
            *self.model,
            "--threads",
            "1",
            *map(str, arguments),
        ]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=120, **options
        )

    def answers(self, *arguments, **options):
        result = self.generate("--corpus", "corpus.h5", "-o", "out.jsonl", "--force", *arguments, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return [json.loads(line) for line in (self.folder / "out.jsonl").read_text().splitlines()]

    def refused(self, code, words, *arguments, **options):
        result = self.generate(*arguments, **options)
        self.assertEqual(result.returncode, code, result.stderr)
        errors = [line for line in result.stderr.splitlines() if line.startswith("plural: error")]
        self.assertEqual(len(errors), 1, result.stderr)
        self.assertIn(words, errors[0])
        self.assertEqual(list(self.folder.glob("*refused*")), [], "something was left behind")
        return result

    def refused_file(self, code, words, *arguments, corpus="corpus.h5", **options):
        self.refused(code, words, "--corpus", corpus, "-o", "refused.jsonl", *arguments, **options)

    # The same answers whatever decodes them.

    def test_ranks_and_batches_change_nothing(self):
        cases = [
            ("--responses", 4, "--possibilities", "sample"),
            ("--responses", 30, "--top-k", 7, "--top-p", 0.9, "--dtype", "fp64"),
            ("--responses", 4, "--possibilities", "first", "--dtype", "bf16"),
            ("--responses", 3, "--temperature", 0, "--possibilities", "first"),
        ]
        for case in cases:
            usual = (*case, "--max-new-tokens", 12)
            alone = self.answers(*usual)
            self.assertEqual([line["id"] for line in alone], [f"g{i}" for i in range(7)])
            for ranks, batch in ((1, 3), (2, 64), (3, 5)):
                other = self.answers(*usual, "--batch", batch, ranks=ranks)
                self.assertEqual(timeless(other), timeless(alone), f"{case} {ranks} ranks, batch {batch}")

    def test_an_answer_and_its_cost(self):
        line = self.answers("--preset", "distribution", "--limit", 1, "--max-new-tokens", 3)[0]
        self.assertEqual(line["method"], "sample")
        self.assertEqual([r["index"] for r in line["responses"]], list(range(1000)))
        for response in line["responses"]:
            self.assertEqual(response["text"], "".join(f"<{token}>" for token in response["tokens"]))
            self.assertEqual(response["steps"], len(response["tokens"]) - (not response["finished"]))
            self.assertLess(response["logprob_nats"], 0)
            self.assertTrue(0 < response["seconds"] <= line["seconds"])
        # Of a vocabulary of 40 at most 40 + 1600 histories, not 2000 rows, are decoded.
        different = {tuple(r["tokens"][:t]) for r in line["responses"] for t in range(1, r["steps"] + 1)}
        prompt, tails, _ = self.groups[0]
        self.assertEqual(line["token_forwards"], len(prompt) + len(tails[0]) + len(different))

    def test_presets_give_way_to_options(self):
        line = self.answers("--preset", "dialogue", "--limit", 1, "--max-new-tokens", 2)[0]
        self.assertEqual(len(line["responses"]), 5)
        line = self.answers("--preset", "dialogue", "--limit", 1, "--responses", 2)[0]
        self.assertEqual(len(line["responses"]), 2)

    # Latents.

    def test_latents(self):
        for asked, latents in (("all", [1, 2, 3, 4]), ("4,2", [4, 2])):
            for line in self.answers(*self.adapter, "--latents", asked, "--max-new-tokens", 3):
                self.assertEqual([r["latent"] for r in line["responses"]], latents)
                self.assertEqual({r["possibility"] for r in line["responses"]}, {0})
        sampled = self.answers(*self.adapter, "--latents", "sample", "--responses", 3, "--max-new-tokens", 3)
        drawn = [[r["latent"] for r in line["responses"]] for line in sampled]
        self.assertTrue(all(len(set(latents)) == 3 and set(latents) <= {1, 2, 3, 4} for latents in drawn))
        self.assertGreater(len({tuple(latents) for latents in drawn}), 1)

    def test_latents_that_cannot_be(self):
        self.refused_file(65, "the model has none", "--latents", "all")
        self.refused_file(65, "5 is asked for, the adapter has 1..4", *self.adapter, "--latents", "1,5")
        self.refused_file(65, "the adapter has 4", *self.adapter, "--latents", "sample", "--responses", 5)
        self.refused_file(64, "leave one out", *self.adapter, "--latents", "all", "--possibilities", "first")
        self.refused_file(65, "knows latents instead", *self.adapter, "--possibilities", "first")
        self.refused_file(65, "none is asked for, and the model was trained with 4", *self.adapter)
        self.refused_file(64, "--latents '0'", *self.adapter, "--latents", "0")
        self.refused_file(64, "leave out --responses", *self.adapter, "--latents", "all", "--responses", 3)

    # A start that was stopped.

    def test_a_second_start_goes_on_where_the_first_was_killed(self):
        asked = ["--corpus", "corpus.h5", "--responses", 30, "--max-new-tokens", 100, "--batch", 1]
        whole = timeless(self.answers("--responses", 30, "--max-new-tokens", 100, "--batch", 1))
        command = [training.PLURAL, "generate", *self.model, "--threads", "1", *map(str, asked)]
        partial = self.folder / "killed.jsonl.partial"
        started = subprocess.Popen(
            [*command, "-o", "killed.jsonl"], cwd=self.folder, stderr=subprocess.DEVNULL
        )
        while started.poll() is None and (not partial.exists() or partial.read_bytes().count(b"\n") < 4):
            pass  # the identity and three answered prompts
        started.kill()
        started.wait()
        kept = partial.read_bytes()
        self.assertGreater(kept.count(b"\n"), 3)
        self.assertFalse((self.folder / "killed.jsonl").exists())
        partial.write_bytes(kept + b'{"id": "g')  # a line that was cut off

        refused = self.generate(*asked, "--seed", 1, "-o", "killed.jsonl")
        self.assertEqual(refused.returncode, 73, refused.stderr)
        self.assertIn("with other options, model or input", refused.stderr)

        again = self.generate(*asked, "-o", "killed.jsonl")
        self.assertEqual(again.returncode, 0, again.stderr)
        answered = kept.count(b"\n") - 1
        self.assertIn(f"goes on behind {answered} answered prompts", again.stderr)
        self.assertFalse(partial.exists())
        lines = (self.folder / "killed.jsonl").read_text().splitlines()
        self.assertEqual([timeless(json.loads(line)) for line in lines], whole)

    # Streams.

    def stream(self, *arguments):
        command = [
            training.PLURAL,
            "generate",
            *self.model,
            "--stream",
            "--threads",
            "1",
            *map(str, arguments),
        ]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_a_stream_answers_at_once_what_a_file_answers(self):
        usual = ("--max-new-tokens", 12, "--dtype", "fp64", "--seed", 5)
        expected = self.answers(*usual, "--responses", 3, "--possibilities", "first")
        with self.stream(*usual, "--corpus", "corpus.h5") as process:
            for (prompt, tails, _), line in zip(self.groups, expected):
                request = {"id": line["id"], "prompt_tokens": prompt, "tails": tails[1:4]}
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline())  # while the input is still open
                # A file says besides what the model read.
                self.assertEqual(line.pop("prompt_tokens"), prompt)
                self.assertEqual(line.pop("prompt"), "".join(f"<{token}>" for token in prompt))
                del line["method"]
                for response, tail in zip(line["responses"], tails[1:4], strict=True):
                    self.assertEqual(response.pop("tail_tokens"), tail)
                    self.assertEqual(response.pop("tail"), "".join(f"<{token}>" for token in tail))
                self.assertEqual(timeless(answer), timeless(line))
            process.stdin.close()
            self.assertEqual(process.stdout.read(), "")
            self.assertEqual((process.wait(30), process.stderr.read()), (0, ""))

    def test_requests_are_answered_together_with_settings_of_their_own(self):
        requests = [
            {
                "id": i,
                "prompt_tokens": [1, 11, 12 + i],
                "responses": 1 + i,
                "max_new_tokens": 1 + i,
                "seed": i,
            }
            for i in range(20)
        ]
        text = "\n\n".join(map(json.dumps, requests))  # and no newline at the end
        result = self.generate("--stream", "--batch", 3, input=text)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        answers = {answer["id"]: answer for answer in map(json.loads, result.stdout.splitlines())}
        self.assertEqual(sorted(answers), list(range(20)))
        for i, answer in answers.items():
            self.assertEqual(len(answer["responses"]), 1 + i)
            self.assertTrue(all(len(r["tokens"]) == 1 + i or r["finished"] for r in answer["responses"]))
            self.assertNotIn("text", answer["responses"][0])
        self.assertEqual(self.generate("--stream", input="").returncode, 0)

    def test_bad_requests_name_their_line(self):
        good = '{"id": "a", "prompt_tokens": [1, 2], "max_new_tokens": 2}\n'
        for words, line in (
            ("line 2: not valid JSON", "{"),
            ("line 2: a JSON object", "[]"),
            ("line 2: key 'id' is missing", '{"prompt_tokens": [1]}'),
            ("line 2: key 'prompt_tokens' is missing", '{"id": 1}'),
            ("line 2: 'prompt_tokens' holds 40; token ids", '{"id": 1, "prompt_tokens": [40]}'),
            ("line 2: 'top_p' is 0", '{"id": 1, "prompt_tokens": [1], "top_p": 0}'),
            ("line 2: 'responses' is -1", '{"id": 1, "prompt_tokens": [1], "responses": -1}'),
            ("line 2: unknown key 'prompt'", '{"id": 1, "prompt_tokens": [1], "prompt": ""}'),
            ("line 2: latents: the model has none", '{"id": 1, "prompt_tokens": [1], "latents": [1]}'),
            ("line 2: prompt '1': 200 tokens", json.dumps({"id": 1, "prompt_tokens": [1] * 200})),
        ):
            result = self.refused(65, words, "--stream", input=good + line)
            self.assertEqual(json.loads(result.stdout)["id"], "a", "requests before it are answered")

    # Bad input.

    def test_bad_words(self):
        self.refused_file(64, "--method", "--method", "beam")
        self.refused_file(64, "--possibilities 'last'", "--possibilities", "last")
        self.refused_file(64, "--possibilities '1,,2'", "--possibilities", "1,,2")
        self.refused_file(64, "--preset", "--preset", "story")
        self.refused_file(64, "is more than --max-new-tokens", "--min-new-tokens", 9, "--max-new-tokens", 8)
        self.refused(64, "still needed: --corpus (", "-o", "refused.jsonl")
        self.refused(64, "still needed: --output (", "--corpus", "corpus.h5")
        self.refused(64, "leave out --output", "--stream", "-o", "refused.jsonl")
        self.refused(64, "--method sample", "--stream", "--method", "list")
        self.refused(64, "without mpirun", "--stream", ranks=2, input="")

    def test_what_the_corpus_cannot_give(self):
        self.refused_file(
            65, "6 different numbers are asked for", "--possibilities", "sample", "--responses", 6
        )
        self.refused_file(65, "possibility number 9 is asked for", "--possibilities", "9")
        self.refused_file(65, "exceed the model's context of 128", "--max-new-tokens", 126)


if __name__ == "__main__":
    unittest.main()
