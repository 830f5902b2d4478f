"""Fixtures of the hosted backends' tests: each adapter against a stand-in of its service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosted_settings import BACKENDS, QUICK, REQUEST
from standin import StandIn

from hunyuan_local import errors
from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted import HostedBackend
from hunyuan_local.backends.ledger import Ledger
from hunyuan_local.schema import GenerationResult


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state")


@pytest.fixture(params=BACKENDS, ids=lambda cls: cls.name)
def make(request: pytest.FixtureRequest, standin: StandIn, ledger: Ledger) -> Callable[..., HostedBackend]:
    """Makes the adapter against the stand-in; keyword arguments replace its own."""

    def make(**options: object) -> HostedBackend:
        given = {"api_key": standin.key, "base_url": standin.url, "pacing": QUICK, "ledger": ledger} | options
        return request.param(**given)

    return make


@pytest.fixture
def backend(make: Callable[..., HostedBackend]) -> Iterator[HostedBackend]:
    backend = make()
    yield backend
    backend.close()


@pytest.fixture
def context(tmp_path: Path) -> GenerationContext:
    return GenerationContext(tmp_path / "a.mp4")


@pytest.fixture
def result(backend: HostedBackend, context: GenerationContext) -> GenerationResult:
    return backend.generate(REQUEST, context)


@pytest.fixture
def interrupted(make: Callable[..., HostedBackend], context: GenerationContext, standin: StandIn) -> HostedBackend:
    """A backend whose task was left in mid-poll."""
    standin.inject("poll-malformed")
    backend = make()
    with pytest.raises(errors.InvalidAnswerError):
        backend.generate(REQUEST, context)
    return backend
