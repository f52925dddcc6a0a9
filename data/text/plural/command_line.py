"""The command `plural` of the installed package: text commands here, the others by the compiled program.

Owns: which of the two a word belongs to. Does not own: commands. Thread rule: the main thread alone.
"""

import os
import sys

from plural.commands import PluralError, program_of
from plural_text.__main__ import COMMANDS
from plural_text.__main__ import main as run_text_command


def main() -> int:
    words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        return run_text_command(words)
    try:
        program = program_of(os.environ)
    except PluralError as error:
        print(f"plural: error: {error}", file=sys.stderr)
        return error.code
    os.execv(program, [program, *words])
