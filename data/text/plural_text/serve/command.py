"""A model behind an OpenAI-compatible endpoint on this machine, for tools that ask one.

  plural serve --model DIR --adapter runs/mine/adapter --port 8000
  base URL http://127.0.0.1:8000/v1, any key; GET /v1/models, POST /v1/chat/completions, /v1/completions

Chat requests are asked in the prompt that the model or adapter was trained with, each of their n answers with
another possibility number; "possibilities" in a request says which. Texts for /v1/completions stay as they
are.
"""

# Owns: the command line, start and end. Does not own: requests (fields.py, answering.py), HTTP (server.py).

from __future__ import annotations

import argparse
import re
import sys
import threading
from pathlib import Path

from plural_text.ask.model_options import (
    add_model_options,
    add_sampling_options,
    command_of,
    description,
    open_prompts,
    sampling_of,
)
from plural_text.ask.waiting import wait_for
from plural_text.common.errors import CommandError, UsageError
from plural_text.common.model_process import ModelProcess
from plural_text.common.options import whole_number
from plural_text.serve.answering import Answering
from plural_text.serve.server import HOST, Server


class PortTaken(CommandError):
    exit_code = 69


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--port", type=whole_number(0, 65535), default=8000, metavar="N", help="0: a free one (default: 8000)"
    )
    add("--name", metavar="NAME", help="of the model, for requests (default: the name of its folder)")
    add("--quiet", action="store_true", help="no notes; warnings stay")
    add_model_options(parser)
    add_sampling_options(parser, seed=False)


def run(arguments: argparse.Namespace) -> int:
    name = arguments.name or _name(arguments.model, arguments.adapter)  # before Hub names become folders
    prompts, choice = open_prompts(arguments)
    if not re.fullmatch(r"[\w.:/@+-]{1,200}", name):
        raise UsageError(f"--name '{name}': letters, digits and . : / @ + - _ are allowed, up to 200")
    try:
        server = Server(arguments.port)
    except OSError as error:
        raise PortTaken(
            f"port {arguments.port} of {HOST} cannot be had: {error.strerror}; give another --port, or 0 for "
            "a free one"
        ) from None
    with server, ModelProcess(command_of(arguments)) as model:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answering = Answering(name, model, prompts, choice, sampling_of(arguments, prompts))
        wait_for(answering.ready(), "loading the model", sys.stderr, quiet=arguments.quiet)
        server.answering = answering
        if not arguments.quiet:
            print(f"plural: asks with {description(prompts, choice)}", file=sys.stderr)
        try:  # from the line on: who reads it may stop the server at once
            print(
                f"plural: serves {name} at http://{HOST}:{server.server_port}/v1, Ctrl-C ends it", flush=True
            )
            server.ended.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            server.shutdown()
        raise server.failure


def _name(model: Path, adapter: Path | None) -> str:
    """runs/NAME/adapter -> NAME."""
    folder = (adapter or model).resolve()
    return folder.parent.name if folder.name in ("adapter", "model") and folder.parent.name else folder.name
