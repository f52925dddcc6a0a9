"""`plural generate --method`, `--rerank` and `plural rate` as a user calls them: results, costs, bad
input."""

import json
import math
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import training

# Tokens of a model that writes lists, each decided by the one before it: (text, {next: probability}).
LIST = [
    (b"?", {1: 1.0}),
    (b"1.", {2: 1.0}),
    (b" The first one.", {3: 1.0}),
    (b"\n2.", {4: 1.0}),
    (b" The second one.\n", {5: 1.0}),
    (b"- No.\n3. The", {6: 1.0}),
    (b" third.", {7: 0.7, 8: 0.3}),
    (b"</s>", {}),
    (b"\n4. A fourth one, seldom.", {7: 0.5, 9: 0.5}),
    (b"\n5. The fifth one.", {7: 1.0}),
]
LIST_END = 7


def write_list_model(folder: Path) -> None:
    """One-hot embeddings that the layer leaves alone and the norm keeps: the head's column of the last token
    is what the next one is drawn from."""
    size = len(LIST)
    head = np.full((size, size), -30.0, np.float32)  # e^-30: never drawn
    for token, (_, following) in enumerate(LIST):
        for after, p in (following or {LIST_END: 1.0}).items():
            head[after, token] = math.log(p)
    zero = lambda *shape: np.zeros(shape, np.float32)
    layer = {f"self_attn.{name}_proj.weight": zero(size, size) for name in "qkvo"}
    layer |= {
        "mlp.gate_proj.weight": zero(4, size),
        "mlp.up_proj.weight": zero(4, size),
        "mlp.down_proj.weight": zero(size, 4),
        "input_layernorm.weight": zero(size),
        "post_attention_layernorm.weight": zero(size),
    }
    tensors = {f"model.layers.0.{name}": tensor for name, tensor in layer.items()}
    tensors |= {
        "model.embed_tokens.weight": np.eye(size, dtype=np.float32),
        "lm_head.weight": head,
        "model.norm.weight": np.full(size, size**-0.5, np.float32),
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "llama",
                "architectures": ["LlamaForCausalLM"],
                "vocab_size": size,
                "hidden_size": size,
                "intermediate_size": 4,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "num_key_value_heads": 1,
                "max_position_embeddings": 64,
                "rms_norm_eps": 1e-12,
                "eos_token_id": LIST_END,
            }
        )
    )


class Command(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)

    def run_plural(self, *arguments, ranks=1):
        launcher = [] if ranks == 1 else training.mpirun(ranks)
        return subprocess.run(
            [*launcher, training.PLURAL, *map(str, arguments)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def lines(self, *arguments, output="out.jsonl", **options):
        """The lines a command writes, and what it says."""
        done = self.run_plural(*arguments, "-o", output, "--force", **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in (self.folder / output).read_text().splitlines()], done.stderr

    def refused(self, code, words, *arguments):
        done = self.run_plural(*arguments, "-o", "refused.jsonl")
        self.assertEqual(done.returncode, code, done.stderr)
        errors = [line for line in done.stderr.splitlines() if line.startswith("plural: error")]
        self.assertEqual(len(errors), 1, done.stderr)
        self.assertIn(words, errors[0])
        self.assertEqual(list(self.folder.glob("*refused*")), [], "something was left behind")


class ListPrompting(Command):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        write_list_model(cls.folder / "model")
        training.write_corpus(
            cls.folder / "prompts.h5", [([0], [[]], [])] * 12, vocabulary=[text for text, _ in LIST]
        )

    def lists(self, *arguments, new_tokens="32", **options):
        corpus = () if "--corpus" in arguments else ("--corpus", "prompts.h5")
        return self.lines(
            "generate",
            "--model",
            "model",
            *corpus,
            "--method",
            "list",
            "--threads",
            "1",
            "--max-new-tokens",
            new_tokens,
            *arguments,
            **options,
        )

    def test_items_of_a_greedy_list(self):
        lines, said = self.lists("--responses", "2")
        self.assertNotIn("warning", said)
        for line in lines:
            self.assertEqual([r["text"] for r in line["responses"]], ["The first one.", "The second one."])
            # Each is a token of its own; the label and the next line end belong to others or are white space.
            self.assertEqual([r["tokens"] for r in line["responses"]], [[2], [4]])
            self.assertEqual((line["method"], line["short_by"], line["decode_steps"]), ("list", 0, 6))
            self.assertTrue(all(r["finished"] and r["logprob_nats"] is None for r in line["responses"]))

    def test_an_item_that_shares_a_token_has_a_text_only(self):
        lines, _ = self.lists("--responses", "3")
        third = lines[0]["responses"][2]
        self.assertEqual((third["text"], third["tokens"]), ("The third.", []))

    def test_short_lists_are_sampled_again_at_most_twice(self):
        lines, said = self.lists("--responses", "5")
        found = [len(line["responses"]) for line in lines]
        self.assertEqual([line["short_by"] for line in lines], [5 - n for n in found])
        # A list of five has probability 0.15, of four or five 0.3: the draws of 12 prompts show both, and
        # neither.
        self.assertEqual({3, 5} <= set(found), True, found)
        short = sum(n < 5 for n in found)
        self.assertIn(f"plural: warning: {short} of 12 prompts have fewer than 5 responses", said)
        for line, n in zip(lines, found):
            # The greedy list takes 6 steps, a sampled one 6 to 8; a prompt that stays short has paid for
            # three.
            self.assertTrue(18 <= line["decode_steps"] <= 24 if n < 5 else 12 < line["decode_steps"] <= 24)
        keep = lambda some: [[r["text"] for r in line["responses"]] for line in some]
        self.assertEqual(keep(self.lists("--responses", "5", "--batch", "1")[0]), keep(lines))
        self.assertEqual(keep(self.lists("--responses", "5", ranks=2)[0]), keep(lines))
        self.assertNotEqual(keep(self.lists("--responses", "5", "--seed", "43")[0]), keep(lines))

    def test_the_prompt_asks_for_as_many_as_responses(self):
        vocabulary = [text for text, _ in LIST]
        # With the number 1 the prompt ends behind the first item and the second's label.
        groups = [([0], [[], [1, 2, 3], []], [])]
        counts = {"name": "counts", "format": "dialogue", "prompt_with_count": "{context} {k}"}
        for name, template in (("counted", counts), ("numbered", {"name": "numbered", "format": "dialogue"})):
            training.write_corpus(
                self.folder / f"{name}.h5", groups, vocabulary=vocabulary, template=template
            )
        of = lambda corpus, n: [
            response["text"]
            for response in self.lists("--responses", n, "--corpus", corpus)[0][0]["responses"]
        ]
        self.assertEqual(of("counted.h5", "1"), ["The second one."])
        self.assertEqual(of("counted.h5", "2"), ["The first one.", "The second one."])
        self.assertEqual(of("numbered.h5", "1"), ["The first one."])  # a possibility number is no count
        self.refused(
            65,
            "ask for lists of 1 to 2 responses, --responses is 3; prepare it with --possibilities 3",
            *("generate", "--model", "model", "--corpus", "counted.h5", "--method", "list"),
            *("--max-new-tokens", "32", "--responses", "3"),
        )

    def test_a_list_that_is_cut(self):
        lines, _ = self.lists("--responses", "1", new_tokens="2")
        self.assertEqual(
            [(r["text"], r["finished"]) for r in lines[0]["responses"]], [("The first one.", False)]
        )

    def test_bad_input(self):
        usual = ("generate", "--model", "model", "--corpus", "prompts.h5", "--method", "list")
        self.refused(65, "exceed the model's context of 64", *usual)  # 1,024 new tokens unless said otherwise
        self.refused(
            64, "--temperature, --top-k and --top-p belong to --method sample", *usual, "--temperature", "1"
        )
        self.refused(64, "--possibilities belongs to --method sample", *usual, "--possibilities", "first")
        self.refused(64, "--rerank rates token ids", *usual, "--rerank", "2", "--rating-corpus", "prompts.h5")
        self.refused(64, "belong to --method diverse-beam", *usual, "--beams", "5")


class DiverseBeams(Command):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        write_list_model(cls.folder / "model")
        training.write_corpus(
            cls.folder / "prompts.h5", [([0], [[]], [])] * 2, vocabulary=[text for text, _ in LIST]
        )

    USUAL = ("generate", "--model", "model", "--corpus", "prompts.h5", "--method", "diverse-beam")

    def test_fields(self):
        lines, _ = self.lines(
            *self.USUAL, "--beams", "4", "--beam-groups", "2", "--responses", "3", "--max-new-tokens", 8
        )
        for line in lines:
            scores = [r["score"] for r in line["responses"]]
            self.assertEqual(
                (line["method"], len(scores), scores), ("diverse_beam", 3, sorted(scores, reverse=True))
            )
            self.assertEqual([r["index"] for r in line["responses"]], [0, 1, 2])
            self.assertLessEqual(line["decode_steps"], 7)  # the last token is not fed
            self.assertTrue(
                1 + 2 * line["decode_steps"] <= line["token_forwards"] <= 1 + 4 * line["decode_steps"]
            )

    def test_bad_input(self):
        self.refused(64, "--diversity-penalty", *self.USUAL, "--diversity-penalty", "-0.5")
        self.refused(
            64,
            "--beams 5 cannot be split into --beam-groups 2",
            *self.USUAL,
            "--beams",
            "5",
            "--beam-groups",
            "2",
        )
        self.refused(
            64,
            "--beams 2 cannot be split into --beam-groups 4",
            *self.USUAL,
            "--beams",
            "2",
            "--beam-groups",
            "4",
            "--responses",
            "2",
        )
        self.refused(
            64, "no more responses than it has beams", *self.USUAL, "--beams", "3", "--responses", "5"
        )
        self.refused(64, "--top-k", *self.USUAL, "--top-k", "50")
        self.refused(65, "exceed the model's context", *self.USUAL, "--max-new-tokens", "64")


class Ratings(Command):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        groups = training.random_groups(4)
        training.write_corpus(cls.folder / "corpus.h5", groups)
        cls.write_ratings("ratings.h5", groups)
        cls.write_ratings("few.h5", groups[:3])
        training.write_recipe(
            cls.folder / "base.yaml", "base", method="pretrain", adapter=False, extra="train: {steps: 1}"
        )
        training.write_recipe(cls.folder / "peft.yaml", "peft", extra="train: {steps: 6}")
        for recipe, overrides in (
            ("base.yaml", ()),
            ("peft.yaml", ("model.config=null", "model.path=runs/base/model")),
        ):
            result = training.train(cls.folder, recipe, *overrides)
            assert result.returncode == 0, result.stderr

    @classmethod
    def write_ratings(cls, name, groups):
        ratings = [([20 + n, 3], [0, 0], 1.0) for n in range(9)] + [([20, 4, 3], [0, 0, 0], 1.0)]
        training.write_corpus(cls.folder / name, [(prompt, [[5, 6]], ratings) for prompt, _, _ in groups])

    USUAL = (
        "generate",
        "--model",
        "runs/base/model",
        "--adapter",
        "runs/peft/adapter",
        "--corpus",
        "corpus.h5",
        "--dtype",
        "fp64",
        "--responses",
        "6",
        "--max-new-tokens",
        "12",
        "--threads",
        "1",
    )
    RATE = ("rate", "--model", "runs/base/model", "--dtype", "fp64", "--threads", "1")

    def test_rerank_keeps_what_the_base_model_rates_best(self):
        usual = (*self.USUAL, "--possibilities", "1,2,3,4,5")
        self.lines(*usual, output="all.jsonl")
        rated, _ = self.lines(
            *self.RATE, "--rating-corpus", "ratings.h5", "--input", "all.jsonl", output="rated.jsonl"
        )
        best, _ = self.lines(*usual, "--rerank", "3", "--rating-corpus", "ratings.h5")
        for all_of, three in zip(rated, best, strict=True):
            order = sorted(all_of["responses"], key=lambda r: (-r["rating"], r["index"]))[:3]
            self.assertEqual([r["index"] for r in three["responses"]], [r["index"] for r in order])
            for mine, other in zip(three["responses"], order):
                # The same tree: only the order of responses may change how trees are packed.
                self.assertAlmostEqual(mine["rating"], other["rating"], places=10)
                self.assertTrue(1 <= mine["rating"] <= 10 and 0 <= other["mass_below_6"] <= 1)
            self.assertEqual(three["decode_steps"], all_of["decode_steps"] + 1)
            self.assertGreater(three["token_forwards"], all_of["token_forwards"])
        self.assertGreater(len({r["rating"] for line in rated for r in line["responses"]}), 12)

    def test_rate_keeps_lines_and_does_not_depend_on_ranks(self):
        source = [
            {
                "id": f"g{n}",
                "note": n,
                "responses": [
                    {"text": "x", "tokens": [11, 12 + n]},
                    {"text": "", "tokens": []},
                    {"text": "no ids", "tokens": []},
                ],
            }
            for n in (3, 0, 2, 1)
        ]
        (self.folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in source))
        rated, said = self.lines(*self.RATE, "--rating-corpus", "ratings.h5", "--input", "in.jsonl")
        self.assertEqual([line["id"] for line in rated], ["g3", "g0", "g2", "g1"])
        for before, after in zip(source, rated):
            self.assertEqual([r["rating"] is None for r in after["responses"]], [False, False, True])
            for response in after["responses"]:
                response.pop("rating"), response.pop("mass_below_6")
            self.assertEqual(after, before)
        self.assertIn("plural: warning: 4 of 12 responses have a text but no token ids", said)
        alone = (self.folder / "out.jsonl").read_text()
        self.lines(
            *self.RATE, "--rating-corpus", "ratings.h5", "--input", "in.jsonl", output="three.jsonl", ranks=3
        )
        self.assertEqual((self.folder / "three.jsonl").read_text(), alone)

    def test_bad_input(self):
        usual = self.USUAL
        rerank = (*usual, "--rating-corpus", "ratings.h5", "--rerank")
        self.refused(64, "fewer candidates than are kept", *rerank, "7")
        self.refused(64, "--rerank and --rating-corpus need each other", *usual, "--rerank", "3")
        self.refused(
            64, "--rerank and --rating-corpus need each other", *usual, "--rating-corpus", "ratings.h5"
        )
        self.refused(
            65, "has no question for the prompt 'g3'", *usual, "--rating-corpus", "few.h5", "--rerank", "3"
        )
        self.refused(
            65,
            "has 4 responses, a rating corpus has the 10",
            *usual,
            "--rating-corpus",
            "corpus.h5",
            "--rerank",
            "3",
        )
        self.refused(66, "absent.h5", *usual, "--rating-corpus", "absent.h5", "--rerank", "3")

    def test_bad_answers(self):
        rate = (*self.RATE, "--rating-corpus", "ratings.h5", "--input")
        self.refused(66, "absent.jsonl", *rate, "absent.jsonl")
        good = json.dumps({"id": "g0", "responses": [{"text": "x", "tokens": [11]}]})
        for line, words in (
            ("", "holds no responses"),
            ('{"id": "g0", "responses": []}', "holds no responses"),
            (good + "\n{", "line 2"),
            (good + '\n{"id": "g0"}', "line 2"),
            ('{"id": "g0", "responses": [3]}', "as plural generate writes it"),
            ('{"id": "g9", "responses": [{"text": "x", "tokens": [11]}]}', "no question for the prompt 'g9'"),
            ('{"id": "g0", "responses": [{"text": "x"}]}', "tokens"),
            ('{"id": "g0", "responses": [{"text": "x", "tokens": [40]}]}', "responses[0]"),
            ('{"id": "g0", "responses": [{"text": "x", "tokens": %s}]}' % ([11] * 130), "context is 128"),
        ):
            (self.folder / "bad.jsonl").write_text(line + "\n")
            self.refused(65, words, *rate, "bad.jsonl")


if __name__ == "__main__":
    unittest.main()
