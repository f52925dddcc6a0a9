"""Parts of the checklist that measure: a 7B shape with LoRA in bf16, and replies of such a model.

A figure is no judgement: these checks pass where the runs end, and agree where they should.
"""

import json
import re
import shutil
import time

import numpy as np
import programs
from session import BF16, MISTRAL, alike, random_model

import training

REPLIES, TOKENS, PROMPTS = 5, 64, 64


def layouts(session):
    """Tokens per second, utilisation, memory, tree against plain."""
    runs = {}
    for layout in ("tree", "plain"):
        session.results.attempt(f"7B shape, {layout}", lambda: timed_run(session, layout, runs))
        if layout in runs:
            session.results.attempt(f"7B shape, {layout}: memory", lambda: memory(session, runs[layout]))
    if len(runs) == 2:
        session.results.attempt("7B shape, plain / tree", lambda: ratio(runs))


def timed_run(session, layout, runs):
    run = runs[layout] = session.train(
        "model.dtype=bf16",
        f"train.layout={layout}",
        "train.groups_per_step=4",
        "profile=true",
        "profile.after=6",
        "profile.steps=2",
        corpus="large",
        model=random_model(session.large),
        steps=8,
    )
    utilisation = re.search(r"utilisation (\d+\.\d) %", run["table"])
    # Steps before the recorded ones, whose utilisation is that of these, too.
    figures = per_second(run["steps"][2:6])
    return True, {**figures, "utilisation %": float(utilisation[1]) if utilisation else None}


def per_second(steps):
    seconds = sum(step["seconds"] for step in steps)
    return {
        "seconds per step": seconds / len(steps),
        "sequence tokens per second": sum(step["sequence_tokens"] for step in steps) / seconds,
        "rows per second": sum(step["rows"] for step in steps) / seconds,
    }


def memory(session, run):
    """What `plural dry-run` says a rank takes of this device's memory, and what it took."""
    words = ["dry-run", *run["settings"], "--json", "--device", session.device]
    return True, {
        "predicted peak MiB": json.loads(session.plural(*words))["rank_memory_bytes"] >> 20,
        "GPU peak MiB": run["gpu_peak_mib"],
        "host peak MiB": run["host_peak_mib"],
    }


def ratio(runs):
    seconds = {name: per_second(run["steps"][2:6])["seconds per step"] for name, run in runs.items()}
    passed, figures = alike(runs["tree"], runs["plain"], BF16)
    return passed, {"times": seconds["plain"] / seconds["tree"], **figures}


def budgets(session):
    """Rows that share a pass. A step has some 9,700 of them, or 1,100 of the small shape."""
    first = []
    for rows in (1024, 2048, 4096, 8192):
        given = rows // 16 if session.tiny else rows
        session.results.attempt(f"7B shape, row budget {given}", lambda: with_budget(session, given, first))


def with_budget(session, rows, first):
    run = session.train(
        "model.dtype=bf16",
        f"train.row_budget={rows}",
        f"train.groups_per_step={8 if session.tiny else 16}",
        corpus="large",
        model=random_model(session.large),
        steps=5,
    )
    first.append(run)
    passed, figures = alike(first[0], run, BF16)
    measured = {**per_second(run["steps"][2:]), "GPU peak MiB": run["gpu_peak_mib"]}
    return passed, {**measured, **figures}


def replies(session):
    """Five replies of 64 tokens to each of 64 prompts; the folder of weights, 14 GB, is removed again."""
    count, length = (4, 8) if session.tiny else (PROMPTS, TOKENS)
    folder = session.folder / "large-model"
    try:
        write_model(folder, {**MISTRAL, **session.large})
        for batch in (64, REPLIES * count):
            session.results.attempt(
                f"{REPLIES} replies of {length} tokens to {count} prompts, {batch} rows",
                lambda: answered(session, folder, batch, count, length),
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def answered(session, folder, batch, count, length):
    """From the first request to the last answer, after one of warm-up."""
    common = {"responses": REPLIES, "max_new_tokens": length, "min_new_tokens": length, "top_k": 50}
    draw = np.random.default_rng(3)

    def request(name):
        prompt = draw.integers(100, session.large["vocab_size"], draw.integers(90, 210))
        return json.dumps({"id": name, "prompt_tokens": [1, *prompt.tolist()], **common})

    command = [training.PLURAL, "generate", "--stream", "--model", folder, "--dtype", "bf16"]
    command += ["--device", session.device, "--batch", str(batch)]
    with programs.Program(command, session.seconds) as program:

        def answers(requests):
            program.input.write("".join(line + "\n" for line in requests))
            program.input.flush()
            return [json.loads(program.output.readline()) for _ in requests]

        try:
            answers([request("warm-up")])
            start = time.monotonic()
            found = answers([request(f"prompt {k}") for k in range(count)])
            seconds = time.monotonic() - start
            program.input.close()
        except (BrokenPipeError, ValueError):  # it is gone, or wrote a part of a line
            found = None
        code, said = program.ended()
    if code != 0 or found is None:
        raise RuntimeError(f"plural generate ended with {code}: {said}")
    replies = [tuple(response["tokens"]) for answer in found for response in answer["responses"]]
    tokens = sum(map(len, replies))
    return tokens == REPLIES * count * length, {
        "tokens per second": tokens / seconds,
        "seconds": seconds,
        "tokens": tokens,
        "different replies": len(set(replies)),
    }


def write_model(folder, config):
    """Random weights in bf16 as one safetensors file: a block of values over and over, from one tensor to the
    next, of a length that is no multiple of a row's, so that no two rows are alike."""
    hidden, inner, vocabulary = (config[f"{k}_size"] for k in ("hidden", "intermediate", "vocab"))
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": [vocabulary, hidden], "lm_head.weight": [vocabulary, hidden]}
    for layer in range(config["num_hidden_layers"]):
        for name, shape in {
            "self_attn.q_proj": [hidden, hidden],
            "self_attn.k_proj": [keys, hidden],
            "self_attn.v_proj": [keys, hidden],
            "self_attn.o_proj": [hidden, hidden],
            "mlp.gate_proj": [inner, hidden],
            "mlp.up_proj": [inner, hidden],
            "mlp.down_proj": [hidden, inner],
            "input_layernorm": [hidden],
            "post_attention_layernorm": [hidden],
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    shapes["model.norm.weight"] = [hidden]
    header, size = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = size + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [size, end]}
        size = end
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    values = 0.02 * np.random.default_rng(0).standard_normal((1 << 22) + 7, np.float32)
    block = (values.view(np.uint32) >> 16).astype(np.uint16)  # bf16 is fp32's upper half
    one, begin = np.full(hidden, 0x3F80, np.uint16), 0
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            left = int(np.prod(shape)) if len(shape) == 2 else 0
            if left == 0:
                file.write(one.tobytes())
            while left > 0:
                part = block[begin : begin + left]
                file.write(part.tobytes())
                left, begin = left - len(part), (begin + len(part)) % len(block)
