"""Connections that clients keep open between two calls."""

from __future__ import annotations

import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

from running_server import RunningServer

CLIENTS_KEEP_S = 5.0  # httpx, and so OpenAI's client


def test_the_server_does_not_close_a_connection_that_a_client_still_keeps(idle_server: RunningServer) -> None:
    connection = HTTPConnection(urlsplit(idle_server.url).netloc, timeout=30)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    connection.auto_open = False  # no new connection instead
    time.sleep(CLIENTS_KEEP_S + 1)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
