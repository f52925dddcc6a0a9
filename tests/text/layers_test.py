"""Imports inside plural_text: they point one way between its parts, and in a circle nowhere."""

import ast
import tempfile
import unittest
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "data" / "text" / "plural_text"

# Part -> the other parts that its modules may import.
ALLOWED = {
    "common": set(),
    "prepare": {"common"},
    "metrics": {"common", "prepare"},
    "persona": {"common", "prepare", "metrics"},
    "report": {"common", "metrics"},
    "ask": {"common", "prepare"},
    "build_responses": {"common", "prepare", "ask", "postprocess"},
    "serve": {"common", "prepare", "ask"},
    "track": {"common"},
    "watch": {"common"},
    "postprocess": {"common"},
    "score": {"common", "prepare", "ask"},
    "sweep": {"common", "report"},
    "__main__": {"common"},  # commands are imported by name, when they are called
    "__init__": set(),
}


def modules(root: Path) -> dict[str, Path]:
    """Name below plural_text ("prepare.groups"; "prepare" for a part's __init__) -> file."""
    found = {}
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = file
    return found


def imports(file: Path, known: set[str]) -> set[str]:
    """The modules of the package that a file imports, also inside functions. Relative imports are refused."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{file}:{node.lineno}: a relative import")
            for alias in node.names:
                name = f"{node.module}.{alias.name}"  # a module, or what a module defines
                found.add(name if name.removeprefix("plural_text.") in known else node.module)
    return {name.removeprefix("plural_text.") for name in found if name.startswith("plural_text.")}


def upward(root: Path) -> list[str]:
    """The imports that ALLOWED does not allow."""
    files = modules(root)
    return [
        f"{name} imports {other}"
        for name, file in sorted(files.items())
        for other in sorted(imports(file, set(files)))
        if (part := name.partition(".")[0]) != (target := other.partition(".")[0])
        and target not in ALLOWED[part]
    ]


def circle(root: Path) -> list[str]:
    """Modules each of which imports the next, the last one the first; [] when there are none."""
    files = modules(root)
    edges = {name: sorted(imports(file, set(files)) & set(files)) for name, file in files.items()}
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in finished:
            return []
        for other in edges[name]:
            if found := visit(other, [*path, name]):
                return found
        finished.add(name)
        return []

    return next((found for name in sorted(edges) if (found := visit(name, []))), [])


class Layers(unittest.TestCase):
    def test_imports_point_one_way(self):
        self.assertEqual(upward(PACKAGE), [])

    def test_no_modules_import_each_other_in_a_circle(self):
        self.assertEqual(circle(PACKAGE), [])

    def test_every_part_is_in_the_table(self):
        self.assertEqual({name.partition(".")[0] for name in modules(PACKAGE)}, set(ALLOWED))

    def test_the_check_finds_what_it_is_for(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for name, text in {
                "common/errors.py": "def f():\n    from plural_text.prepare.groups import Group\n",
                "prepare/groups.py": "from plural_text.metrics import figure\n"
                "import plural_text.prepare.masks\n",
                "prepare/masks.py": "from plural_text.prepare import groups\n",
                "metrics/figure.py": "import json\nfrom plural_text.common.errors import x\n",
            }.items():
                (root / name).parent.mkdir(exist_ok=True)
                (root / name).write_text(text)
            self.assertEqual(
                upward(root),
                ["common.errors imports prepare.groups", "prepare.groups imports metrics.figure"],
            )
            self.assertEqual(circle(root), ["common.errors", "prepare.groups", "metrics.figure"])
            (root / "common/errors.py").write_text("")
            self.assertEqual(circle(root), ["prepare.groups", "prepare.masks"])


if __name__ == "__main__":
    unittest.main()
