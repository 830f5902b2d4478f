"""Fixtures for the tests of the stand-in."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from standin import StandIn, sample_video


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def strict() -> Iterator[StandIn]:
    """One server for all tests of refusals, which leave no task behind."""
    with StandIn(sample_video()) as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:
        yield client
