"""A webhook receiver for tests: a real HTTP server on 127.0.0.1 that records its requests."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

LIMIT_S = 60.0

Answer = int | Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Call:
    """One received request; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Open during the `with` block.

    Each answer is given once, in order, and the last one repeatedly: a status, or a function that answers.
    """

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.calls: list[Call] = []
        self._answers = list(answers or (200,))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # senders that close the connection are part of the tests
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> Receiver:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.socket.close()
        self._thread.join()

    def wait_for(self, calls: int) -> None:
        until(lambda: len(self.calls) >= calls)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.calls.append(Call(self.command, self.path, headers, body))
                answer = receiver._answers.pop(0) if len(receiver._answers) > 1 else receiver._answers[0]
                if callable(answer):
                    answer(self)
                    return
                self.send_response(answer)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_GET = do_POST = do_CONNECT = answer

            def log_message(self, *args: object) -> None:
                pass

        return Handler


def until(condition: Callable[[], bool]) -> None:
    """Return as soon as `condition` holds."""
    ends = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends, f"it did not come about within {LIMIT_S:.0f} s"
        time.sleep(0.005)
