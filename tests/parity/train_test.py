"""`plural train` against transformers and PEFT: the same groups give the same losses and the same adapter."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest
from array import array

import torch

from parity import reference
from parity.adapter_test import write_adapter

ALPHA, CLAMP, LR = 0.7, 1e-6, 1e-3
POSSIBILITIES, RESPONSES, GROUPS_PER_STEP, STEPS = 4, 3, 2, 10
TARGETS = ["q_proj", "k_proj", "v_proj", "down_proj", "lm_head"]


def write_corpus(path, count, seed=11):
    """Groups of random tokens. Possibility numbers take one or two tokens; responses share beginnings."""
    from plural_text.prepare.corpus_writer import CorpusWriter
    from plural_text.prepare.groups import Group

    generator = torch.Generator().manual_seed(seed)

    def tokens(low, high):
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(8, reference.VOCAB, (length,), generator=generator).tolist()

    attributes = {
        "vocab_size": reference.VOCAB,
        "possibilities": POSSIBILITIES,
        "source_format": "dialogue",
        "tokenizer_name": "tokenizer.json",
        "tokenizer_sha256": "0" * 64,
        "template_name": "none",
        "mask_modes": "content_first,all_first,repo_compat",
    }
    with CorpusWriter(
        path, attributes, [bytes([97 + i % 26]) for i in range(reference.VOCAB)], "{}"
    ) as writer:
        for g in range(count):
            start = tokens(1, 3)
            responses = [(start if i < 2 else []) + tokens(2, 9) + [2] for i in range(RESPONSES)]
            masks = [array("B", [7] * (len(r) - 1) + [0]).tobytes() for r in responses]
            tails = [[7]] + [([3 + k, 7] if k % 2 else [3, 3 + k, 7]) for k in range(1, POSSIBILITIES + 1)]
            writer.append(Group(f"g{g}", [1, *tokens(4, 12)], tails, responses, masks, [1.0] * RESPONSES))
        writer.commit()


def read_groups(corpus):
    done = subprocess.run(
        [os.environ["PLURAL_BINARY"], "inspect", str(corpus), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def group_loss(model, group):
    """Mean of -log p over the tokens of the positives (k_i, r_i), k_i = i, plus ALPHA times the mean of
    -log(1 - p) over the masked tokens of the negatives (k_i, r_j); every sequence a row of its own."""
    positive, negative, positives, penalised = 0.0, 0.0, 0, 0
    responses = group["responses"][:RESPONSES]
    for i in range(RESPONSES):
        prompt = group["prompt_tokens"] + group["tails"][str(i + 1)]
        for j, response in enumerate(responses):
            target = torch.tensor(response["tokens"])
            logits = model(input_ids=torch.tensor([prompt + response["tokens"]])).logits[
                0, len(prompt) - 1 : -1
            ]
            log_p = torch.log_softmax(logits, -1).gather(1, target[:, None])[:, 0]
            if i == j:
                positive, positives = positive - log_p.sum(), positives + len(target)
                continue
            mask = torch.tensor(response["unlikelihood_mask"], dtype=torch.bool)
            negative = negative - torch.log((1 - log_p[mask].exp()).clamp(min=CLAMP)).sum()
            penalised += int(mask.sum())
    return positive / positives + ALPHA * negative / penalised


def train_reference(model_folder, adapter, groups):
    """Losses of each step, and the trained model of PEFT."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(reference.load(model_folder), adapter, is_trainable=True).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        part = groups[step * GROUPS_PER_STEP : (step + 1) * GROUPS_PER_STEP]
        loss = sum(group_loss(model, group) for group in part) / len(part)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model.eval()


class TrainTest(unittest.TestCase):
    def test_ten_steps_of_peft(self):
        shapes = {"llama": dict(), "mistral, tied head": dict(family="mistral", tie_word_embeddings=True)}
        for name, settings in shapes.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                self.ten_steps(pathlib.Path(folder), settings)

    def ten_steps(self, work, settings):
        model_folder, adapter, corpus = work / "model", work / "adapter", work / "corpus.h5"
        reference.make_model(model_folder, **settings)
        write_adapter(model_folder, adapter, r=3, lora_alpha=6, target_modules=TARGETS)
        write_corpus(corpus, STEPS * GROUPS_PER_STEP)
        recipe = work / "recipe.yaml"
        recipe.write_text(f"""
name: parity
method: peft
seed: 1
run: {{dir: {work / "runs"}, threads: 1}}
model: {{path: {model_folder}, dtype: fp32}}
adapter: {{type: lora, rank: 3, alpha: 6, dropout: 0.0, init_from: {adapter},
          targets: [{", ".join(TARGETS)}]}}
data: {{train: {corpus}, shuffle: false}}
group: {{responses: {RESPONSES}, possibilities: {POSSIBILITIES}, assignment: sequential}}
loss: {{unlikelihood: {{alpha: {ALPHA}, mask: content_first, clamp: {CLAMP}}}, normalize: group_token_mean}}
train: {{steps: {STEPS}, groups_per_step: {GROUPS_PER_STEP}, layout: tree}}
optimizer: {{lr: {LR}, betas: [0.9, 0.999], eps: 1.0e-8, weight_decay: 0.0, schedule: constant}}
checkpoint: {{every_steps: 0}}
""")
        reference.plural("train", recipe)
        run = work / "runs" / "parity"
        steps = [line for line in reference.read_lines(run / "metrics.jsonl") if line["event"] == "step"]
        losses = [step["loss"] for step in steps]
        expected, model = train_reference(model_folder, adapter, read_groups(corpus))
        self.assertEqual(len(losses), STEPS)
        for step, (ours, theirs) in enumerate(zip(losses, expected)):
            self.assertLess(abs(ours - theirs), 1e-4, f"step {step + 1}: {losses} {expected}")

        # The adapter written loads in PEFT and is the one that PEFT trained.
        lines = reference.random_lines(12, seed=9)
        loaded = reference.reference_scores(reference.load(model_folder, run / "adapter"), lines)
        scores = reference.plural_scores(model_folder, work, lines, run / "adapter")
        self.assertLess(reference.worst(scores, loaded), 1e-4)
        before = reference.plural_scores(model_folder, work, lines, adapter)
        trained = reference.reference_scores(model, lines)
        moved = reference.worst(before, trained)
        self.assertGreater(moved, 0.05)  # the steps are large enough to mean something
        self.assertLess(reference.worst(scores, trained), 0.02 * moved)


if __name__ == "__main__":
    unittest.main()
