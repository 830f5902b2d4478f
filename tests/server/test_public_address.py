"""The note at the start about a public address at which the server does not answer."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import pytest
from webhook_receiver import Receiver

from hunyuan_local.server.public_address import check_in_background, why_not_reached


def answering(content: bytes) -> Receiver:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return Receiver(answer)


def address(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}"


def test_an_address_of_this_server_is_not_noted(live: str) -> None:
    assert why_not_reached(live) == ""


@pytest.mark.parametrize("content", [b"<html>welcome</html>", b'{"status": "fine"}', b"[]"])
def test_an_address_of_another_server_is_noted(content: bytes) -> None:
    with answering(content) as other:
        assert why_not_reached(address(other)) == "does not lead to this server (it answers HTTP 200 to /healthz)"


def test_an_address_that_refuses_is_noted() -> None:
    with Receiver(502) as other:
        assert "HTTP 502" in why_not_reached(address(other))


def test_an_address_that_nobody_answers_is_noted_with_the_remedy() -> None:
    notes: list[str] = []
    check_in_background("http://127.0.0.1:1", notes.append).join()
    assert len(notes) == 1
    assert notes[0].startswith("note: --public-url http://127.0.0.1:1: cannot be reached from this machine (")
    assert "Connection refused" in notes[0] and notes[0].endswith("if clients reach it from elsewhere")
