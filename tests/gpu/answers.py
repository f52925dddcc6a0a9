"""Parts of the checklist about what other commands compute: on this device and on the CPU, with the kernels
for generation and without.

A draw is keyed by its response and token, wherever it is made: without the kernel that draws, every token is
the same. Another attention rounds otherwise, and of two nearly equal tokens the other may come.
"""

import json
import shutil

from session import FP32, relative

ALIKE = {"sampling": 1.0, "paged": 0.8}  # the share of equal answers without each kernel
WAYS = {
    "greedy answers": ["--temperature", "0"],
    "samples": ["--temperature", "0.9", "--top-k", "40", "--top-p", "0.95", "--seed", "3"],
}


def commands(session):
    """The same model on this device and on the CPU."""
    model = session.weights()
    corpus = ["--corpus", session.corpus("small"), "--limit", "12"]
    devices = {"this": session.device, "cpu": "cpu"}

    def computed(command, *words):
        """What the command writes, on each of both."""
        files = [session.folder / f"{command}-{name}.jsonl" for name in devices]
        for file, device in zip(files, devices.values()):
            session.plural(command, *words, "--model", model, "--device", device, "--force", "-o", file)
        return files

    def generated():
        greedy = ["--responses", "1", "--max-new-tokens", "16", "--temperature", "0"]
        this, cpu = map(responses, computed("generate", *corpus, *greedy))
        # Behind a token that fell otherwise all are others, too.
        same = [(a, b) for a, b in zip(this, cpu, strict=True) if a["tokens"] == b["tokens"]]
        apart = max((relative(a["logprob_nats"], b["logprob_nats"]) for a, b in same), default=1.0)
        figures = {"same": len(same), "of": len(cpu), "largest relative difference": apart}
        return len(same) >= 0.8 * len(cpu) and apart <= FP32, figures

    def scored():
        given = session.folder / "answers.jsonl"
        shutil.copy(session.folder / "generate-cpu.jsonl", given)
        return equal(*([line["logprob"] for line in read(f)] for f in computed("score", "--input", given)))

    def evaluated():
        files = computed("evaluate", *corpus)
        return equal(*([json.loads(f.read_text())["summary"]["nats_per_token"]] for f in files))

    session.results.attempt("generate: greedy answers as on the CPU", generated)
    session.results.attempt("score: as on the CPU", scored)
    session.results.attempt("evaluate: as on the CPU", evaluated)


def equal(this, cpu):
    apart = max(relative(a, b) for a, b in zip(this, cpu, strict=True))
    return apart <= FP32, {"largest relative difference": apart, "allowed": FP32}


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def responses(path):
    return [response for line in read(path) for response in line["responses"]]


def kernels_of_generation(session):
    """With the kernels and without."""
    model = session.weights()
    for name, words in WAYS.items():
        given = []

        def compared(without, share):
            if not given:
                given.extend(tokens(session, model, words, ""))
            same = sum(a == b for a, b in zip(given, tokens(session, model, words, without), strict=True))
            return same >= share * len(given), {"same": same, "of": len(given)}

        for without, share in ALIKE.items():
            session.results.attempt(
                f"generate: {name} without the kernel '{without}'", lambda: compared(without, share)
            )


def tokens(session, model, words, without):
    output = session.folder / "kernels.jsonl"
    corpus = ["--corpus", session.corpus("small"), "--limit", "12"]
    lengths = ["--responses", "2", "--max-new-tokens", "12"]
    place = ["--model", model, "--device", session.device, "--force", "-o", output]
    session.plural("generate", *corpus, *lengths, *words, *place, PLURAL_WITHOUT_KERNELS=without)
    return [response["tokens"] for response in responses(output)]
