"""The endpoint's HTTP: paths, bodies, errors.

Owns: what is read from and written to a connection. Does not own: what a request means (answering.py). Only
this machine reaches it: it listens on 127.0.0.1, wants JSON, and refuses other hosts' names, so that no page
in a browser can ask it. Thread rule: a thread a connection.
"""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from plural_text.common.errors import CommandError
from plural_text.serve.answering import Answering
from plural_text.serve.fields import Refused

HOST = "127.0.0.1"
_MAX_BODY_BYTES = 32 << 20
_IDLE_SECONDS = 600
_NAMES = ("127.0.0.1", "localhost", "[::1]")
_COMPLETIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text"}


class Server(ThreadingHTTPServer):
    """`failure` is set, and `ended`, when the model's process has ended."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int):
        """Errors: OSError for a port that is in use."""
        super().__init__((HOST, port), _Handler)
        self.answering: Answering | None = None  # None: the model is not loaded yet
        self.failure: CommandError | None = None
        self.ended = threading.Event()

    def fail(self, error: CommandError) -> None:
        self.failure = self.failure or error
        self.ended.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    server: Server

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, *_) -> None:
        pass  # clients have their own logs

    def _answer(self, work) -> None:
        try:
            self._check_host()
            found = work()
        except Refused as refused:
            self._send(refused.status, refused.body)
        except CommandError as error:
            self.server.fail(error)
            self._send(500, Refused(str(error), status=500).body)
        except Exception as error:  # a defect of ours ends one request
            self._send(500, Refused(f"internal error: {type(error).__name__}: {error}", status=500).body)
        else:
            self._send(200, found)

    def _check_host(self) -> None:
        name = (self.headers.get("Host") or HOST).rsplit(":", 1)
        if name[0] not in _NAMES:
            self.close_connection = True
            raise Refused(f"asked as {name[0]!r}; this endpoint answers on this machine alone", status=403)

    def _get(self) -> dict:
        answering = self._loaded()
        model = {"id": answering.name, "object": "model", "created": answering.created, "owned_by": "plural"}
        if self.path == "/v1/models":
            return {"object": "list", "data": [model]}
        if self.path == f"/v1/models/{answering.name}":
            return model
        raise self._no_path()

    def _post(self) -> dict | list[dict]:
        body = self._body()
        if self.path not in _COMPLETIONS:
            raise self._no_path()
        return self._loaded().complete(body, _COMPLETIONS[self.path])

    def _loaded(self) -> Answering:
        if self.server.answering is None:
            raise Refused("the model is being loaded; ask again later", status=503)
        return self.server.answering

    def _no_path(self) -> Refused:
        known = ", ".join(("/v1/models", *_COMPLETIONS))
        return Refused(f"no {self.command} {self.path} here; there are {known}", status=404)

    def _body(self) -> dict:
        length = self.headers.get("Content-Length", "")
        digits = length.isascii() and length.isdigit() and len(length) <= len(str(_MAX_BODY_BYTES))
        if not digits or int(length) > _MAX_BODY_BYTES:
            self.close_connection = True  # the body stays unread
            raise Refused(f"Content-Length must be 0 to {_MAX_BODY_BYTES:,} bytes", status=413)
        content = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            raise Refused("Content-Type must be application/json", status=415)
        try:
            body = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Refused(f"the body is not valid JSON: {error}") from None
        if not isinstance(body, dict):
            raise Refused("the body must be a JSON object")
        return body

    def _send(self, status: int, found: dict | list[dict]) -> None:
        if isinstance(found, list):
            text = "".join(f"data: {json.dumps(part)}\n\n" for part in found) + "data: [DONE]\n\n"
            content, content_type = text.encode(), "text/event-stream"
        else:
            content, content_type = json.dumps(found).encode(), "application/json"
        with contextlib.suppress(ConnectionError):  # the client has gone
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
