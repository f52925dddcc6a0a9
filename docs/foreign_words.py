"""Writes the table of other programs' words into docs/coming-from.md, from the recipe reader's own table.

    python docs/foreign_words.py

Owns: the table's form. Does not own: the words (trainer/recipe/suggest.cc). Thread rule: the main
thread alone.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = ROOT / "trainer/recipe/suggest.cc"
PAGE = ROOT / "docs/coming-from.md"
HEAD = "| theirs | plural |\n|---|---|\n"
_TEXT = r'(?:"[^"]*"\s*)+'


def foreign_words(source: str) -> dict[str, list[str]]:
    """Our key, or a sentence -> the words of others for it, in the order of the source."""
    unquote = lambda text: "".join(re.findall(r'"([^"]*)"', text))
    sentences = {
        name: unquote(text)
        for name, text in re.findall(rf"constexpr std::string_view (k\w+) =\s*({_TEXT});", source)
    }
    table = source[source.index("kForeignNames") :]
    table = table[: table.index("});")]
    found: dict[str, list[str]] = {}
    for word, advice in re.findall(rf'\{{"(\w+)",\s*({_TEXT}|k\w+)\}}', table):
        found.setdefault(unquote(advice) if advice.startswith('"') else sentences[advice], []).append(word)
    return found


def table(source: str) -> str:
    key = re.compile(r"[a-z_]+(\.[a-z_]+)*")
    rows = []
    for advice, words in foreign_words(source).items():
        ours = f"`{advice}`" if key.fullmatch(advice) else advice
        rows.append(f"| {', '.join(f'`{word}`' for word in words)} | {ours} |\n")
    return HEAD + "".join(rows)


def with_table(page: str, source: str) -> str:
    """The page with the table as the source has it."""
    begin = page.index(HEAD)
    end = page.index("\n\n", begin) + 1
    return page[:begin] + table(source) + page[end:]


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_table(page, WORDS.read_text(encoding="utf-8")), encoding="utf-8")
