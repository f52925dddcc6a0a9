"""Errors that end a command, each with its exit code.

Owns: the mapping from kind of error to exit code (the table of docs/running.md). Does not own:
reporting, which `__main__` does in one line. A message says what was found, what is allowed, in which
file and line or key, and what to do.
"""


class CommandError(Exception):
    """Base: one line for the user and the exit code that goes with it."""

    exit_code = 70


class UsageError(CommandError):
    """A command line that is not valid."""

    exit_code = 64


class BadData(CommandError):
    """Content of an input, a template or a tokenizer that cannot be used."""

    exit_code = 65


class MissingInput(CommandError):
    """A file or folder that is absent or unreadable."""

    exit_code = 66


class NotInstalled(CommandError):
    """A program or package that is not there."""

    exit_code = 69


class CannotCreate(CommandError):
    """An output that cannot be created, or that another process is writing."""

    exit_code = 73


class WriteFailed(CommandError):
    """An output that could be created but not written to its end.

    The process must end with os._exit while this error is held: it keeps objects of the HDF5 library
    alive that can no longer be closed.
    """

    exit_code = 74


class BadRecipe(CommandError):
    """A recipe, or a file of the same kind, that cannot be followed."""

    exit_code = 78
