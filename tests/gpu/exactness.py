"""Parts of the checklist where two runs of `plural train` must agree, or one must go on as if not stopped."""

import shutil
import signal

import programs
from session import ALL_WEIGHTS, BF16, FP32, alike, of, read

import training


def check(session):
    plain, bf16, cpu = "train.layout=plain", "model.dtype=bf16", {"device": "cpu"}
    same, compare = session.rounding, session.compare
    compare("tree = plain, fp32", FP32, of(), of(plain))
    compare("tree = plain, bf16", BF16, of(bf16), of(bf16, plain))
    compare("bf16 against fp32", BF16, of(), of(bf16))
    compare("fp32 on this device against the CPU", same, of(), of(**cpu))
    # Dropped and kept are drawn alike to the bit; what differs is the order of sums.
    once = ("adapter.dropout=0.1", "train.activation_checkpointing=off")
    twice = ("adapter.dropout=0.1", "train.activation_checkpointing=on")
    compare("dropout on this device against the CPU", same, of(*once), of(*once, **cpu))
    compare("layers computed twice against once", same, of(*once), of(*twice))
    every = {"adapter": ALL_WEIGHTS}
    compare("all weights on this device against the CPU", same, of(**every), of(**every, **cpu))
    # One rank under mpirun on a GPU sums with NCCL; on the CPU with MPI.
    compare("NCCL against MPI, one rank", same, of(ranks=1), of(ranks=1, **cpu))
    session.results.attempt("NF4 on this device against the CPU", lambda: nf4(session))
    session.results.attempt("run.deterministic, twice", lambda: deterministic(session))


def nf4(session):
    model = f"path: {session.weights()}"
    runs = [
        session.trained("model.quantize=nf4", model=model, device=device)
        for device in (session.device, "cpu")
    ]
    return alike(*runs, session.rounding)


def deterministic(session):
    one, other = (session.train("model.dtype=bf16", "run.deterministic=true") for _ in range(2))
    passed, figures = alike(one, other, 0.0)
    figures["the same adapter"] = adapter_of(one["folder"]) == adapter_of(other["folder"])
    return passed and figures["the same adapter"], figures


def resume(session):
    """A run that is killed and goes on, against one that was left alone."""
    one_order = ("run.deterministic=true", "model.dtype=bf16")
    for name, allowed, overrides in (
        ("killed and gone on with", session.rounding, ()),
        ("killed and gone on with, run.deterministic", 0.0, one_order),
    ):
        session.results.attempt(name, lambda: killed(session, allowed, overrides))


def killed(session, allowed, overrides):
    overrides = ("checkpoint.every_steps=2", "checkpoint.asynchronous=off", *overrides)
    calm = session.train(*overrides, steps=6)
    folder, settings = session.recipe(*overrides, steps=6)
    command = [training.PLURAL, "train", *settings]
    programs.run(command, session.seconds, {"PLURAL_FAULT": "kill@0:4"}, code=-signal.SIGKILL)
    programs.run(command, session.seconds)
    resumed = read(folder)
    passed, figures = alike(calm, resumed, allowed)
    passed = passed and "resume" in resumed["events"]
    if allowed == 0.0:
        figures["the same adapter"] = adapter_of(calm["folder"]) == adapter_of(folder)
        passed = passed and figures["the same adapter"]
    return passed, figures


def adapter_of(folder):
    return (folder / "adapter/adapter_model.safetensors").read_bytes()


def sanitizer(session):
    """A step under compute-sanitizer, which sees what a kernel reads or writes out of bounds."""
    name = "a step under compute-sanitizer"
    if session.device == "cpu":
        return session.results.skip(name, "it looks at kernels on a GPU, and this list runs on the CPU")
    if not shutil.which("compute-sanitizer"):
        return session.results.skip(name, "no compute-sanitizer in PATH; it comes with the CUDA toolkit")
    tool = ("compute-sanitizer", "--error-exitcode", "99", "--print-limit", "1")
    words = ("model.dtype=bf16", "adapter.dropout=0.1")

    def check():
        session.train(*words, steps=1, before=tool)
        return True, {}

    return session.results.attempt(name, check)
