"""Downloads of images from URLs that strangers gave, from a real server."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hunyuan_local.outbound.download import DownloadRefusedError, download

BODY = b"x" * 1000


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        elif self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif self.path == "/missing":
            self.send_error(404)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def fetch(url: str, *, allow_private: bool = True, max_bytes: int = 10_000, limit_s: float = 5.0) -> bytes:
    return download(
        url, max_bytes=max_bytes, limit_s=limit_s, allow_private=allow_private, tls=ssl.create_default_context()
    )


def refusal(url: str, **options: object) -> str:
    with pytest.raises(DownloadRefusedError) as caught:
        fetch(url, **options)
    return str(caught.value)


def test_the_body_is_returned(address: str) -> None:
    assert fetch(f"{address}/cat.png") == BODY


def test_a_redirect_is_followed(address: str) -> None:
    assert fetch(f"{address}/to//cat.png") == BODY


def test_a_private_address_is_refused(address: str) -> None:
    assert "private" in refusal(f"{address}/cat.png", allow_private=False)


def test_a_redirect_to_another_scheme_is_refused(address: str) -> None:
    assert "must be like https://" in refusal(f"{address}/to/file:///etc/passwd")


def test_redirects_end(address: str) -> None:
    assert "redirects more than 5 times" in refusal(f"{address}/loop")


def test_a_large_body_is_refused(address: str) -> None:
    assert "more than 999 bytes" in refusal(f"{address}/cat.png", max_bytes=999)


def test_a_slow_body_is_refused(address: str) -> None:
    assert "in time (0.3 s)" in refusal(f"{address}/slow", limit_s=0.3)


def test_an_error_is_named(address: str) -> None:
    assert "HTTP 404" in refusal(f"{address}/missing")


@pytest.mark.parametrize(
    "url", ["ftp://host/cat.png", "//host/cat.png", "http://", "http://host:0/", "x", "http://[::1"]
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    assert "https://host/path" in refusal(url)


def test_a_password_is_refused() -> None:
    assert "password" in refusal("https://user:secret@example.com/cat.png")
