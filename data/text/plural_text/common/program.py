"""The compiled program, which the text side starts.

Owns: where it is: the variable PLURAL_BINARY, else build/plural of the project. Does not own: what it is
asked (model_process.py, score.py). Thread rule: free of state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from plural_text.common.errors import NotInstalled
from plural_text.common.places import PROJECT


def program(environment: Mapping[str, str] = os.environ) -> str:
    """Errors: NotInstalled where there is none that can be started."""
    found = environment.get("PLURAL_BINARY") or (str(PROJECT / "build/plural") if PROJECT else "")
    if not found or not os.access(found, os.X_OK):
        raise NotInstalled(
            f"no program at '{found or 'build/plural'}'; build it with launch/setup in the project's folder, "
            "and name it with the variable PLURAL_BINARY where this package is installed elsewhere"
        )
    return found
