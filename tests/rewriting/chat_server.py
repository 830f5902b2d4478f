"""A local server with OpenAI's chat completions that gives the test's answers and records its requests."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ChatServer:
    """Answers every conversation with ``answer``.

    Attributes:
        answer: the text of the message.
        finish_reason: ``stop``, or ``length`` for a truncated answer.
        status, body: the response instead, if ``body`` is set.
        opened: while it is cleared, no response is sent.
        calls: (path, headers, body) of every call.
    """

    answer: str = "a red ball rolls to the right over a black floor"
    finish_reason: str = "stop"
    status: int = 200
    body: bytes | None = None
    opened: threading.Event = field(default_factory=threading.Event)
    calls: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.opened.set()

    def __enter__(self) -> ChatServer:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                owner.calls.append((self.path, dict(self.headers), None))
                models = {"object": "list", "data": [{"id": "served-model", "object": "model", "owned_by": "us"}]}
                self._send(200, json.dumps(models).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.calls.append((self.path, dict(self.headers), body))
                owner.opened.wait(30)
                self._send(owner.status, owner.body or json.dumps(owner._completion(body)).encode())

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The value for ``--rewrite-endpoint``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of all conversations."""
        return [body for path, _, body in self.calls if path.endswith("/chat/completions")]

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.answer}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
