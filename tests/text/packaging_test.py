"""Files that make an environment: they are well formed, name what is there, and list what set-up lists."""

import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
# Debian's package -> conda's; None: comes with another one, or with every environment.
CONDA = {
    "build-essential": "gxx_linux-64",
    "ccache": "ccache",
    "cmake": "cmake",
    "git": "git",
    "libcli11-dev": "cli11",
    "libhdf5-dev": "hdf5",
    "libopenmpi-dev": "openmpi",
    "libpcre2-dev": "pcre2",
    "libspdlog-dev": "spdlog",
    "libssl-dev": "openssl",
    "libyaml-cpp-dev": "yaml-cpp",
    "ninja-build": "ninja",
    "nlohmann-json3-dev": "nlohmann_json",
    "openmpi-bin": "openmpi",
    "pkg-config": "pkg-config",
    "python3": "python",
    "python3-venv": "python",
}


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def bash_accepts(script):
    return subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True).stderr


class Packaging(unittest.TestCase):
    def test_conda_has_what_debian_has(self):
        listed = [line.partition("#")[0].strip() for line in read("launch/packages.txt").splitlines()]
        packages = {name for name in listed if name}
        self.assertEqual(packages, set(CONDA), "name the package of conda-forge here")
        environment = yaml.safe_load(read("launch/environment.yml"))
        names = {re.split("[=<>]", name)[0] for name in environment["dependencies"]}
        self.assertEqual(names, set(CONDA.values()))
        self.assertIn("python=3.11", environment["dependencies"])
        self.assertIn("Python 3.11", read("README.md"))

    def test_the_dockerfile_copies_what_is_there_and_runs_shell(self):
        lines = read("launch/Dockerfile").replace("\\\n", " ").splitlines()
        copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
        self.assertIn(["."], copied)
        for name in (name for names in copied for name in names):
            self.assertTrue((ROOT / name).exists(), name)
        commands = [line.removeprefix("RUN ") for line in lines if line.startswith("RUN ")]
        self.assertTrue(any("launch/setup" in command for command in commands))
        for command in commands:
            self.assertEqual(bash_accepts(command), "", command)
        known = {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "CMD", "#", ""}
        self.assertEqual({line.split(" ")[0] for line in lines if not line.startswith(" ")} - known, set())

    def test_apptainer_copies_every_folder_that_is_built(self):
        sections = re.split(r"^%(\w+)$", read("launch/apptainer.def"), flags=re.MULTILINE)
        parts = dict(zip(sections[1::2], sections[2::2]))
        copied = [line.split() for line in parts["files"].strip().splitlines()]
        for source, target in copied:
            self.assertTrue((ROOT / source).exists(), source)
            self.assertEqual(target, f"/opt/plural/{source}")
        cmake = re.findall(r"add_subdirectory\((\w+)\)", read("CMakeLists.txt"))
        self.assertLessEqual(
            {*cmake, "launch", "recipes", "CMakeLists.txt"}, {source for source, _ in copied}
        )
        for name in ("post", "environment", "test"):
            self.assertEqual(bash_accepts(parts[name]), "")
        self.assertIn("launch/setup", parts["post"])

    def test_bundle_refuses_what_it_cannot_do(self):
        def bundle(*arguments):
            return subprocess.run([ROOT / "launch/bundle", *arguments], capture_output=True, text=True)

        with tempfile.TemporaryDirectory() as folder:
            for arguments in ((), ("--torch", folder), (folder, folder)):
                done = bundle(*arguments)
                self.assertEqual(done.returncode, 64, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1)
            file = Path(folder) / "there"
            file.write_text("")
            # As a folder it cannot be made, built or not.
            self.assertIn(bundle(file).returncode, (69, 73))
            self.assertEqual([path.name for path in Path(folder).iterdir()], [file.name])


if __name__ == "__main__":
    unittest.main()
