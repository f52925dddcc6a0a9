"""bf16 against transformers in bf16: which of the two is nearer to the same model in fp64."""

import pathlib
import tempfile
import unittest

import torch

from parity import reference
from parity.adapter_test import write_adapter
from parity.train_test import (
    ALPHA,
    CLAMP,
    GROUPS_PER_STEP,
    LR,
    POSSIBILITIES,
    RESPONSES,
    STEPS,
    TARGETS,
    group_loss,
    read_groups,
    write_corpus,
)

# Both programs round the same products to bf16; plural keeps logits, rotary tables and what lies within a
# norm in fp32 where transformers rounds, so its error must not be larger. Two root mean squares of n
# independent errors of one size differ by a factor of 1 + sqrt(1 / n) a standard deviation; tokens of one
# sequence share most of theirs, so n is the number of sequences rather, above 40: three deviations are 1.5.
NOT_WORSE = 1.5


def rms(found, exact):
    flat = [(a - b) ** 2 for x, y in zip(found, exact) for a, b in zip(x, y)]
    return (sum(flat) / len(flat)) ** 0.5


def load(folder, dtype, adapter=None, trainable=False):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
        if dtype == torch.float64:
            model = model.double()
    return model.train() if trainable else model.eval()


def train(model, groups):
    """Losses of each step, and the norm of the first gradient."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses, norm = [], None
    for step in range(STEPS):
        optimizer.zero_grad()
        part = groups[step * GROUPS_PER_STEP : (step + 1) * GROUPS_PER_STEP]
        loss = sum(group_loss(model, group) for group in part) / len(part)
        loss.backward()
        norm = norm or torch.sqrt(sum(p.grad.double().square().sum() for p in trained)).item()
        optimizer.step()
        losses.append(loss.item())
    return losses, norm


class Fp32Logits(torch.nn.Module):
    """A model whose logits are converted before anything is computed of them, as training code does."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        out = self.model(input_ids=input_ids)
        out.logits = out.logits if out.logits.dtype == torch.float64 else out.logits.float()
        return out


class Bf16Test(unittest.TestCase):
    def test_scores_are_as_near_to_fp64_as_those_of_transformers(self):
        for name, settings in {
            "llama": {},
            "mistral, tied": dict(family="mistral", tie_word_embeddings=True),
        }.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                work = pathlib.Path(folder)
                reference.make_model(work / "model", dtype=torch.bfloat16, **settings)
                lines = reference.random_lines(60, seed=4)
                exact = reference.reference_scores(load(work / "model", torch.float64), lines)
                theirs = reference.reference_scores(load(work / "model", torch.bfloat16), lines)
                source, target = work / "sequences.jsonl", work / "scores.jsonl"
                reference.write_lines(source, lines)
                reference.plural(
                    "score",
                    "--model",
                    work / "model",
                    "--input",
                    source,
                    "-o",
                    target,
                    "--force",
                    "--threads",
                    1,
                    "--dtype",
                    "bf16",
                )
                ours = [line["token_logprobs"] for line in reference.read_lines(target)]
                self.assertGreater(rms(ours, exact), 1e-4, "this is not bf16")
                self.assertLess(rms(ours, exact), NOT_WORSE * rms(theirs, exact))

    def test_training_is_as_near_to_fp64_as_that_of_transformers(self):
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            reference.make_model(work / "model", dtype=torch.bfloat16)
            write_adapter(work / "model", work / "adapter", r=3, lora_alpha=6, target_modules=TARGETS)
            write_corpus(work / "corpus.h5", STEPS * GROUPS_PER_STEP)
            (work / "recipe.yaml").write_text(f"""
name: bf16
method: peft
seed: 1
run: {{dir: {work / "runs"}, threads: 1}}
model: {{path: {work / "model"}, dtype: bf16}}
adapter: {{type: lora, rank: 3, alpha: 6, targets: [{", ".join(TARGETS)}], init_from: {work / "adapter"}}}
data: {{train: {work / "corpus.h5"}, shuffle: false}}
group: {{responses: {RESPONSES}, possibilities: {POSSIBILITIES}, assignment: sequential}}
loss: {{unlikelihood: {{alpha: {ALPHA}, mask: content_first, clamp: {CLAMP}}}, normalize: group_token_mean}}
train: {{steps: {STEPS}, groups_per_step: {GROUPS_PER_STEP}}}
optimizer: {{lr: {LR}}}
checkpoint: {{every_steps: 0}}
""")
            reference.plural("train", work / "recipe.yaml")
            run = work / "runs" / "bf16"
            steps = [line for line in reference.read_lines(run / "metrics.jsonl") if line["event"] == "step"]
            ours = [step["loss"] for step in steps]
            groups = read_groups(work / "corpus.h5")
            outcome = {
                dtype: train(
                    Fp32Logits(load(work / "model", dtype, work / "adapter", trainable=True)), groups
                )
                for dtype in (torch.float64, torch.bfloat16)
            }
            (exact, exact_norm), (theirs, their_norm) = outcome[torch.float64], outcome[torch.bfloat16]
            self.assertGreater(exact[0] - exact[-1], 10 * rms([theirs], [exact]))  # something was trained
            self.assertLess(rms([ours], [exact]), NOT_WORSE * rms([theirs], [exact]))
            # Of the 10^4 values of a gradient errors average out: both norms are near.
            self.assertLess(abs(steps[0]["grad_norm"] / exact_norm - 1), 2**-8, (their_norm, exact_norm))

            # The adapter is written in fp32, and PEFT reads it.
            from safetensors.torch import load_file

            written = load_file(run / "adapter" / "adapter_model.safetensors")
            self.assertEqual({tensor.dtype for tensor in written.values()}, {torch.float32})
            lines = reference.random_lines(20, seed=9)
            exact = reference.reference_scores(load(work / "model", torch.float64, run / "adapter"), lines)
            theirs = reference.reference_scores(load(work / "model", torch.bfloat16, run / "adapter"), lines)
            self.assertLess(rms(theirs, exact), 0.1)


if __name__ == "__main__":
    unittest.main()
