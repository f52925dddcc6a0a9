"""What all sections of the checklist share: made inputs, runs of `plural train`, and how two are compared."""

import json
import pathlib
import random
import shutil

import programs

import training

# fp32 sums of some thousand terms, in another order: 6e-8 * sqrt(1e4), with a factor of ten for what layers
# make of it. bf16 keeps 8 bits, 4e-3 a value; losses and norms are sums over many. NF4 on two devices is the
# same numbers in fp32.
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
MISTRAL = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "initializer_range": 0.02,
}

ADAPTER = "rank: 16, alpha: 32, targets: [q_proj, k_proj, v_proj, lm_head]"
ALL_WEIGHTS = "type: none"


def random_model(shape):
    """A recipe's section `model` for random weights of this shape, Mistral's where it says nothing else."""
    return f"config: {json.dumps({**MISTRAL, **shape})}"


def of(*overrides, **options):
    """The arguments of Session.train, for Session.compare."""
    return overrides, options


class Session:
    """`folder`: where everything is made. `seconds`: how long a program may take."""

    def __init__(self, folder, results, device, tiny, seconds):
        self.folder, self.results, self.device, self.tiny = folder, results, device, tiny
        self.seconds, self.count, self.corpora, self.trained_runs = seconds, 0, {}, {}
        self.large = TINY_SEVEN_B if tiny else SEVEN_B
        # Of the same arithmetic in another order; the CPU has one order.
        self.rounding = FP32 if device == "cuda" else 0.0

    def corpus(self, name):
        """The file of one of three corpora: small, targets, large (real dialogues' lengths)."""
        if name in self.corpora:
            return self.corpora[name]
        vocabulary = (self.large if name == "large" else SMALL)["vocab_size"]
        if name == "targets":
            groups = target_groups(12, vocabulary)
        elif name == "large":
            groups = dialogues(24, vocabulary, *((20, 6) if self.tiny else (180, 25)))
        else:
            groups = dialogues(24, vocabulary, 60, 12)
        path, spelling = self.folder / f"{name}.h5", [b"<%d>" % i for i in range(vocabulary)]
        kind = "targets" if name == "targets" else "dialogue"
        training.write_corpus(path, groups, kind, vocabulary=spelling)
        self.corpora[name] = path
        return path

    def recipe(
        self, *overrides, method="poexft", corpus="small", model=None, adapter=ADAPTER, device=None, steps=3
    ):
        """A new run's folder, and what follows `plural train`. `model`: what that section holds."""
        self.count += 1
        folder = self.folder / f"check-{self.count}"
        shutil.rmtree(folder, ignore_errors=True)
        recipe = folder.with_suffix(".yaml")
        # An epsilon that is no rounding's size: of a gradient that cancels, AdamW would step by its sign.
        recipe.write_text(
            f"name: {folder.name}\nmethod: {method}\nmodel: {{{model or random_model(SMALL)}}}\n"
            f"adapter: {{{adapter}}}\noptimizer: {{lr: 1.0e-2, eps: 1.0e-3}}\n"
        )
        return folder, [
            recipe,
            f"run.dir={self.folder}",
            f"train.steps={steps}",
            f"data.train={self.corpus(corpus)}",
            f"model.device={device or self.device}",
            "train.groups_per_step=2",
            "checkpoint.every_steps=0",
            *overrides,
        ]

    def train(self, *overrides, ranks=0, before=(), **options):
        """A new run, done; `before`: words before the command, `ranks`: under mpirun."""
        folder, settings = self.recipe(*overrides, **options)
        words = [*(training.mpirun(ranks) if ranks else before), training.PLURAL, "train", *settings]
        with programs.GpuMemory() as memory:
            programs.run(words, self.seconds)
        return {**read(folder), "settings": settings, "gpu_peak_mib": memory.peak_mib}

    def trained(self, *overrides, **options):
        """As train, once for the same arguments; what failed is not waited for again."""
        key = json.dumps([overrides, {"method": "poexft", "device": self.device, **options}], sort_keys=True)
        if key not in self.trained_runs:
            try:
                self.trained_runs[key] = self.train(*overrides, **options)
            except Exception as error:
                self.trained_runs[key] = error
        if isinstance(self.trained_runs[key], Exception):
            raise self.trained_runs[key]
        return self.trained_runs[key]

    def weights(self):
        """A folder of weights, trained on the CPU for a step: a recipe's random ones are not quantised."""
        return self.trained(adapter=ALL_WEIGHTS, device="cpu", steps=1)["folder"] / "model"

    def compare(self, name, allowed, left, right):
        """A check: losses and gradient norms of two runs, given by `of`, step by step."""

        def check():
            one, other = (self.trained(*overrides, **options) for overrides, options in (left, right))
            return alike(one, other, allowed)

        self.results.attempt(name, check)

    def plural(self, *words, **environment):
        return programs.run([training.PLURAL, *words], self.seconds, environment)


def read(folder):
    """A run's step lines, table and peak memory."""
    lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
    table = folder / "profile/rank-00000.txt"
    return {
        "folder": pathlib.Path(folder),
        "events": [line["event"] for line in lines],
        "steps": [line for line in lines if line["event"] == "step"],
        "host_peak_mib": lines[-1].get("peak_host_memory_bytes", 0) >> 20,
        "table": table.read_text() if table.exists() else "",
    }


def alike(one, other, allowed):
    """Whether two runs' losses and gradient norms are within `allowed` of each other, with the figures."""
    apart = 0.0
    for left, right in zip(one["steps"], other["steps"], strict=True):
        for key in ("loss", "grad_norm"):
            apart = max(apart, relative(left[key], right[key]))
    return apart <= allowed, {"largest relative difference": apart, "allowed": allowed}


def relative(one, other):
    """Infinite where a number is none, which max() would pass over."""
    if one == other:
        return 0.0
    apart = abs(one - other) / max(abs(one), abs(other))
    return apart if apart == apart else float("inf")


def tokens(draw, vocabulary, mean):
    return [draw.randrange(100, vocabulary) for _ in range(draw.randint(mean // 2, mean * 3 // 2))]


def dialogues(count, vocabulary, prompt_tokens, response_tokens):
    """Groups of a prompt and four responses of about these lengths, with nine numbers' tails of 6 tokens."""
    draw, groups = random.Random(1), []
    for _ in range(count):
        prompt = [1, *tokens(draw, vocabulary, prompt_tokens)]
        tails = [[3]] + [[4 + k, *(draw.randrange(100, vocabulary) for _ in range(5))] for k in range(9)]
        answers = [[*tokens(draw, vocabulary, response_tokens), training.END] for _ in range(4)]
        groups.append((prompt, tails, [(a, [7] * (len(a) - 1) + [0], 1.0) for a in answers]))
    return groups


def target_groups(count, vocabulary):
    """Groups of a prompt and a dozen different weighted targets, some of which begin alike."""
    draw, groups = random.Random(2), []
    for _ in range(count):
        first = tokens(draw, vocabulary, 8)
        targets = [[*first[: draw.randint(0, 3)], 100 + k, *tokens(draw, vocabulary, 6)] for k in range(12)]
        weighted = [([*t, training.END], [0] * (len(t) + 1), draw.uniform(0.5, 2.0)) for t in targets]
        groups.append(([1, *tokens(draw, vocabulary, 40)], [[3]], weighted))
    return groups
