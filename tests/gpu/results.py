"""What the checklist has found so far: printed line by line, and in checklist.json after each of them.

The file appears whole, so a list that is killed leaves what it has. A section that is run again takes the
place of its earlier results; the others stay. `seconds` of a section is null until it has come to its end.
"""

import json
import os
import time


class Results:
    def __init__(self, path, device, tiny):
        self.path, self.head = path, {"device": device, "tiny": tiny}
        self.sections, self.run = {}, []
        try:
            found = json.loads(path.read_text())
            if {key: found[key] for key in self.head} == self.head:
                self.sections = found["sections"]
            else:
                print(f"note: {path} is of another device or other shapes, and is written anew")
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            print(f"note: {path} cannot be read, and is written anew")

    def begin(self, section):
        self.section, self.start = {"seconds": None, "checks": [], "skipped": []}, time.monotonic()
        self.sections[section] = self.section
        self.run.append(self.section)
        self._write()

    def end(self):
        self.section["seconds"] = time.monotonic() - self.start
        self._write()

    def attempt(self, name, check):
        """`check()` says whether it passed, with its figures; whatever it raises is a check that failed."""
        try:
            passed, figures = check()
        except Exception as error:
            return self.fail(name, error)
        return self.report(name, passed, figures)

    def fail(self, name, error):
        kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
        self.report(name, False, {"error": f"{kind}{error}"})

    def report(self, name, passed, figures):
        self.section["checks"].append({"check": name, "passed": bool(passed), **figures})
        self._write()
        shown = ", ".join(
            f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in figures.items()
        )
        print(f"{'pass' if passed else 'FAIL'}  {name}: {shown}", flush=True)

    def skip(self, name, reason):
        """What can be neither passed nor failed here."""
        self.section["skipped"].append({"check": name, "reason": reason})
        self._write()
        print(f"skip  {name}: {reason}", flush=True)

    def summary(self):
        """Whether all passed in this call, and a line that says so."""
        checks = [check for section in self.run for check in section["checks"]]
        passed = sum(check["passed"] for check in checks)
        skipped = sum(len(section["skipped"]) for section in self.run)
        seconds = sum(section["seconds"] or 0 for section in self.run)
        line = f"{passed} of {len(checks)} checks passed, {skipped} skipped, {seconds:.0f} s; {self.path}"
        return passed == len(checks), line

    def _write(self):
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({**self.head, "sections": self.sections}, indent=1) + "\n")
        os.replace(new, self.path)
