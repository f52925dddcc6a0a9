"""The commands that documents show.

Owns: how they are found in a document. Does not own: what is expected of them. Thread rule: free of state.
"""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
# What begins a command line, behind settings of the environment.
PROGRAM = re.compile(
    r"^(?:\w+=\S+ )*(?:(?:launch|tests|build)/[\w./-]+|\./run|plural|mpirun|sbatch|scancel|docker"
    r"|apptainer|conda|tar|(?:\.venv/bin/)?(?:hf|pip|python)|export(?= [A-Z])|cmake|ninja|ctest|git"
    r"|pre-commit|gdb)(?= |$)"
)
# A sentence may name a command with the option that it speaks of. It shows one to type where this is there.
WHOLE = {
    "prepare": r" -o ",
    "build-responses": r" -o ",
    **dict.fromkeys(("generate", "score", "rate", "evaluate", "export"), " --model "),
    **dict.fromkeys(("ask", "serve", "persona"), " --model "),
    **dict.fromkeys(
        (
            "train",
            "validate",
            "verify",
            "dry-run",
            "inspect",
            "postprocess",
            "metrics",
            "report",
            "plot",
            "watch",
            "track",
        ),
        r" [\w./-]+",
    ),
    "launch": " (-np|--slurm|--mpirun) ",
    "sweep": r" \w+",
    "doctor": "",
}


def shown(file: Path) -> list[str]:
    """The lines that a file shows as code, continued ones joined; of a document also what stands in quotes
    within a sentence and begins like a command."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".yaml":
        lines = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
        return _joined(lines)
    lines, quoted = _lines_and_quotes(text)
    starts = ("plural ", "launch/", "mpirun ", "hf ", ".venv/bin/hf ")
    return _joined(lines) + [text for text in quoted if text.startswith(starts) and " " in text]


def typed(file: Path) -> list[str]:
    """The command lines of a document, each once: those that stand as code, and those in sentences and tables
    that are whole."""
    lines, quoted = _lines_and_quotes(file.read_text(encoding="utf-8"))
    found = [line for line in _joined(lines) if PROGRAM.match(line)]
    found += [line for line in quoted if PROGRAM.match(line) and _is_whole(line)]
    return list(dict.fromkeys(found))


def blocks(page: str, heading: str) -> list[list[str]]:
    """The code blocks of a section: lists of commands, continued lines joined, without their comments."""
    section = (ROOT / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    fenced = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    indented = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    return [_joined(block.splitlines()) for block in fenced or indented]


def _is_whole(line: str) -> bool:
    words = line.split()
    program = next(word for word in words if "=" not in word)
    if program.endswith("plural"):
        command = words[1] if len(words) > 1 else ""
        return command in ("--help", "sweep") or bool(
            re.search(rf"plural {command}\b.*(--help|--keys|{WHOLE.get(command, '$^')})", line)
        )
    if program == "mpirun":
        return "-np" in words
    if program.endswith("hf"):
        return len(words) > 2
    return len(words) > 1 and not program.startswith("tests/")


def _lines_and_quotes(text: str) -> tuple[list[str], list[str]]:
    lines, prose, fenced = [], [], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line)
        else:
            prose.append(line)
    return lines, [" ".join(found.split()) for found in INLINE.findall("\n".join(prose))]


def _joined(lines: list[str]) -> list[str]:
    found, lines = [], iter(lines)
    for line in lines:
        while True:
            line = re.sub(r"\s+#.*", "", line).strip()
            if not line.endswith("\\"):
                break
            line = line[:-1] + next(lines).lstrip("# ")
        found.append(line)
    return found


def words_of(line: str) -> list[str]:
    """The words of a line, optional ones taken as given; none where it is no command line."""
    try:
        return shlex.split(without_brackets(line))
    except ValueError:  # a quotation mark of a sentence
        return []


def without_brackets(line: str) -> str:
    """The line with its optional words, [--option VALUE], given, without [a.b=c ...] and final dots."""
    line = re.sub(r"\[a\.b=c[^]]*\]|,?\.\.\.", " ", line)
    return re.sub(r"\[(-[^]]*)\]", r"\1", line)
