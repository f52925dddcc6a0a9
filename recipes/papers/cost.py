"""What a table would take, before anything starts: arithmetic of training and of answers, hours, disk.

Owns: the count of what answering costs at most. Does not own: what training costs (plural dry-run).
Thread rule: values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py

from plural_text.sweep.planned import Planned
from stages import config_of

_PRESETS = {"dialogue": 5, "distribution": 1000}
_MOST_TOKENS = 64
# Of a conversation (docs/metrics.md).
_CONVERSATIONS, _OPENING, _UTTERANCES = 300, 4, 30


def cost_lines(planned: Planned, tflops: float | None) -> Sequence[str]:
    """tflops: that a card sustains, of training and of answers; without it no hours."""
    work = planned.check()
    left = [run for run in planned.runs if planned.folder.state(run) != "finished"]
    training = answers = 0.0
    weights = set()
    for run in left:
        parameters = matrix_parameters(config_of(run.recipe))
        weights.add(parameters)
        if not run.untrained:
            sizes = work[run.setting.label]
            training += sizes["gflop_per_group"] * sizes["groups_per_step"] * sizes["steps"]
        for one in run.evaluations:
            if "generate" in one.steps:
                answers += answer_gflop(parameters, one.steps["generate"], run.recipe["cvf"]["latents"])
            if "persona" in one.steps:
                answers += persona_gflop(parameters, one.steps["persona"])
    disk = sum(work[run.setting.label]["disk_bytes"] for run in left if not run.untrained)
    lines = [
        f"weights that a token passes: {', '.join(f'{one:,}' for one in sorted(weights)) or 'none'}",
        f"left: training {training:,.0f} GFLOP; answers at most {answers:,.0f} GFLOP; "
        f"disk {disk / 2**30:,.1f} GiB",
    ]
    if tflops:
        hours = (training + answers) / (tflops * 1e3) / 3600
        lines.append(
            f"at {tflops:g} TFLOP per second: {hours:,.2f} hours on one card, {hours / 8:,.2f} on eight"
        )
    else:
        lines.append("hours: --tflops N says how many TFLOP per second a card reaches")
    return lines


def answer_gflop(parameters: int, options: Mapping[str, Any], latents: int) -> float:
    """2 x weights x tokens, of the prompts once and of answers as long as they may be; where answers are
    rated, also of the question about each with the answer in it. Attention's own part, which these short
    texts have little of, is left out. latents: of the adapter; each answers where the options say all."""
    prompts, tokens = _prompts(options["corpus"], options.get("limit"))
    responses = int(options.get("responses") or _PRESETS.get(str(options.get("preset")), 5))
    each = int(options.get("max-new-tokens") or (1024 if options.get("method") == "list" else _MOST_TOKENS))
    if options.get("method") == "list":
        responses = 1
    if options.get("latents") == "all":
        responses = latents
    passed = tokens + prompts * responses * each
    if "rating-corpus" in options:
        _, question = _prompts(options["rating-corpus"], options.get("limit"))
        passed += responses * (question + prompts * each)
    return 2e-9 * parameters * passed


def persona_gflop(parameters: int, options: Mapping[str, Any]) -> float:
    """2 x weights x tokens of the longest conversations that `plural persona` holds, every turn as long as
    the model's may be: it says every second utterance behind the opening, and reads all that was said
    before."""
    each = int(options.get("max-new-tokens") or _MOST_TOKENS)
    passed = sum(each * utterance for utterance in range(_OPENING + 2, _UTTERANCES + 1, 2))
    return 2e-9 * parameters * int(options.get("conversations") or _CONVERSATIONS) * passed


def _prompts(corpus: str, limit: int | None) -> tuple[int, int]:
    """How many are answered, and their tokens."""
    with h5py.File(corpus) as file:
        offsets = file["prompt_offsets"][()]
    prompts = min(len(offsets) - 1, limit or len(offsets) - 1)
    return prompts, int(offsets[prompts] - offsets[0])


def matrix_parameters(config: Mapping[str, Any]) -> int:
    """Of the matrices that each token is multiplied with: the blocks' and the head's."""
    width = int(config["hidden_size"])
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or width // heads)
    key_value = int(config.get("num_key_value_heads") or heads) * head
    block = width * (2 * heads * head + 2 * key_value) + 3 * width * int(config["intermediate_size"])
    return int(config["num_hidden_layers"]) * block + width * int(config["vocab_size"])
