"""The common part of the studies of replies (dialogue, story, ablations): material, tuning, asking,
measuring.

Owns: which corpora there are, the methods of the first paper as recipes and ways to ask, figures of a set of
replies. Does not own: grammars (reply_grammar.py), which rows a study shows and what it expects of them.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from plural_text.metrics.distinct import distinct_n
from reply_grammar import ReplyGrammar
from report import Figure
from study import Seed
from words import write_lines, write_tokenizer

TEMPLATES = Path(__file__).resolve().parent / "templates"
REPLIES = 5  # asked for each prompt, as in the paper
CANDIDATES = 4  # replies per prompt that tuning sees, N
LABEL_TOKENS = 3  # of an item in a list
TOP_K = 50  # the published sampling

DIVERSITY = Figure("diversity", "semantic diversity")
DIFFERENT = Figure("different", "different of 5", "{:.2f}")
INCOHERENT = Figure("incoherent_percent", "incoherent, %", "{:.1f}")
DISTINCT_1 = Figure("distinct_1", "Distinct-1")
DISTINCT_2 = Figure("distinct_2", "Distinct-2")
LATENCY = Figure("latency_multiple", "decode steps, x base", "{:.1f}")
PASSES_MADE = Figure("passes", "passes over the prompts", "{:.0f}")
STEPS = Figure("steps", "optimizer steps", "{:.0f}")
REPLIES_READ = Figure("replies_per_prompt", "replies a prompt in all passes", "{:.0f}")


@dataclass(frozen=True)
class Method:
    """How a model is tuned and asked. Without a recipe it is the base model."""

    key: str
    title: str
    recipe: str | None = None
    corpus: str = "train"  # corpora/<corpus>.h5, to tune on
    overrides: dict = field(default_factory=dict)  # of the recipe
    ask: tuple = ("--possibilities", "none")  # options of `plural generate`
    prompts: str = "test"  # corpora/<prompts>.h5, to answer
    tuned_as: str | None = None  # another method's key: the same adapter, asked otherwise
    candidates: int = 0  # replies of which the best rated REPLIES are kept; 0: no rating


READ_ALL_REPLIES = ("otmft", "peft", "peft-aligned")  # recipes; the others read one reply a prompt and pass
NUMBERED = ("--possibilities", "sample")
# Passes over the prompts, for a comparison of both kinds of numbers: from one, as published, to MANY.
PASSES = (1, 2, 4, 8)
MANY = PASSES[-1]
_ONE_PASS = (
    Method("base", "base, sampling"),
    Method("dbs", "base, diverse beam search", ask=("--method", "diverse-beam", "--diversity-penalty", 5)),
    Method("list", "base, list prompting", ask=("--method", "list"), prompts="list"),
    Method("otoft", "OTOFT", "otoft"),
    Method("otmft", "OTMFT", "otmft"),
    Method("cvf", "CVF", "cvf", ask=("--latents", "sample")),
    Method(
        "cvf-rerank",
        "CVF, best rated 5 of 6",
        "cvf",
        ask=("--latents", "all"),
        tuned_as="cvf",
        candidates=6,
    ),
    Method("peft", "POEXFT, random numbers", "peft", ask=NUMBERED),
    Method(
        "peft-rerank",
        "POEXFT, best rated 5 of 9",
        "peft",
        ask=("--possibilities", "first"),
        tuned_as="peft",
        candidates=9,
    ),
    Method(
        "peft-aligned",
        "POEXFT, aligned numbers",
        "peft-aligned",
        "train-kinds",
        ask=NUMBERED,
        prompts="test-kinds",
    ),
    Method(
        "peft-clustered",
        "POEXFT, numbers aligned by clustering",
        "peft-aligned",
        "train-clusters",
        ask=NUMBERED,
        prompts="test-kinds",
    ),
)


def after(key: str, passes: int) -> str:
    """The key in METHODS of a method with numbers after so many passes over the prompts."""
    return key if passes == 1 else f"{key}-{passes}-passes"


def _after(method: Method, passes: int) -> Method:
    return replace(
        method,
        key=after(method.key, passes),
        title=f"{method.title}, {passes} passes",
        overrides={"train.epochs": passes},
    )


_BY_KEY = {method.key: method for method in _ONE_PASS}
_LONGER = [_after(_BY_KEY[key], passes) for passes in PASSES[1:] for key in ("peft", "peft-aligned")]
METHODS = _BY_KEY | {method.key: method for method in (*_LONGER, _after(_BY_KEY["peft-clustered"], MANY))}


def write_texts(seed: Seed, grammar: ReplyGrammar) -> int:
    """Tokenizer, documents for the base model, prompts to tune on and to ask; returns the size of the
    vocabulary."""
    draw = random.Random(seed.number)
    templates = {
        name: json.loads((TEMPLATES / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("dialogue", "list", "rating")
    }
    documents = grammar.documents(draw, templates)
    write_lines(
        seed.path("text/base.jsonl"),
        ({"context": prompt.removesuffix("\n"), "candidates": [text]} for prompt, text in documents),
    )
    tuned_on = []
    for prompt in grammar.prompts_to_tune_on(draw):
        replies, kinds = grammar.replies(prompt, CANDIDATES, draw)
        tuned_on.append({"id": prompt.id, "context": prompt.context, "candidates": replies, "kinds": kinds})
    write_lines(seed.path("text/train.jsonl"), tuned_on)
    asked = [{"id": prompt.id, "context": prompt.context} for prompt in grammar.prompts_to_ask()]
    write_lines(seed.path("text/test.jsonl"), asked)
    numbers = [f"{space}{k}" for k in range(1, 11) for space in ("", " ")]  # in prompts, and as ratings
    return write_tokenizer(seed.path("text/tokenizer"), [*map("".join, documents), *numbers])


def prepare_corpora(seed: Seed, kinds: int, methods: list[Method]) -> None:
    """The corpora that these methods need; those for aligned numbers have one number per kind."""
    made = {  # name: text, template, options
        "train": ("train", "dialogue", []),
        "train-kinds": ("train", "dialogue", ["--possibilities", kinds, "--align", "kinds"]),
        "train-clusters": ("train", "dialogue", ["--possibilities", kinds, "--align", kinds]),
        "test": ("test", "dialogue", ["--prompts-only"]),
        "test-kinds": ("test", "dialogue", ["--prompts-only", "--possibilities", kinds]),
        "list": ("test", "list", ["--prompts-only", "--possibilities", 0]),
        "ratings": ("test", "rating", []),
    }
    needed = {method.prompts for method in methods} | {method.corpus for method in methods if method.recipe}
    needed |= {"ratings" for method in methods if method.candidates}
    for name in sorted(needed):
        text, template, options = made[name]
        seed.prepare(
            f"text/{text}.jsonl",
            f"corpora/{name}.h5",
            format="dialogue",
            template=TEMPLATES / f"{template}.json",
            options=options,
        )


def start(seed: Seed, grammar: ReplyGrammar, methods: list[Method], overrides: dict | None = None) -> Path:
    """Texts, corpora and the model from nothing that every method starts from; returns its folder.

    `overrides`: keys of recipes/reproduction/base.yaml.
    """
    vocabulary = write_texts(seed, grammar)
    prepare_corpora(seed, len(grammar.kinds), methods)
    seed.prepare(
        "text/base.jsonl",
        "corpora/base.h5",
        format="dialogue",
        template=TEMPLATES / "verbatim.json",
        options=["--possibilities", 0],
    )
    return seed.train(
        "base",
        "reply-base",
        {"data.train": "corpora/base.h5", "model.config.vocab_size": vocabulary, **(overrides or {})},
    )


def tune(seed: Seed, base: Path, method: Method) -> Path | None:
    """The method's adapter; None for the base model."""
    if not method.recipe:
        return None
    return seed.train(
        method.tuned_as or method.key,
        method.recipe,
        {"model.path": base, "data.train": f"corpora/{method.corpus}.h5", **method.overrides},
    )


def training(seed: Seed, method: Method) -> dict[str, float]:
    """How much tuning a method had, from its run; {} for the base model."""
    if not method.recipe:
        return {}
    steps = seed.metrics(method.tuned_as or method.key)
    passes = steps[-1]["epoch"] + 1
    replies = CANDIDATES if method.recipe in READ_ALL_REPLIES else 1
    return {"passes": passes, "steps": len(steps), "replies_per_prompt": passes * replies}


def ask(
    seed: Seed,
    grammar: ReplyGrammar,
    base: Path,
    adapter: Path | None,
    method: Method,
    temperature: float | None = None,
) -> list[dict]:
    """Replies to prompts that tuning never saw; temperature None: a method that does not sample."""
    tokens = REPLIES * (grammar.reply_tokens + LABEL_TOKENS) if "list" in method.ask else grammar.reply_tokens
    options = ["--max-new-tokens", tokens, *method.ask]
    if "all" not in method.ask:  # one reply a latent
        options += ["--responses", method.candidates or REPLIES]
    if method.candidates:
        options += ["--rerank", REPLIES, "--rating-corpus", seed.path("corpora/ratings.h5")]
    if temperature is not None:
        options += ["--temperature", temperature, "--top-k", TOP_K]
    name = method.key if temperature is None else f"{method.key}-{temperature}"
    return seed.generate(
        f"replies/{name}.jsonl",
        model=base,
        adapter=adapter,
        corpus=f"corpora/{method.prompts}.h5",
        options=options,
    )


def measure(grammar: ReplyGrammar, lines: list[dict], baseline: list[dict] | None = None) -> dict[str, float]:
    """Exact figures, Distinct-n, and decode steps as a multiple of the baseline's."""
    figures = grammar.measure(lines)
    texts = [[response["text"] for response in line["responses"]] for line in lines]
    for n in (1, 2):
        figures[f"distinct_{n}"] = distinct_n(texts, n).value
    if baseline is not None:
        figures["latency_multiple"] = sum(line["decode_steps"] for line in lines) / sum(
            line["decode_steps"] for line in baseline
        )
    return figures
