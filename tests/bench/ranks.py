"""Groups a second of two ranks against one, and against two processes that know nothing of each other.

    python tests/bench/ranks.py WORK [--only peft ...] [--steps 6] [--groups-per-step 8] [--repeat 3] [-o
    a.b=c ...]

WORK holds the model and corpora of against_transformers.py. Every process has one compute thread and one
core to itself; the three kinds of run take turns. Two processes share the machine's memory and clock, so
their sum over one process is what two ranks can reach at most. A run's figure is groups by seconds of its
steps after the first; the best of the repetitions counts, since other work on the machine only slows down.
Prints a table and one JSON line per row. Give it an idle machine with two cores.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALL_LINEARS = "[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]"
TARGETS = [
    "method=distribution_matching",
    "adapter.rank=16",
    "adapter.alpha=32",
    f"adapter.targets={ALL_LINEARS}",
]
RECIPES = {
    "peft": [
        "method=peft",
        "adapter.rank=16",
        "adapter.alpha=32",
        "adapter.targets=[q_proj,k_proj,v_proj,lm_head]",
    ],
    "tasks": TARGETS,
    "biographies": TARGETS,
}


def command(arguments, work, name):
    """The command of one run, whose folder is removed first."""
    shutil.rmtree(arguments.work / name, ignore_errors=True)
    recipe = arguments.work / f"{name}.yaml"
    recipe.write_text(f"name: {name}\n")
    plural = os.environ.get("PLURAL_BINARY", str(ROOT / "build/plural"))
    return [
        plural,
        "train",
        str(recipe),
        f"run.dir={arguments.work}",
        "run.threads=1",
        "model.device=cpu",
        f"model.path={arguments.work / 'model'}",
        f"data.train={arguments.work / (work + '.h5')}",
        f"train.steps={arguments.steps + 1}",
        f"train.groups_per_step={arguments.groups_per_step}",
        "checkpoint.every_steps=0",
        *RECIPES[work],
        *arguments.overrides,
    ]


def groups_per_second(arguments, name):
    lines = [json.loads(line) for line in open(arguments.work / name / "metrics.jsonl")]
    steps = [line for line in lines if line["event"] == "step"][1:]
    return sum(line["groups"] for line in steps) / sum(line["seconds"] for line in steps)


def run_all(commands):
    """Runs commands side by side; each ends the program when it fails."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    processes = [
        subprocess.Popen(one, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for one in commands
    ]
    for process, one in zip(processes, commands):
        out = process.communicate()[0]
        if process.returncode != 0:
            sys.exit(f"{' '.join(one)}\nended with {process.returncode}\n{out[-2000:]}")


def one_rank(arguments, work):
    run_all([["taskset", "-c", "0", *command(arguments, work, "bench-one")]])
    return groups_per_second(arguments, "bench-one")


def two_processes(arguments, work):
    names = ["bench-left", "bench-right"]
    run_all(
        [["taskset", "-c", str(core), *command(arguments, work, name)] for core, name in enumerate(names)]
    )
    return sum(groups_per_second(arguments, name) for name in names)


def two_ranks(arguments, work):
    run_all(
        [
            [
                "mpirun",
                "-np",
                "2",
                "--map-by",
                "core",
                "--bind-to",
                "core",
                *command(arguments, work, "bench-two"),
            ]
        ]
    )
    return groups_per_second(arguments, "bench-two")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--steps", type=int, default=6, help="timed steps a run")
    parser.add_argument("--groups-per-step", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "-o", "--overrides", nargs="*", default=[], help="of the recipe: model.dtype=bf16 ..."
    )
    arguments = parser.parse_args()
    if os.cpu_count() < 2:
        sys.exit("this needs a machine with two cores")
    for work in arguments.only:
        for needed in ("model/config.json", f"{work}.h5"):
            if not (arguments.work / needed).exists():
                sys.exit(
                    f"{arguments.work / needed} is missing; tests/bench/against_transformers.py makes it"
                )
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine is not idle (load {load:.1f}): figures are lower than they could be", flush=True)

    print(
        f"{'work':<13}{'one rank':>12}{'two ranks':>12}{'ratio':>8}{'two processes':>15}{'ratio':>8}"
        "   groups per second"
    )
    for work in arguments.only:
        kinds = {"one": one_rank, "two": two_ranks, "unrelated": two_processes}
        best = dict.fromkeys(kinds, 0.0)
        for _ in range(arguments.repeat):
            for kind, measure in kinds.items():
                best[kind] = max(best[kind], measure(arguments, work))
        ratio, limit = best["two"] / best["one"], best["unrelated"] / best["one"]
        print(
            f"{work:<13}{best['one']:12.3f}{best['two']:12.3f}{ratio:8.2f}{best['unrelated']:15.3f}{limit:8.2f}",
            flush=True,
        )
        print(
            json.dumps(
                {
                    "work": work,
                    "load": load,
                    "overrides": arguments.overrides,
                    "groups_per_second": best,
                    "ratio": ratio,
                    "ratio_of_unrelated": limit,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
