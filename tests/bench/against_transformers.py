"""Seconds a group: plural against the same training step on transformers and peft, run in turn.

    python tests/bench/against_transformers.py WORK --peers DIR --dialogues FILE --tasks DIR [--only peft ...]

One thread, fp32, the same made 56 M model (Mistral shape, random weights), the same groups in the same
order. The peers' script prints seconds a group; plural's are the `seconds` of its metrics lines, after the
same number of warm-up groups. Peak memory is the operating system's figure of each process. WORK keeps the
model and the corpora for the next run. Prints one table and writes WORK/bench.json.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = str(ROOT / ".venv/bin/python")
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
ALL_LINEARS = "[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]"


def run(command):
    """Standard output of a command and its own peak memory in GiB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        process = subprocess.Popen(list(map(str, command)), env=ENVIRONMENT, stdout=out, stderr=error)
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0)
        error.seek(0)
        if status != 0:
            sys.exit(f"{' '.join(map(str, command))}\nended with {os.waitstatus_to_exitcode(status)}\n{error.read()[-2000:]}")
        return out.read(), usage.ru_maxrss / 2**20


def peers(arguments, model, data, mode, options):
    script = [PYTHON, f"{arguments.peers}/hf_group_step.py", str(model), "--data", str(data), "--threads", "1"]
    out, peak = run(script + ["--mode", mode, "--groups", str(arguments.groups), *options])
    line = json.loads(out.strip().splitlines()[-1])
    return {"seconds_per_group": line["seconds_per_group"], "peak_gib": peak, "losses": line["losses"]}


def plural(arguments, model, corpus, overrides):
    name = f"bench-{corpus.stem}"
    shutil.rmtree(arguments.work / name, ignore_errors=True)
    recipe = arguments.work / f"{name}.yaml"
    recipe.write_text(f"name: {name}\n")
    steps = arguments.groups + arguments.warmup
    _, peak = run(
        [str(ROOT / "launch/plural"), "train", str(recipe), f"run.dir={arguments.work}", "run.threads=1"]
        + [f"model.path={model}", f"data.train={corpus}", "data.shuffle=false", f"train.steps={steps}"]
        + ["train.groups_per_step=1", "checkpoint.every_steps=0", *overrides]
    )
    lines = [json.loads(line) for line in open(arguments.work / name / "metrics.jsonl")]
    lines = [line for line in lines if line["event"] == "step"]
    seconds = [line["seconds"] for line in lines[arguments.warmup :]]
    return {
        "seconds_per_group": sum(seconds) / len(seconds),
        "peak_gib": peak,
        "losses": [line["loss"] for line in lines],
    }


def make_inputs(arguments):
    """The model, and per kind of work the peers' JSON lines and plural's corpus of them."""
    work = arguments.work
    model = work / "model"
    if not (model / "config.json").exists():
        run([PYTHON, f"{arguments.peers}/make_model.py", str(model)])
    tasks = {p.stem: json.loads(p.read_text()) for p in sorted(pathlib.Path(arguments.tasks).glob("*.json"))}
    biographies = [t for name, t in tasks.items() if name.endswith("people-train")]
    # The largest first, so that the warm-up group is not one of those timed at their extreme.
    sets = [t for t in tasks.values() if 45 <= len(t["targets"]) <= 200]
    inputs = {
        "peft": (pathlib.Path(arguments.dialogues), "dialogue", "mistral-dialogue-short"),
        "tasks": (work / "tasks.jsonl", "targets", "mistral-targets"),
        "biographies": (work / "biographies.jsonl", "targets", "mistral-targets"),
    }
    for name, rows in (("tasks", sets), ("biographies", biographies * 2)):
        lines = [json.dumps({"id": str(i), "request": t["request"], "response": [""], "targets": t["targets"]})
                 for i, t in enumerate(rows)]
        inputs[name][0].write_text("\n".join(lines) + "\n")
    corpora = {}
    for name, (data, form, template) in inputs.items():
        corpora[name] = (data, work / f"{name}.h5")
        if not corpora[name][1].exists():
            run([str(ROOT / "launch/plural"), "prepare", str(data), "--format", form, "--template", template]
                + ["--tokenizer", str(model), "-o", str(corpora[name][1])])
    return model, corpora


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--peers", required=True)
    parser.add_argument("--dialogues", required=True)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--only", nargs="*", default=["peft", "tasks", "biographies"])
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    arguments.warmup = 1
    arguments.work.mkdir(parents=True, exist_ok=True)
    model, corpora = make_inputs(arguments)

    dm = ["--method", "dm"]
    dm_recipe = ["method=distribution_matching", "adapter.rank=16", "adapter.alpha=32"]
    dm_recipe += [f"adapter.targets={ALL_LINEARS}"]
    work = {
        "peft": (
            [("padded", ["--ckpt", "--head-lora"]), ("lean", ["--head-lora"])],
            ["method=peft", "adapter.rank=16", "adapter.alpha=32", "adapter.targets=[q_proj,k_proj,v_proj,lm_head]"],
        ),
        "tasks": ([("padded", dm), ("lean", dm)], dm_recipe),
        "biographies": ([("padded", dm), ("lean", dm)], dm_recipe),
    }
    results = []
    print(f"{'work':<13}{'program':<22}{'s/group':>9}{'ratio':>8}{'peak GiB':>10}")
    for name in arguments.only:
        data, corpus = corpora[name]
        groups = arguments.groups
        if name == "biographies":
            arguments.groups = 1
        for _ in range(arguments.repeat):
            rows = [("plural", plural(arguments, model, corpus, work[name][1]))]
            for mode, options in work[name][0]:
                rows.append((f"transformers {mode}", peers(arguments, model, data, mode, options)))
            for program, row in rows:
                ratio = row["seconds_per_group"] / rows[0][1]["seconds_per_group"]
                print(f"{name:<13}{program:<22}{row['seconds_per_group']:9.3f}{ratio:8.2f}{row['peak_gib']:10.2f}",
                      flush=True)
                results.append({"work": name, "program": program, "ratio": ratio, **row})
        arguments.groups = groups
    (arguments.work / "bench.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
