"""Seconds a group: plural against the same training step on transformers and peft, run in turn.

    python tests/bench/against_transformers.py WORK --peers DIR --dialogues FILE --tasks DIR
        [--only peft ...] [--dtypes fp32 bf16] [--programs tree plain lean padded]

One thread, the same made 56 M model (Mistral shape, random weights), the same groups in the same order:

tree     plural
plain    plural with train.layout=plain: every sequence a padded row
lean     transformers, every sequence a padded row, logits on response positions
padded   the same with logits everywhere; for peft with activation checkpointing

Seconds of transformers are what the peers' script prints; plural's are the `seconds` of its metrics lines,
after the same number of warm-up groups. `limit` is the share of the GEMM limit: the model FLOPs of these
groups, as `plural train profile=true` counts them from rows and shapes, by the FLOP/s of its fastest large
multiply of the same dtype in the same process, against the seconds. Peak memory is the operating system's
figure of each process. WORK keeps the model and the corpora for the next run. Prints one table and writes
WORK/bench.json.
"""

import argparse
import itertools
import json
import os
import pathlib
import re
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
            sys.exit(
                f"{' '.join(map(str, command))}\nended with {os.waitstatus_to_exitcode(status)}\n"
                f"{error.read()[-2000:]}"
            )
        return out.read(), usage.ru_maxrss / 2**20


def peers(arguments, groups, model, data, dtype, mode, options):
    script = [
        PYTHON,
        f"{arguments.peers}/hf_group_step.py",
        str(model),
        "--data",
        str(data),
        "--threads",
        "1",
    ]
    script += ["--dtype", {"fp32": "float32", "bf16": "bfloat16"}[dtype]]
    out, peak = run([*script, "--mode", mode, "--groups", str(groups), *options])
    line = json.loads(out.strip().splitlines()[-1])
    return {"seconds_per_group": line["seconds_per_group"], "peak_gib": peak, "losses": line["losses"]}


def plural(arguments, groups, model, corpus, dtype, layout, overrides):
    name = f"bench-{corpus.stem}-{layout}"
    shutil.rmtree(arguments.work / name, ignore_errors=True)
    recipe = arguments.work / f"{name}.yaml"
    recipe.write_text(f"name: {name}\n")
    command = [
        str(ROOT / "launch/plural"),
        "train",
        str(recipe),
        f"run.dir={arguments.work}",
        "run.threads=1",
    ]
    command += [f"model.path={model}", f"data.train={corpus}", "data.shuffle=false", f"model.dtype={dtype}"]
    command += ["train.groups_per_step=1", f"train.layout={layout}", "checkpoint.every_steps=0", *overrides]
    _, peak = run([*command, f"train.steps={groups + arguments.warmup}"])
    lines = [json.loads(line) for line in open(arguments.work / name / "metrics.jsonl")]
    lines = [line for line in lines if line["event"] == "step"]
    seconds = [line["seconds"] for line in lines[arguments.warmup :]]
    found = {
        "seconds_per_group": sum(seconds) / len(seconds),
        "peak_gib": peak,
        "losses": [line["loss"] for line in lines],
    }
    if layout == "tree":
        found["limit"] = limit_seconds(arguments, groups, name, command) / found["seconds_per_group"]
    return found


def limit_seconds(arguments, groups, name, command):
    """Seconds a group if nothing but its model FLOPs took time, at the speed of the largest multiplies."""
    shutil.rmtree(arguments.work / name)
    run(
        [
            *command,
            f"train.steps={groups + arguments.warmup}",
            "profile=true",
            f"profile.after={arguments.warmup}",
            f"profile.steps={groups}",
        ]
    )
    table = (arguments.work / name / "profile" / "rank-00000.txt").read_text()
    found = re.search(r"model FLOPs (\S+) GFLOP a step.*threads (\S+) GFLOP/s", table)
    return float(found[1]) / float(found[2])


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
        lines = [
            json.dumps({"id": str(i), "request": t["request"], "response": [""], "targets": t["targets"]})
            for i, t in enumerate(rows)
        ]
        inputs[name][0].write_text("\n".join(lines) + "\n")
    corpora = {}
    for name, (data, form, template) in inputs.items():
        corpora[name] = (data, work / f"{name}.h5")
        if not corpora[name][1].exists():
            run(
                [
                    str(ROOT / "launch/plural"),
                    "prepare",
                    str(data),
                    "--format",
                    form,
                    "--template",
                    template,
                    "--tokenizer",
                    str(model),
                    "-o",
                    str(corpora[name][1]),
                ]
            )
    return model, corpora


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--peers", required=True)
    parser.add_argument("--dialogues", required=True)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--only", nargs="*", default=["peft", "tasks", "biographies"])
    parser.add_argument("--dtypes", nargs="*", default=["fp32", "bf16"])
    parser.add_argument("--programs", nargs="*", default=["tree", "plain", "lean", "padded"])
    parser.add_argument("--groups", type=int, default=4, help="timed groups; of biographies there is one")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    arguments.warmup = 1
    arguments.work.mkdir(parents=True, exist_ok=True)
    model, corpora = make_inputs(arguments)

    dm = ["--method", "dm"]
    dm_recipe = ["method=distribution_matching", "adapter.rank=16", "adapter.alpha=32"]
    dm_recipe += [f"adapter.targets={ALL_LINEARS}"]
    head = "adapter.targets=[q_proj,k_proj,v_proj,lm_head]"
    work = {  # options of the peers' script, what padded adds to them, plural's recipe
        "peft": (["--head-lora"], ["--ckpt"], ["method=peft", "adapter.rank=16", "adapter.alpha=32", head]),
        "tasks": (dm, [], dm_recipe),
        "biographies": (dm, [], dm_recipe),
    }
    results = []
    print(f"{'work':<13}{'dtype':<7}{'program':<9}{'s/group':>9}{'ratio':>8}{'peak GiB':>10}{'limit %':>9}")
    for name, dtype, _ in itertools.product(arguments.only, arguments.dtypes, range(arguments.repeat)):
        data, corpus = corpora[name]
        options, padded, recipe = work[name]
        groups = 1 if name == "biographies" else arguments.groups
        first = None
        for program in arguments.programs:
            if program in ("tree", "plain"):
                row = plural(arguments, groups, model, corpus, dtype, program, recipe)
            else:
                added = padded if program == "padded" else []
                row = peers(arguments, groups, model, data, dtype, program, options + added)
            first = first or row
            row["ratio"] = row["seconds_per_group"] / first["seconds_per_group"]
            limit = f"{100 * row['limit']:9.1f}" if "limit" in row else ""
            print(
                f"{name:<13}{dtype:<7}{program:<9}{row['seconds_per_group']:9.3f}{row['ratio']:8.2f}"
                f"{row['peak_gib']:10.2f}{limit}",
                flush=True,
            )
            results.append({"work": name, "dtype": dtype, "program": program, **row})
    (arguments.work / "bench.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
