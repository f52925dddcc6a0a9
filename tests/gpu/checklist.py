"""All that needs a GPU: exactness, types, NCCL, and what a 7B-shaped model does per second.

    tests/gpu/checklist [-o DIR]                    on the GPU; where there is none 69, and nothing is written
    tests/gpu/checklist --only kernels,exactness    some sections; the results of others in DIR stay
    tests/gpu/checklist --device cpu --tiny         the same list on small shapes, to try the list itself

Sections:
{sections}

Everything is made here: random weights, random tokens in the lengths of real dialogues. Each check prints a
line, and DIR/checklist.json has it from there on. What goes wrong, in whatever way, is a failed check, and
the list goes on. Ends with 1 when a check failed, 75 when it was stopped.
"""

import argparse
import json
import os
import pathlib
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("PLURAL_BINARY", str(ROOT / "build/plural"))
for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
    os.environ.setdefault(name, "1")
sys.path.insert(0, str(ROOT / "tests"))
import answers
import exactness
import models
import programs
import results
import session
import speed

import training

NO_GPU, STOPPED = 69, 75
KERNEL_CHECK = pathlib.Path(training.PLURAL).parent / "tests/kernel_check"


def kernels(session):
    """Each kernel of the module against the loops of the CPU, and its speed; on the CPU emulated."""
    command = [KERNEL_CHECK, "--device", session.device, *(["--tiny"] if session.tiny else [])]
    failed = 0
    with programs.Program(command, session.seconds) as program:
        for line in map(json.loads, program.output):
            failed |= not line["passed"]
            session.results.report(f"kernel: {line.pop('check')}", line.pop("passed"), line)
        code, said = program.ended()
    if code != failed:  # 1: a line above says which
        raise RuntimeError(f"kernel_check ended with {code}: {said}")


# By what a fault in one says about the others.
SECTIONS = {
    "kernels": (kernels, "each kernel of the module by itself, against the CPU's loops"),
    "exactness": (exactness.check, "layouts, types, NF4, dropout, layers computed twice, NCCL, equal bits"),
    "resume": (exactness.resume, "a run that was killed and goes on, against one that was not"),
    "methods": (models.methods, "every method: tree against plain, this device against the CPU"),
    "families": (models.families, "every family of models: this device against the CPU"),
    "commands": (answers.commands, "generate, score, evaluate: this device against the CPU"),
    "generation": (answers.kernels_of_generation, "answers with each kernel for generation and without"),
    "sanitizer": (exactness.sanitizer, "a step under compute-sanitizer, where that is found"),
    "speed": (speed.layouts, "a 7B shape: tokens per second, utilisation, memory, tree against plain"),
    "budgets": (speed.budgets, "a 7B shape: row budgets of 1,024 to 8,192"),
    "replies": (speed.replies, "a 7B shape: tokens per second of replies"),
}


def look_for_gpu():
    """Ends with 69 where there is no GPU. Whatever else goes wrong is for the checks to find."""
    try:
        with programs.Program([KERNEL_CHECK, "--look"], 120) as program:
            code, said = program.ended()
    except OSError:
        return
    if code == NO_GPU:
        print(said, file=sys.stderr)
        sys.exit(NO_GPU)


def chosen(text):
    names = text.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is no section; allowed are {', '.join(SECTIONS)}")
    return [name for name in SECTIONS if name in names]


def parsed():
    sections = "\n".join(f"    {name:12}{what}" for name, (_, what) in SECTIONS.items())
    parser = argparse.ArgumentParser(
        description=__doc__.format(sections=sections), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes in place of 7B")
    parser.add_argument("--only", type=chosen, default=list(SECTIONS), metavar="SECTION,...")
    parser.add_argument("--seconds", type=float, default=540, help="how long one program may take (540)")
    parser.add_argument("-o", "--output", default="gpu-checklist")
    return parser.parse_args()


def stop(_number, _frame):
    raise KeyboardInterrupt


def main():
    arguments = parsed()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks
            signal.signal(number, stop)
    if arguments.device == "cuda":
        look_for_gpu()
    folder = pathlib.Path(arguments.output).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    found = results.Results(folder / "checklist.json", arguments.device, arguments.tiny)
    place = session.Session(folder, found, arguments.device, arguments.tiny, arguments.seconds)
    for name in arguments.only:
        found.begin(name)
        try:
            SECTIONS[name][0](place)
        except Exception as error:
            found.fail(name, error)
        found.end()
    passed, line = found.summary()
    print(line)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped; what was found stays in the list", file=sys.stderr)
        sys.exit(STOPPED)
