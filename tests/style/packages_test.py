"""Every Debian package that the build and the tests use is named in launch/packages.txt or
tests/packages.txt.

A machine with everything installed does not notice a package that is missing there. So the files that are
really used are looked up in dpkg's database: what CMake read and found, what the compiler read (ninja's
dependencies), what the program loads, and the programs that scripts call. Each must belong to a named
package, to one that a named package depends on, or to the packages of every Debian system. Takes some ten
seconds, most of it CMake's.
"""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ["PLURAL_BINARY"]).resolve().parent
DPKG = Path("/var/lib/dpkg")
PROGRAM_LIST, TESTS_LIST = ROOT / "launch/packages.txt", ROOT / "tests/packages.txt"
# Outside the packages on purpose: our own files, the virtual environment and its Python, and CUDA.
OURS = tuple(
    f"{Path(folder).resolve()}/"
    for folder in (ROOT, BUILD, ROOT / ".venv", sys.base_prefix, "/usr/local/cuda")
)
# Used where they are there, and done without where they are not: programs of GPUs and of Slurm, and
# GoogleMock's files, which GoogleTest's own CMake file reads.
OPTIONAL = {
    "nvcc",
    "nvidia-smi",
    "srun",
    "sbatch",
    "scontrol",
    "scancel",
    "squeue",
    "slurmctld",
    "slurmd",
    "munge",
    "munged",
    "libgmock-dev",
}


def named(*lists):
    lines = [line.split("#")[0].strip() for path in lists for line in path.read_text().splitlines()]
    return {line for line in lines if line}


@functools.cache
def owners():
    """Path of each installed file -> the packages it belongs to."""
    found = {}
    for listing in (DPKG / "info").glob("*.list"):
        for path in listing.read_text().splitlines():
            found.setdefault(path, set()).add(listing.stem.split(":")[0])
    return found


@functools.cache
def installed():
    """Name of each installed package, or of what one provides -> its fields of dpkg's status, as
    dictionaries."""
    found = {}
    for entry in (DPKG / "status").read_text().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*(?:\n .*)*)", entry, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            provided = re.findall(r"(?:^|, *)([a-z0-9][a-z0-9+.-]+)", fields.get("Provides", ""))
            for name in (fields["Package"], *provided):
                found.setdefault(name, []).append(fields)
    return found


def reach(names):
    """The packages of these names, those that every Debian has, and all that these depend on."""
    base = {
        f["Package"]
        for all_of_name in installed().values()
        for f in all_of_name
        if f.get("Essential") == "yes" or f.get("Priority") == "required"
    }
    reached, ahead = set(), list(base | names)
    while ahead:
        for fields in installed().get(ahead.pop(), []):
            if fields["Package"] not in reached:
                reached.add(fields["Package"])
                depends = f"{fields.get('Pre-Depends', '')}, {fields.get('Depends', '')}"
                ahead += re.findall(r"(?:^|[,|] *)([a-z0-9][a-z0-9+.-]+)", depends)
    return reached


def packages_of(path):
    """The packages of a file: by its name, with or without /usr in front, else by where its links lead to."""
    for name in (path, os.path.normpath(path), os.path.realpath(path)):
        for spelling in (name, name.removeprefix("/usr"), f"/usr{name}"):
            if spelling in owners():
                return owners()[spelling]
    return set()


def program_file(name):
    """Where a program is, preferably one that a package owns; nothing where it is not installed."""
    places = [path for path in (f"/usr/bin/{name}", f"/usr/sbin/{name}") if packages_of(path)]
    return places[0] if places else shutil.which(name)


def files_in(text):
    """The existing files that a file of CMake's names by absolute path."""
    return {path for path in set(re.findall(r"/[^\s;:|\"'$,=]+", text)) if os.path.isfile(path)}


def configured(build):
    """What CMake read, and the compilers, libraries and programs that it found."""
    cache = "\n".join(
        line
        for line in (build / "CMakeCache.txt").read_text().splitlines()
        if line.split(":")[0] != "PLURAL_NVCC"
    )
    return files_in((build / "build.ninja").read_text()) | files_in(cache)


def compiled(of_tests):
    """What the compiler read for the program's objects, or for all."""
    deps = subprocess.run(
        ["ninja", "-C", BUILD, "-t", "deps"], capture_output=True, text=True, check=True
    ).stdout
    objects = [entry for entry in deps.split("\n\n") if of_tests or not entry.startswith("tests/")]
    return {
        line.strip() for entry in objects for line in entry.splitlines()[1:] if line.strip().startswith("/")
    }


def linked(compiler, *flags):
    """What a link with these flags takes besides our own objects."""
    command = [compiler, *flags, "-###", "-x", "c++", "/dev/null"]
    return files_in(subprocess.run(command, capture_output=True, text=True, check=True).stderr)


def made_venv():
    """What `python3 -m venv` takes from a system's Python: its pip comes from a package of its own."""
    where = "import ensurepip; print(ensurepip.__file__)"
    command = [program_file("python3"), "-c", where]
    return {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}


def loaded(program):
    lines = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(/\S+) \(0x", lines))


def shell_programs(script):
    """Words where a shell script has commands: first of a line, or behind what may stand in front of one."""
    text = re.sub(r"(^|\s)#.*", "", script.read_text()).replace("\\\n", " ")
    before = (
        r"(?:^|[|;&({!]|\b(?:then|do|else|if|while|exec|nice|command -v)\b"
        r"|\bxargs(?: -\w+| \d+| \"[^\"]*\")*(?= ))"
    )
    program = r"(?=([a-z][a-z0-9_+-]*)(?![\w/.=()-]))"
    return set(re.findall(before + r"\s*(?:\w+=\S*\s+)*" + program, text, re.MULTILINE))


def python_programs(script):
    """First words of lists in Python code, as subprocess takes them, and what it looks up with
    shutil.which."""
    for node in ast.walk(ast.parse(script.read_text())):
        first = []
        if isinstance(node, ast.List):
            first = node.elts[:1]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "which":
            first = node.args[:1]
        yield from (
            word.value for word in first if isinstance(word, ast.Constant) and isinstance(word.value, str)
        )


def called(folders):
    """The programs that the scripts in these folders call, as far as this machine has them."""
    names = set()
    for script in (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()):
        with open(script, "rb") as head:
            line = head.readline(64)
        if script.suffix == ".py":
            names |= set(python_programs(script))
        elif line.startswith(b"#!") and b"sh" in line:
            names |= shell_programs(script)
    names = {name for name in names - OPTIONAL if re.fullmatch(r"[\w+.-]+", name)}
    return {path for path in map(program_file, names) if path}


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        missing = sorted(name for name in named(PROGRAM_LIST, TESTS_LIST) if name not in installed())
        if missing:
            raise unittest.SkipTest(
                f"these packages are not installed here, so others stand in: {', '.join(missing)}"
            )

    def check(self, used, *lists):
        used = {
            path
            for path in used
            if os.path.basename(path) not in OPTIONAL
            and not any(name.startswith(OURS) for name in (path, os.path.realpath(path)))
        }
        reached = reach(named(*lists)) | OPTIONAL
        wrong = {path: packages_of(path) for path in used if not packages_of(path) & reached}
        lines = sorted(
            f"{' or '.join(sorted(packages)) or 'no package'}: {path}" for path, packages in wrong.items()
        )
        names = " or ".join(str(path.relative_to(ROOT)) for path in lists)
        self.assertFalse(
            lines, f"used, and neither in {names} nor needed by what is:\n" + "\n".join(lines[:20])
        )

    def test_the_program_needs_only_its_own_list(self):
        build = BUILD / "packages"
        subprocess.run(
            ["cmake", "-S", ROOT, "-B", build, "-G", "Ninja", "-DPLURAL_TESTS=OFF"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        used = configured(build) | compiled(of_tests=False) | linked("c++") | loaded(BUILD / "plural")
        used |= made_venv()
        self.assertGreater(len(used), 500)  # the lists of files are there, and are read
        self.check(used | called(["launch", "data", "recipes"]), PROGRAM_LIST)

    def test_the_tests_need_only_both_lists(self):
        scripts = called(["launch", "data", "recipes", "tests", ".ci"])
        used = configured(BUILD) | compiled(of_tests=True) | scripts
        used |= linked("c++", "-fsanitize=thread")
        used |= linked("clang++", "-fsanitize=fuzzer,address,undefined")
        self.check(used, PROGRAM_LIST, TESTS_LIST)


if __name__ == "__main__":
    unittest.main()
