"""The keys of a sweep file, and those of its parts: name, what it takes, default, description.

Owns: the table that reading (sweep_file.py), `plural sweep keys` and docs/sweeps.md share. Does not own: the
keys of recipes and the options of commands. Thread rule: constants.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """`takes` says type, unit and range in words. `default`: as YAML, "" where the key is needed."""

    name: str
    takes: str
    default: str
    description: str


_CHOSEN = "mapping of recipe keys to one value each"
SWEEP = (
    Key("name", "text without '/'", "the file's name", "The sweep's folder within `dir`."),
    Key("dir", "folder", "runs/sweeps", "Where sweeps lie, from the folder that the command starts in."),
    Key("base", "recipe file, or a list", "", "What every run inherits, from the sweep file's folder."),
    Key(
        "set",
        "mapping of recipe keys to values",
        "{}",
        "Values of every run, over those of `base`. In texts, here and in `evaluate`, `{seed}` is the run's "
        "seed.",
    ),
    Key("grid", "mapping of recipe keys to lists", "{}", "Every combination of these values is a setting."),
    Key(
        "zip",
        "mapping of recipe keys to lists of one length, or a list of such mappings",
        "{}",
        "Values that go together: the first of each list, the second of each, and so on.",
    ),
    Key("include", f"list; each a {_CHOSEN}", "[]", "Further settings beside those of `grid` and `zip`."),
    Key(
        "untrained",
        "true or false",
        "false",
        "Whether the model of `model.path` as it is stands beside the settings: measured, not trained. "
        "Conditions and `baseline` name it by `{untrained: true}`.",
    ),
    Key("exclude", f"list; each a {_CHOSEN}", "[]", "Settings that have all these values are left out."),
    Key(
        "when",
        "list of {if: mapping, set: mapping, drop: list of keys}",
        "[]",
        "Values that hold only where a setting has those of `if`: `set` sets recipe keys or "
        "evaluate.STEP.OPTION, `drop` takes keys of the grid away; settings that become equal are one.",
    ),
    Key(
        "seeds",
        "list of different whole numbers, at least 0",
        "that of the recipe",
        "Each setting is run with each.",
    ),
    Key("baseline", _CHOSEN, "none", "The one setting that all others are compared with, seed by seed."),
    Key(
        "evaluate",
        "a mapping of steps, or a list of them with `name`",
        "{}",
        "What is measured after training.",
    ),
    Key("figures", "list of names", "all", "The figures that the tables show, such as metrics.distinct_2."),
    Key("pareto", "mapping", "none", "Two figures whose best trade-offs are shown."),
    Key("on_failure", "continue or stop", "continue", "Whether other runs start after one has failed."),
    Key("ranks", "whole number, at least 1", "1", "Ranks of one run."),
    Key("threads", "whole number, at least 1", "1", "Compute threads per rank."),
    Key("search", "mapping", "none", "A search over settings with optuna, in place of `grid` and `zip`."),
)
STEPS = (
    Key("name", "text without '.' and '/'", "none", "Stands before the names of the figures."),
    Key("if", _CHOSEN, "{}", "Only settings with these values are measured so."),
    Key("generate", "mapping of options of `plural generate`", "none", "Answers to a corpus of prompts."),
    Key("metrics", "mapping of options of `plural metrics`", "none", "Figures of those answers."),
    Key("evaluate", "mapping of options of `plural evaluate`", "none", "Exact figures on a corpus."),
    Key("persona", "mapping of options of `plural persona`", "none", "Conversations, and who the model is."),
    Key(
        "program",
        "list of words, or one text",
        "none",
        "A program of your own that writes a JSON object of numbers to `{output}`; `{responses}`, `{result}` "
        "and `{run}` stand for the answers, the trained adapter or model, and the run's folder.",
    ),
)
PARETO = (
    Key("x", "name of a figure", "", "The first figure."),
    Key("y", "name of a figure", "", "The second figure."),
    Key("x_better", "higher or lower", "higher", "Which values of `x` are better."),
    Key("y_better", "higher or lower", "higher", "Which values of `y` are better."),
)
WHEN = (
    Key("if", _CHOSEN, "", "The settings that are meant."),
    Key("set", "mapping of keys to values", "{}", "What they have beside their own values."),
    Key("drop", "list of keys", "[]", "Keys of `grid`, `zip` or `include` that they do not have."),
)
SEARCH = (
    Key("trials", "whole number, at least 1", "", "Settings that are tried, each with every seed."),
    Key("sampler", "tpe, random, nsga2 or gp", "tpe", "How optuna chooses the next setting."),
    Key("seed", "whole number, at least 0", "42", "Seed of the sampler."),
    Key(
        "objectives",
        "mapping of figures to maximize or minimize",
        "",
        "What is sought; one figure or several.",
    ),
    Key(
        "space",
        "mapping of recipe keys to a list, or to {low, high, step or log}",
        "",
        "The values that may be chosen.",
    ),
)
PARTS = {
    "": SWEEP,
    "evaluate": STEPS,
    "when": WHEN,
    "pareto": PARETO,
    "search": SEARCH,
}


def reference() -> str:
    """The tables of docs/sweeps.md, as Markdown."""
    lines: list[str] = []
    for part, keys in PARTS.items():
        title = f"`{part}`" if part else "A sweep file"
        lines += [f"### {title}", "", "| key | takes | default | |", "|---|---|---|---|"]
        for key in keys:
            default = key.default or "needed"
            lines.append(f"| `{key.name}` | {key.takes} | {default} | {key.description} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
