"""`python -m plural_text COMMAND ...`: finds the command, reports its errors in one line.

Owns: the table of commands, exit codes, the effect of a signal, what becomes of a character that the terminal
cannot show. Does not own: the work of a command. Thread rule: the main thread alone.
A command is a module with `add_arguments(parser)` and `run(arguments) -> int`. One with PASSES_ON is a front
of the compiled program: it gets the options that it does not know as `arguments.rest`, also --help.
"""

import argparse
import importlib
import io
import os
import signal
import sys

from plural_text.common.errors import CommandError, UsageError, WriteFailed

# Word -> (module, one line for --help). The module is imported only when its word is given.
COMMANDS = {
    "ask": ("plural_text.ask.command", "asks a model and prints its answers; a dialogue in the terminal"),
    "prepare": ("plural_text.prepare.command", "text to a pre-tokenized corpus"),
    "build-responses": (
        "plural_text.build_responses.command",
        "several different replies to each prompt, from a model",
    ),
    "postprocess": ("plural_text.postprocess", "texts of generated responses, cleaned step by step"),
    "metrics": (
        "plural_text.metrics.command",
        "figures of generated responses: diversity, coverage, coherence, cost",
    ),
    "serve": ("plural_text.serve.command", "a model behind an OpenAI-compatible endpoint on this machine"),
    "score": ("plural_text.score", "log-probabilities of given responses, texts or token ids"),
    "sweep": ("plural_text.sweep.command", "settings times seeds, trained, measured and compared"),
    "persona": (
        "plural_text.persona.command",
        "talks with a model, and how varied the personas are that it takes on",
    ),
    "report": ("plural_text.report.command", "one HTML page of runs, a sweep, answers and figures"),
    "plot": ("plural_text.report.plot_command", "one figure of them as PNG, PDF or SVG"),
    "watch": ("plural_text.watch.command", "runs while they train and after: progress, losses, state"),
    "track": ("plural_text.track.command", "a run's figures to TensorBoard, Weights & Biases or trackio"),
}

# Stopped on request (docs/running.md).
STOPPED = 75


class _Parser(argparse.ArgumentParser):
    """Reports a bad command line as UsageError instead of exiting with argparse's own code."""

    def error(self, message):
        raise UsageError(f"{message} (see {self.prog} --help)")


def _usage() -> str:
    rows = "\n".join(f"  {word:<15} {line}" for word, (_, line) in COMMANDS.items())
    return f"usage: plural COMMAND ...\n\nText commands:\n{rows}\n\nplural COMMAND --help tells more.\n"


def _report(line: str, code: int, word: str) -> int:
    """Prints one line, even if the message of a library has several; returns `code`. The form is that of
    trainer/commands/failure.h."""
    phase = f", phase {word}" if word in COMMANDS else ""
    print(f"plural: error: {' '.join(line.split(chr(10)))} [exit {code}{phase}]", file=sys.stderr)
    return code


def _show_every_character() -> None:
    """What the terminal's encoding does not have is written as an escape: no text is lost, nothing stops."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where the stream is closed
            stream.reconfigure(errors="backslashreplace")


def _stop(_signum, _frame):
    """Ends like Ctrl-C does, through the same clean-up."""
    raise KeyboardInterrupt


def _stop_again(dropped) -> None:
    """Python drops what is raised inside a finalizer or a callback of C code, a stop, too, and goes on: such
    a stop is raised again, at the next instruction outside."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
    elif not sys.is_finalizing():
        signal.setitimer(signal.ITIMER_REAL, 0.01)


def take_stops() -> None:
    """TERM, USR1 and Ctrl-C end a command by KeyboardInterrupt in the main thread."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, _stop)
    sys.unraisablehook = _stop_again


def _report_stop(stop: KeyboardInterrupt) -> int:
    """Commands that keep lines say so in notes on the exception (common/kept_lines.py)."""
    kept = "; ".join(getattr(stop, "__notes__", []))
    end = f"{kept}; start again to go on" if kept else "nothing is left half-written"
    print(f"plural: stopped on request: {end}", file=sys.stderr)
    return STOPPED


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        (sys.stdout if arguments else sys.stderr).write(_usage())
        return 0 if arguments else UsageError.exit_code
    word = arguments[0]
    if word not in COMMANDS:
        raise UsageError(f"'{word}' is not a text command; known: {', '.join(COMMANDS)}")
    command = importlib.import_module(COMMANDS[word][0])
    parser = _Parser(
        prog=f"plural {word}",
        description=command.__doc__,
        allow_abbrev=False,
        add_help=not getattr(command, "PASSES_ON", False),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    if getattr(command, "PASSES_ON", False):
        known, rest = parser.parse_known_args(arguments[1:])
        known.rest = rest
        return command.run(known)
    return command.run(parser.parse_args(arguments[1:]))


def main(arguments: list[str]) -> int:
    """Runs one command; returns its exit code. Only here are errors turned into lines."""
    take_stops()
    _show_every_character()
    word = arguments[0] if arguments else ""
    try:
        return _dispatch(arguments)
    except CommandError as error:
        _report(str(error), error.exit_code, word)
        if isinstance(error, WriteFailed):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt as stop:
        return _report_stop(stop)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ImportError as error:
        advice = "install the packages of data/text/requirements.txt (launch/setup does)"
        return _report(f"{error}; {advice}", 69, word)
    except Exception as error:  # a defect of ours must still end in one line
        if os.environ.get("PLURAL_TRACEBACK"):
            raise
        what = f"internal error: {type(error).__name__}: {error} (PLURAL_TRACEBACK=1 shows where)"
        return _report(what, CommandError.exit_code, word)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
