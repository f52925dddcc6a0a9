"""All that needs a GPU, in one go: exactness, types, NCCL, and what a 7B-shaped model does a second.

    tests/gpu/checklist [-o DIR]                    on the GPU; 69 where there is none
    tests/gpu/checklist --device cpu --tiny         the same list on small shapes, to try the list itself

Everything is made here: random weights, random tokens in the lengths of real dialogues. Each check prints a
line; the figures go to DIR/checklist.json. Ends with 1 when a check fails.
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("PLURAL_BINARY", str(ROOT / "build/plural"))
for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
    os.environ.setdefault(name, "1")
sys.path.insert(0, str(ROOT / "tests"))
import generation

import training

NO_GPU = 69
# fp32 sums of some thousand terms, in another order: 6e-8 * sqrt(1e4), with a factor of ten for what layers
# make of it. bf16 keeps 8 bits, 4e-3 a value; a loss is a mean over many. NF4 on two devices is the same
# numbers in fp32.
FP32, BF16 = 1e-4, 2e-2

# Weights large enough that every part shows in the loss.
SMALL = {
    "initializer_range": 0.2,
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SEVEN_B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
TINY_SEVEN_B = {
    **SEVEN_B,
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 224,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
}

ADAPTER = "rank: 16, alpha: 32, targets: [q_proj, k_proj, v_proj, lm_head]"


def config(shape):
    common = {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "initializer_range": 0.02,
    }
    return json.dumps({**common, **shape})


def groups(count, vocabulary, prompt_tokens, response_tokens):
    """peft groups: prompts and four responses of about these lengths, tails of 6 tokens."""
    draw = random.Random(1)
    tokens = lambda n: [draw.randrange(100, vocabulary) for _ in range(n)]
    made = []
    for _ in range(count):
        prompt = [1, *tokens(draw.randint(prompt_tokens // 2, prompt_tokens * 3 // 2))]
        tails = [[3]] + [[4 + k, *tokens(5)] for k in range(9)]
        answers = [
            ([*tokens(draw.randint(response_tokens // 2, response_tokens * 3 // 2)), training.END])
            for _ in range(4)
        ]
        made.append((prompt, tails, [(a, [7] * (len(a) - 1) + [0], 1.0) for a in answers]))
    return made


class GpuMemory(threading.Thread):
    """The most memory that the driver reports in use while this runs; None without its program."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak_mib, self.stopping = None, threading.Event()

    def run(self):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while shutil.which(query[0]) and not self.stopping.wait(0.2):
            used = subprocess.run(query, capture_output=True, text=True).stdout.split()
            if used:
                self.peak_mib = max(self.peak_mib or 0, int(used[0]))

    def stop(self):
        self.stopping.set()
        self.join()
        return self.peak_mib


class Checklist:
    def __init__(self, arguments):
        self.arguments, self.folder = arguments, pathlib.Path(arguments.output).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results, self.runs = [], 0
        self.corpora = {}
        for name, vocabulary, lengths in (
            ("small", SMALL["vocab_size"], (60, 12)),
            ("large", self.large_shape()["vocab_size"], (20, 6) if arguments.tiny else (180, 25)),
        ):
            self.corpora[name] = self.folder / f"{name}.h5"
            training.write_corpus(
                self.corpora[name],
                groups(24, vocabulary, *lengths),
                vocabulary=[b"<%d>" % i for i in range(vocabulary)],
            )

    def large_shape(self):
        return TINY_SEVEN_B if self.arguments.tiny else SEVEN_B

    def train(self, *overrides, corpus="small", model=None, adapter=ADAPTER, device=None, ranks=0, steps=3):
        """A run's step lines, table and peak memories. `model`: what a recipe's model section holds."""
        self.runs += 1
        name = f"check-{self.runs}"
        shutil.rmtree(self.folder / name, ignore_errors=True)
        recipe = self.folder / f"{name}.yaml"
        recipe.write_text(
            f"name: {name}\nmethod: peft\nmodel: {{{model or self.random(SMALL)}}}\n"
            f"adapter: {{{adapter}}}\noptimizer: {{lr: 1.0e-3}}\n"
        )
        settings = [
            str(recipe),
            f"run.dir={self.folder}",
            f"train.steps={steps}",
            f"data.train={self.corpora[corpus]}",
            f"model.device={device or self.arguments.device}",
            "train.groups_per_step=4",
            "checkpoint.every_steps=0",
            *overrides,
        ]
        command = [training.PLURAL, "train", *settings]
        memory = GpuMemory()
        memory.start()
        result = subprocess.run(
            training.mpirun(ranks) + command if ranks else command, capture_output=True, text=True
        )
        peak_mib = memory.stop()
        if result.returncode == NO_GPU:
            sys.stderr.write(result.stderr)
            sys.exit(NO_GPU)
        if result.returncode != 0:
            raise RuntimeError(f"plural train ended with {result.returncode}: {result.stderr.strip()[-500:]}")
        lines = [json.loads(line) for line in open(self.folder / name / "metrics.jsonl")]
        table = self.folder / name / "profile/rank-00000.txt"
        return {
            "steps": [line for line in lines if line["event"] == "step"],
            "gpu_peak_mib": peak_mib,
            "host_peak_mib": lines[-1].get("peak_host_memory_bytes", 0) >> 20,
            "table": table.read_text() if table.exists() else "",
            "settings": settings,
        }

    def predicted_mib(self, settings):
        """What `plural dry-run` says a rank takes of this device's memory."""
        command = [training.PLURAL, "dry-run", *settings, "--json", "--device", self.arguments.device]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(result.stdout)["rank_memory_bytes"] >> 20

    @staticmethod
    def random(shape):
        return f"config: {config(shape)}"

    def folder_of_weights(self):
        """A small model on disk, trained for a step: random weights of a recipe are not quantised."""
        self.train(adapter="type: none", steps=1)
        return f"path: {self.folder}/check-{self.runs}/model"

    def report(self, name, passed, figures):
        self.results.append({"check": name, "passed": passed, **figures})
        shown = ", ".join(
            f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in figures.items()
        )
        print(f"{'pass' if passed else 'FAIL'}  {name}: {shown}", flush=True)

    def same_losses(self, name, tolerance, left, right):
        """Compares two runs step by step, given as arguments of train."""
        try:
            one, other = (
                [step["loss"] for step in self.train(*args, **options)["steps"]]
                for args, options in (left, right)
            )
        except RuntimeError as error:
            return self.report(name, False, {"error": str(error)})
        apart = max(abs(a - b) / abs(a) for a, b in zip(one, other))
        self.report(name, apart <= tolerance, {"largest relative difference": apart, "allowed": tolerance})

    def exactness(self):
        self.same_losses("tree = plain, fp32", FP32, ((), {}), (("train.layout=plain",), {}))
        self.same_losses(
            "tree = plain, bf16",
            BF16,
            (("model.dtype=bf16",), {}),
            (("model.dtype=bf16", "train.layout=plain"), {}),
        )
        self.same_losses("bf16 against fp32", BF16, ((), {}), (("model.dtype=bf16",), {}))
        weights = self.folder_of_weights()
        self.same_losses(
            "NF4 on this device against the CPU",
            FP32,
            (("model.quantize=nf4",), {"model": weights}),
            (("model.quantize=nf4",), {"model": weights, "device": "cpu"}),
        )
        # Dropped and kept are drawn alike to the bit; what differs is the order of sums.
        dropout = ("adapter.dropout=0.1",)
        self.same_losses(
            "dropout on this device against the CPU", FP32, (dropout, {}), (dropout, {"device": "cpu"})
        )
        one_order = ("model.dtype=bf16", "run.deterministic=true")
        self.same_losses("run.deterministic, twice", 0.0, (one_order, {}), (one_order, {}))
        # One rank under mpirun on a GPU sums with NCCL; on the CPU with MPI.
        self.same_losses(
            "NCCL against MPI, one rank", FP32, ((), {"ranks": 1}), ((), {"ranks": 1, "device": "cpu"})
        )

    def commands(self):
        """What other commands compute, on this device and on the CPU."""
        model = self.folder_of_weights().removeprefix("path: ")
        try:
            this, cpu = (
                self.computed(model, name, device)
                for name, device in (("this", self.arguments.device), ("cpu", "cpu"))
            )
        except RuntimeError as error:
            return self.report("other commands", False, {"error": str(error)})
        # Of two nearly equal tokens the other may be likelier, and all behind it are then others, too.
        same = [a["tokens"] == b["tokens"] for a, b in zip(this["answers"], cpu["answers"])]
        apart = [
            abs(a["logprob_nats"] / b["logprob_nats"] - 1)
            for a, b, equal in zip(this["answers"], cpu["answers"], same)
            if equal
        ]
        self.report(
            "generate: greedy answers as on the CPU",
            sum(same) >= 0.8 * len(same) and max(apart) <= FP32,
            {"same": sum(same), "of": len(same), "largest relative difference": max(apart, default=1.0)},
        )
        for name in ("score", "evaluate"):
            apart = max(abs(a / b - 1) for a, b in zip(this[name], cpu[name], strict=True))
            self.report(
                f"{name}: as on the CPU",
                apart <= FP32,
                {"largest relative difference": apart, "allowed": FP32},
            )

    def computed(self, model, name, device):
        """Greedy answers, scores of this device's answers, exact figures."""
        corpus = ["--corpus", str(self.corpora["small"]), "--limit", "12"]
        file = lambda what: str(self.folder / f"{what}-{name}.jsonl")
        given = str(self.folder / "answers.jsonl")  # scored on both
        say = lambda *words: self.plural(*words, "--model", model, "--device", device, "--force")
        sampled = ["--responses", "1", "--max-new-tokens", "16", "--temperature", "0"]
        say("generate", *corpus, *sampled, "-o", file("generate"))
        if name == "this":
            shutil.copy(file("generate"), given)
        say("score", "--input", given, "-o", file("score"))
        say("evaluate", *corpus, "-o", file("evaluate"))
        lines = {what: [json.loads(line) for line in open(file(what))] for what in ("generate", "score")}
        return {
            "answers": [line["responses"][0] for line in lines["generate"]],
            "score": [line["logprob"] for line in lines["score"]],
            "evaluate": [json.load(open(file("evaluate")))["summary"]["nats_per_token"]],
        }

    @staticmethod
    def plural(*words, without=""):
        environment = {**os.environ, "PLURAL_WITHOUT_KERNELS": without}
        result = subprocess.run([training.PLURAL, *words], capture_output=True, text=True, env=environment)
        if result.returncode != 0:
            raise RuntimeError(f"plural {words[0]} ended with {result.returncode}: {result.stderr[-500:]}")

    def kernels(self):
        """Each kernel of the module against the loops of the CPU, and its speed; on the CPU emulated."""
        program = pathlib.Path(training.PLURAL).parent / "tests/kernel_check"
        command = [
            str(program),
            "--device",
            self.arguments.device,
            *(["--tiny"] if self.arguments.tiny else []),
        ]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == NO_GPU:
            sys.stderr.write(result.stderr)
            sys.exit(NO_GPU)
        for line in map(json.loads, result.stdout.splitlines()):
            self.report(f"kernel: {line.pop('check')}", line.pop("passed"), line)
        if result.returncode not in (0, 1):  # 1: a line above says which
            error = f"kernel_check ended with {result.returncode}: {result.stderr.strip()[-500:]}"
            self.report("kernels", False, {"error": error})

    def speed(self):
        """A 7B shape with LoRA in bf16: tokens per second, utilisation, memory, tree against plain."""
        seconds = {}
        for layout in ("tree", "plain"):
            try:
                run = self.train(
                    "model.dtype=bf16",
                    f"train.layout={layout}",
                    "profile=true",
                    "profile.after=6",
                    "profile.steps=2",
                    corpus="large",
                    model=self.random(self.large_shape()),
                    steps=8,
                )
            except RuntimeError as error:
                self.report(f"7B shape, {layout}", False, {"error": str(error)})
                continue
            timed = run["steps"][2:6]  # before the recorded ones, whose utilisation is that of these, too
            mean = {
                key: sum(step[key] for step in timed) / len(timed)
                for key in ("seconds", "sequence_tokens", "rows")
            }
            seconds[layout] = mean["seconds"]
            utilisation = re.search(r"utilisation (\d+\.\d) %", run["table"])
            self.report(
                f"7B shape, {layout}",
                True,
                {
                    "seconds per step": seconds[layout],
                    "sequence tokens per second": mean["sequence_tokens"] / mean["seconds"],
                    "rows per second": mean["rows"] / mean["seconds"],
                    "utilisation %": float(utilisation.group(1)) if utilisation else None,
                    "predicted peak MiB": self.predicted_mib(run["settings"]),
                    "GPU peak MiB": run["gpu_peak_mib"],
                    "host peak MiB": run["host_peak_mib"],
                },
            )
        if len(seconds) == 2:
            self.report("7B shape, plain / tree", True, {"times": seconds["plain"] / seconds["tree"]})


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes in place of 7B")
    parser.add_argument("-o", "--output", default="gpu-checklist")
    arguments = parser.parse_args()
    checklist = Checklist(arguments)
    start = time.time()
    checklist.kernels()
    checklist.exactness()
    checklist.commands()
    generation.check(checklist)
    checklist.speed()
    result = {
        "device": arguments.device,
        "tiny": arguments.tiny,
        "seconds": time.time() - start,
        "checks": checklist.results,
    }
    (checklist.folder / "checklist.json").write_text(json.dumps(result, indent=1) + "\n")
    failed = sum(not check["passed"] for check in checklist.results)
    print(
        f"{len(checklist.results) - failed} of {len(checklist.results)} checks passed, "
        f"{result['seconds']:.0f} s"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
