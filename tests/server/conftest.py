"""Fixtures of the server's tests: an app over a real store, whose jobs the test itself brings to an end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from fastapi.testclient import TestClient
from server_stage import MODEL, Stage

from hunyuan_local.server.app import create_app
from hunyuan_local.server.config import ServerConfig

START_LIMIT_S = 60.0


@pytest.fixture
def make_client(stage: Stage) -> Callable[..., TestClient]:
    """Makes a client of an app; keyword arguments are the server's configuration."""

    def make(**config: object) -> TestClient:
        given = {"model": MODEL, "min_free_bytes": 0, "insecure": True} | config
        return TestClient(create_app(ServerConfig(**given), stage.folder, stage.store, "whsec_secret"))

    return make


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client()


@pytest.fixture
def live(make_client: Callable[..., TestClient]) -> Iterator[str]:
    """The address of a real server on this machine; it takes bodies of up to 10,000 bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_client(max_body_bytes=10_000).app, log_config=None))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + START_LIMIT_S
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
