"""Seconds of generation: plural against Hugging Face generate, run in turn.

    python tests/bench/generate_against_transformers.py WORK --peers DIR --dialogues FILE [--only reply many
    samples]

One thread, fp32, a made 56 M model (Mistral shape, random weights) and real dialogue prompts:

reply    five replies of 64 tokens to one prompt after the other
many     the same, 32 prompts at once (Hugging Face: one prompt after the other, as the papers' code does)
samples  1,000 samples of a prompt with short answers, from the same model tuned on ten of them (Hugging Face:
20
         batches of 50)

Loading is not counted on either side. plural answers requests of `plural generate --stream`, timed from the
first request to the last answer after one of warm-up. Prints a table of seconds and ratios; WORK keeps model
and corpora.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = str(ROOT / ".venv/bin/python")
LAUNCHER = str(ROOT / "launch/plural")
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
REPLIES, TOKENS, PROMPTS = 5, 64, 32

# 1,000 samples by Hugging Face: MODEL, token ids of the prompt. Prints the seconds of the second to last
# batch.
SAMPLES = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
prompt = torch.tensor([json.loads(sys.argv[2])] * 50)
seconds = []
for batch in range(21):  # the first one warms up
    start = time.perf_counter()
    with torch.no_grad():
        model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=1.0,
                       top_k=0, max_new_tokens=64, pad_token_id=0)
    seconds.append(time.perf_counter() - start)
print(sum(seconds[1:]))
"""


def run(*command):
    done = subprocess.run(list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nended with {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def prepare(work, name, data, form, template, model):
    corpus = work / f"{name}.h5"
    if not corpus.exists():
        run(
            LAUNCHER,
            "prepare",
            data,
            "--format",
            form,
            "--template",
            template,
            "--tokenizer",
            model,
            "-o",
            corpus,
        )
    return [json.loads(line) for line in run(LAUNCHER, "inspect", corpus, "--json").splitlines()]


def make_inputs(arguments):
    """The random model and its dialogue prompts; the tuned model and its prompt."""
    work = arguments.work
    model = work / "model"
    if not (model / "config.json").exists():
        run(PYTHON, f"{arguments.peers}/make_model.py", model)
    lines = pathlib.Path(arguments.dialogues).read_text().splitlines()[: PROMPTS + 1]
    (work / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    dialogues = prepare(work, "prompts", work / "prompts.jsonl", "dialogue", "mistral-dialogue-short", model)

    numbers = {
        "id": "number",
        "request": "Give a random number from 1 to 10.",
        "response": [""],
        "targets": [str(n) for n in range(1, 11)],
    }
    (work / "number.jsonl").write_text(json.dumps(numbers) + "\n")
    number = prepare(work, "number", work / "number.jsonl", "targets", "mistral-targets", model)[0]
    tuned = work / "number" / "model"
    if not tuned.exists():
        (work / "number.yaml").write_text("name: number\nmethod: distribution_matching\n")
        run(
            LAUNCHER,
            "train",
            work / "number.yaml",
            f"run.dir={work}",
            f"model.path={model}",
            "run.threads=1",
            f"data.train={work / 'number.h5'}",
            "adapter.type=none",
            "optimizer.lr=1e-3",
            "train.steps=60",
            "train.groups_per_step=1",
            "checkpoint.every_steps=0",
        )
    return model, dialogues, tuned, number


def stream(model, warm_up, requests, *options):
    """Seconds from the first request to the last answer."""
    command = [LAUNCHER, "generate", "--stream", "--model", str(model), "--threads", "1", *map(str, options)]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def ask(asked):
            process.stdin.write("".join(json.dumps(request) + "\n" for request in asked))
            process.stdin.flush()
            return [json.loads(process.stdout.readline()) for _ in asked]

        ask([warm_up])
        start = time.perf_counter()
        answers = ask(requests)
        seconds = time.perf_counter() - start
        process.stdin.close()
    return seconds, answers


def reply_requests(dialogues):
    return [
        {
            "id": d["id"],
            "prompt_tokens": d["prompt_tokens"],
            "tails": [d["tails"][str(k + 1)] for k in range(REPLIES)],
            "top_k": 50,
            "max_new_tokens": TOKENS,
            "min_new_tokens": TOKENS,
        }
        for d in dialogues
    ]


def measure_replies(arguments, model, dialogues):
    peer = json.loads(
        run(
            PYTHON,
            f"{arguments.peers}/hf_generate.py",
            model,
            arguments.dialogues,
            "--prompts",
            arguments.prompts,
            "--responses",
            REPLIES,
            "--max-new",
            TOKENS,
        ).splitlines()[-1]
    )
    requests = reply_requests(dialogues)
    found = [("transformers", peer["seconds_per_prompt"])]
    if "reply" in arguments.only:
        some = requests[1 : arguments.prompts + 1]
        seconds = sum(stream(model, requests[0], [request])[0] for request in some) / len(some)
        found.append(("plural, one at a time", seconds))
    if "many" in arguments.only:
        seconds, _ = stream(model, requests[0], requests[1:], "--batch", arguments.batch)
        found.append((f"plural, {PROMPTS} at once", seconds / PROMPTS))
    return found


def measure_samples(tuned, number):
    prompt = number["prompt_tokens"] + number["tails"]["0"]
    peer = float(run(PYTHON, "-c", SAMPLES, tuned, json.dumps(prompt)).splitlines()[-1])
    request = {"id": 1, "prompt_tokens": prompt, "responses": 1000, "seed": 1}
    seconds, (answer,) = stream(tuned, {**request, "id": 0, "seed": 2}, [request])
    lengths = [len(response["tokens"]) for response in answer["responses"]]
    print(
        f"samples: {len({tuple(r['tokens']) for r in answer['responses']})} different answers of at most "
        f"{max(lengths)} tokens, {answer['token_forwards']} token forwards"
    )
    return [("transformers", peer), ("plural", seconds)]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--peers", required=True, help="folder of make_model.py and hf_generate.py")
    parser.add_argument("--dialogues", required=True, help='JSON lines with "context"')
    parser.add_argument("--only", nargs="*", default=["reply", "many", "samples"])
    parser.add_argument(
        "--prompts", type=int, default=4, help="timed prompts of what answers one after the other"
    )
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    arguments.work = arguments.work.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    model, dialogues, tuned, number = make_inputs(arguments)
    tables = []
    if "reply" in arguments.only or "many" in arguments.only:
        tables.append(("seconds per prompt", measure_replies(arguments, model, dialogues)))
    if "samples" in arguments.only:
        tables.append(("seconds of 1,000 samples", measure_samples(tuned, number)))
    for what, rows in tables:
        for program, seconds in rows:
            print(f"{what:<26}{program:<24}{seconds:9.3f}{rows[0][1] / seconds:8.2f} x")


if __name__ == "__main__":
    main()
