"""A language model and a chat server for the tests of rewriting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer
from scribe import make_scribe


@pytest.fixture(scope="session")
def scribe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scribe(tmp_path_factory.mktemp("scribe"))


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server
