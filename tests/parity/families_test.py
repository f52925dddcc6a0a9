"""Each supported family of models against transformers: logits, gradients, generation, files, adapters.

Windows are shorter than the sequences, caps small enough to bend, and rotary scaling has pairs of every kind,
so that a part left out or applied to the wrong layers shows.
"""

import pathlib
import shutil
import tempfile
import unittest
import warnings

import torch
from safetensors.torch import load_file

from parity import reference
from parity.adapter_test import ALL, TOLERANCE, write_adapter
from parity.train_test import group_loss, read_groups, write_corpus
from training import write_corpus as write_prompts

GEMMA = dict(hidden_size=40, head_dim=12, pad_token_id=0, tie_word_embeddings=True)
FAMILIES = {
    "llama 3.1": dict(
        family="llama",
        rope_parameters={  # wavelengths 6, 29, 135, 628, ...: fast, blended, slow
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 8.0,
            "original_max_position_embeddings": 200,
        },
    ),
    "llama, linear, biases": dict(
        family="llama",
        attention_bias=True,
        mlp_bias=True,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    ),
    "mistral": dict(family="mistral", sliding_window=7),
    "qwen2": dict(family="qwen2", tie_word_embeddings=True),
    "qwen2, upper layers slide": dict(
        family="qwen2", use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "qwen3": dict(family="qwen3", head_dim=16),
    "gemma": dict(family="gemma", **GEMMA),
    "gemma2": dict(
        family="gemma2",
        sliding_window=5,
        query_pre_attn_scalar=9,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=5.0,
        **GEMMA,
    ),
    "gemma3": dict(
        family="gemma3_text",
        num_hidden_layers=7,
        sliding_window=5,
        query_pre_attn_scalar=9,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
        **GEMMA,
    ),
    "phi3": dict(family="phi3", pad_token_id=0, sliding_window=11),
}
ADAPTED = {
    "qwen3": [*ALL, "lm_head"],
    "gemma2": ALL,
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"],
}

RECIPE = """
name: run
method: peft
seed: 1
run: {{dir: {runs}, threads: 1}}
model: {{path: {model}, dtype: fp64}}
adapter: {{type: none}}
data: {{train: {corpus}, shuffle: false}}
group: {{responses: 3, possibilities: 4, assignment: sequential}}
loss: {{unlikelihood: {{alpha: 0.7, mask: content_first, clamp: 1.0e-6}}, normalize: group_token_mean}}
train: {{steps: 1, groups_per_step: 2, layout: {layout}}}
optimizer: {{lr: 1.0e-3, betas: [0.9, 0.999], schedule: constant}}
checkpoint: {{every_steps: 1}}
"""


class FamiliesTest(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.lines = reference.random_lines(10, seed=2)

    def for_each_family(self, check, names=FAMILIES):
        for name in names:
            with self.subTest(name):
                folder = self.work / "model"
                shutil.rmtree(folder, ignore_errors=True)
                reference.make_model(folder, **FAMILIES[name])
                check(name, folder)

    def test_logits_and_log_probabilities(self):
        # fp32 sums of 40 to 80 terms over 3 to 7 layers: 2e-5 of the largest logit is some 100 roundings.
        prompt = reference.random_lines(1, seed=5)[0]["prompt_tokens"] + list(range(10, 40))
        row_lines = reference.vocabulary_lines(prompt)

        def check(name, folder):
            model = reference.load(folder)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
            expected = [[value] for value in torch.log_softmax(logits, -1).tolist()]
            scores = reference.plural_scores(folder, self.work, row_lines + self.lines)
            bound = 2e-5 * logits.abs().max().item()
            self.assertLess(reference.worst(scores[: len(row_lines)], expected), bound)
            # Each of a sequence's rows is as good; their logits are of the same size.
            trees = reference.reference_scores(model, self.lines)
            self.assertLess(reference.worst(scores[len(row_lines) :], trees), 2 * bound)

        self.for_each_family(check)

    def test_gradients_and_the_model_that_is_written(self):
        corpus, runs = self.work / "corpus.h5", self.work / "runs"
        write_corpus(corpus, 2)
        groups = read_groups(corpus)

        def check(name, folder):
            expected = self.gradients_of_transformers(folder, groups)
            largest = max(gradient.abs().max().item() for gradient in expected.values())
            for layout in ("plain", "tree") if name in ("gemma2", "gemma3") else ("tree",):
                shutil.rmtree(runs, ignore_errors=True)
                recipe = self.work / "recipe.yaml"
                recipe.write_text(RECIPE.format(runs=runs, model=folder, corpus=corpus, layout=layout))
                reference.plural("train", recipe)
                moments = load_file(runs / "run/checkpoints/step-00000001/optimizer.safetensors")
                # The first moment after one step is 0.1 of the gradient.
                found = {
                    key.removesuffix(".exp_avg"): tensor / 0.1
                    for key, tensor in moments.items()
                    if key.endswith(".exp_avg")
                }
                self.assertEqual(found.keys(), expected.keys())
                for key, gradient in expected.items():
                    # fp64 keeps 1e-16; sums of a few hundred terms that partly cancel lose some digits of it.
                    bound = 1e-10 * max(gradient.abs().max().item(), 1e-3 * largest)
                    self.assertLess((found[key] - gradient).abs().max().item(), bound, f"{layout} {key}")
            written = runs / "run/model"
            ours = reference.plural_scores(written, self.work, self.lines)
            theirs = reference.reference_scores(reference.load(written), self.lines)
            self.assertLess(reference.worst(ours, theirs), TOLERANCE)
            before = reference.reference_scores(reference.load(folder), self.lines)
            self.assertGreater(reference.worst(ours, before), 100 * TOLERANCE)

        self.for_each_family(check)

    def gradients_of_transformers(self, folder, groups):
        model = reference.load_double(folder)
        with reference.double_precision():
            loss = sum(group_loss(model, group) for group in groups) / len(groups)
            loss.backward()
        return {name: weight.grad for name, weight in model.named_parameters()}

    def test_greedy_generation(self):
        prompts = [line["prompt_tokens"] for line in reference.random_lines(6, seed=3, shared_prompts=False)]
        corpus, output = self.work / "prompts.h5", self.work / "out.jsonl"
        write_prompts(
            corpus,
            [(prompt, [[]], []) for prompt in prompts],
            vocabulary=[b"<%d>" % i for i in range(reference.VOCAB)],
        )

        def check(name, folder):
            model = reference.load(folder)
            reference.plural(
                "generate",
                "--model",
                folder,
                "--corpus",
                corpus,
                "-o",
                output,
                "--force",
                "--temperature",
                0,
                "--responses",
                1,
                "--max-new-tokens",
                24,
                "--threads",
                1,
            )
            for prompt, answer in zip(prompts, reference.read_lines(output)):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that the padding token is not set
                    expected = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24)
                response = answer["responses"][0]
                ours = response["tokens"] + [2] * response["finished"]
                self.assertEqual(ours, expected[0, len(prompt) :].tolist())

        self.for_each_family(check)

    def test_adapters_of_peft(self):
        def check(name, folder):
            adapter, merged = self.work / "adapter", self.work / "merged"
            model = write_adapter(folder, adapter, target_modules=ADAPTED[name])
            expected = reference.reference_scores(model, self.lines)
            scores = reference.plural_scores(folder, self.work, self.lines, adapter)
            self.assertLess(reference.worst(scores, expected), TOLERANCE)
            bare = reference.reference_scores(reference.load(folder), self.lines)
            self.assertGreater(reference.worst(bare, expected), 0.1)
            shutil.rmtree(merged, ignore_errors=True)
            reference.plural("export", "--model", folder, "--adapter", adapter, "-o", merged)
            loaded = reference.reference_scores(reference.load(merged), self.lines)
            self.assertLess(reference.worst(loaded, expected), TOLERANCE)

        self.for_each_family(check, ADAPTED)

    def test_adapters_that_plural_writes(self):
        corpus, runs = self.work / "corpus.h5", self.work / "runs"
        write_corpus(corpus, 2)

        def check(name, folder):
            shutil.rmtree(runs, ignore_errors=True)
            recipe = self.work / "recipe.yaml"
            recipe.write_text(
                RECIPE.format(runs=runs, model=folder, corpus=corpus, layout="tree")
                .replace(
                    "{type: none}",
                    f"{{type: lora, rank: 3, alpha: 6, targets: [{', '.join(ADAPTED[name])}]}}",
                )
                .replace("lr: 1.0e-3", "lr: 3.0e-2")
            )
            reference.plural("train", recipe)
            adapter = runs / "run/adapter"
            theirs = reference.reference_scores(reference.load(folder, adapter), self.lines)
            ours = reference.plural_scores(folder, self.work, self.lines, adapter)
            self.assertLess(reference.worst(ours, theirs), TOLERANCE)
            bare = reference.reference_scores(reference.load(folder), self.lines)
            self.assertGreater(reference.worst(bare, theirs), 100 * TOLERANCE)

        self.for_each_family(check, ADAPTED)


if __name__ == "__main__":
    unittest.main()
