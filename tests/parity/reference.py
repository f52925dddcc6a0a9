"""The common part of the parity tests: tiny models made by transformers, the program under test, reference
figures."""

import contextlib
import json
import os
import pathlib
import subprocess
from unittest import mock

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

VOCAB = 96
disable_progress_bar()  # so that the report shows the tests


def make_model(folder, family="llama", seed=0, dtype=torch.float32, shard_size="1GB", **settings):
    """Saves a random model whose logits spread over several nats, so that errors are not hidden by flat
    rows."""
    torch.manual_seed(seed)
    common = dict(
        vocab_size=VOCAB,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
    )
    common.update(settings)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **common), dtype=dtype)
    around = 0.0 if family.startswith("gemma") else 1.0  # Gemma's norms multiply by 1 + weight
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(std=0.5)
            elif weight.dim() == 1:
                weight.uniform_(around - 0.5, around + 0.5)
            else:
                weight.normal_(std=0.15)
    model.save_pretrained(folder, max_shard_size=shard_size)


def load(folder, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def plural(*arguments, expect=0):
    """Runs the program; returns its standard error."""
    command = [os.environ["PLURAL_BINARY"], *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != expect:
        raise AssertionError(
            f"{' '.join(command)}: exit code {done.returncode}, expected {expect}\n{done.stdout}{done.stderr}"
        )
    return done.stderr


def write_lines(path, lines):
    pathlib.Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def plural_scores(folder, work, lines, adapter=None):
    """Token log-probabilities of each line, in order."""
    source, target = pathlib.Path(work) / "sequences.jsonl", pathlib.Path(work) / "scores.jsonl"
    write_lines(source, lines)
    extra = ["--adapter", adapter] if adapter else []
    plural("score", "--model", folder, "--input", source, "-o", target, "--force", "--threads", 1, *extra)
    scores = read_lines(target)
    assert [s["id"] for s in scores] == [line["id"] for line in lines]
    for s in scores:
        assert abs(s["logprob"] - sum(s["token_logprobs"])) < 1e-9
    return [s["token_logprobs"] for s in scores]


def reference_scores(model, lines):
    scores = []
    for line in lines:
        prompt, response = line["prompt_tokens"], line["response_tokens"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        log_p = torch.log_softmax(logits.double(), -1)
        scores.append(log_p.gather(1, torch.tensor(response)[:, None])[:, 0].tolist())
    return scores


def random_lines(count, seed=0, shared_prompts=True, longest=30):
    """Sequences of which neighbours share prompts and beginnings of responses, as in a group."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    def tokens(low, high):
        return torch.randint(3, VOCAB, (draw(low, high),), generator=generator).tolist()

    lines, prompt, response = [], [1, *tokens(1, longest)], tokens(2, longest)
    for i in range(count):
        if not shared_prompts or draw(0, 4) == 0:
            prompt = [1, *tokens(1, longest)]
        response = response[: draw(0, len(response))] + tokens(1, longest // 2)
        lines.append({"id": f"s{i}", "prompt_tokens": prompt, "response_tokens": [*response, 2]})
    return lines


def vocabulary_lines(prompt):
    """One response a vocabulary token: their scores are the whole log-softmax row after the prompt."""
    return [{"id": token, "prompt_tokens": prompt, "response_tokens": [token]} for token in range(VOCAB)]


@contextlib.contextmanager
def double_precision():
    """Lets transformers compute norms, angles and softmax in fp64, too, where it asks for fp32 by name."""
    with (
        mock.patch.multiple(torch, float=torch.float64, float32=torch.float64),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def load_double(folder):
    """The model in fp64, to be run under double_precision."""
    weights = load(folder).double().state_dict()
    with double_precision():
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder), dtype=torch.float64, attn_implementation="eager"
        )
    model.load_state_dict(weights)
    return model.eval()


def worst(a, b):
    """Largest difference between two lists of lists of equal shape."""
    assert [len(x) for x in a] == [len(y) for y in b]
    return max(abs(p - q) for x, y in zip(a, b) for p, q in zip(x, y))
