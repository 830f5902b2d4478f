"""Fixtures for the server: an app over a real store, whose jobs the test finishes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from server_stage import MODEL, Stage
from server_thread import ServerThread

from hunyuan_local.server.app import create_app
from hunyuan_local.server.config import ServerConfig


@pytest.fixture(scope="session", autouse=True)
def _clients_share(one_loop: None) -> None:
    """Every test here may use a client."""


@pytest.fixture(scope="session")
def apps() -> dict[str, FastAPI]:
    """The apps of :func:`make_client`, by their configuration: the first call of a new one takes ten times as long."""
    return {}


@pytest.fixture
def make_client(stage: Stage, apps: dict[str, FastAPI]) -> Callable[..., TestClient]:
    """Makes a client of an app; keyword arguments are the server's configuration."""

    def make(**config: object) -> TestClient:
        given = ServerConfig(**{"model": MODEL, "min_free_bytes": 0, "insecure": True} | config)
        new = create_app(given, stage.folder, stage.store, "whsec_secret")
        app = apps.setdefault(repr(sorted(config.items())), new)
        app.state = new.state  # which has all that belongs to this test's jobs
        return TestClient(app)

    return make


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client()


@pytest.fixture
def live(make_client: Callable[..., TestClient]) -> Iterator[str]:
    """The address of a real server on this machine; it takes bodies of up to 10,000 bytes."""
    server = ServerThread(uvicorn.Config(make_client(max_body_bytes=10_000).app, log_config=None))
    yield server.url
    server.close()
