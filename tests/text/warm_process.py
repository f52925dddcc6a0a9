"""Runs the text program in processes that begin with its libraries in memory.

Owns: a server that has imported the libraries and done nothing else, of which each run is a fork, so that no
run sees another's state. Does not own: what is expected of a run. Thread rule: one thread per test process.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# What a command imports on its way: once per test process in place of once per run.
LIBRARIES = {
    "metrics": ["plural_text.metrics.command", "nltk.tokenize.destructive", "nltk.translate.bleu_score"],
    "postprocess": ["plural_text.postprocess"],
    "prepare": ["plural_text.prepare.command", "h5py", "tokenizers"],
    "score": ["plural_text.score", "h5py", "tokenizers", "huggingface_hub._snapshot_download"],
}
# Variables that the interpreter or a library reads when it starts; a run with others of them needs a start.
READ_AT_START = ("PYTHON", "LANG", "LC_", "HF_", "TRANSFORMERS_", "OMP_", "XDG_", "HOME")


def is_enough(word: str, environment: dict | None) -> bool:
    """Whether a fork is like a start of its own for this command in this environment."""
    changed = set((environment or os.environ).items()) ^ set(os.environ.items())
    return word in LIBRARIES and not any(key.startswith(READ_AT_START) for key, _ in changed)


def run(arguments: list[str], environment=None, folder=None, timeout_seconds=300):
    """As subprocess.run of `python -m plural_text` with text=True; `arguments` begin with the command.

    Errors: subprocess.TimeoutExpired, after the run was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["plural_text.__main__", *LIBRARIES[arguments[0]]])
    with tempfile.TemporaryDirectory() as outputs:
        paths = [Path(outputs) / name for name in ("stdout", "stderr")]
        given = (arguments, dict(environment or os.environ), str(folder or Path.cwd()), *map(str, paths))
        process = context.Process(target=_text_program, args=given)
        process.start()
        process.join(timeout_seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout_seconds)
        return subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_text() for path in paths))


def _text_program(arguments, environment, folder, stdout, stderr):
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    from plural_text.__main__ import main

    sys.exit(main(arguments))
