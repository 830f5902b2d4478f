"""Fixtures for the hosted backends: each adapter with a stand-in for its service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosted_settings import BACKENDS, QUICK, REQUEST, Made
from standin import StandIn, sample_video

from hunyuan_local import errors
from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted.backend import HostedBackend
from hunyuan_local.backends.hosted.open_tasks import OpenTasks


@pytest.fixture
def open_tasks(tmp_path: Path) -> OpenTasks:
    return OpenTasks(tmp_path / "state")


@pytest.fixture(params=BACKENDS, ids=lambda cls: cls.name)
def make(request: pytest.FixtureRequest, standin: StandIn, open_tasks: OpenTasks) -> Callable[..., HostedBackend]:
    """Makes the adapter against the stand-in; keyword arguments replace its own."""

    def make(**options: object) -> HostedBackend:
        given = {"api_key": standin.key, "base_url": standin.url, "pacing": QUICK, "open_tasks": open_tasks} | options
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


@pytest.fixture(scope="module", params=BACKENDS, ids=lambda cls: cls.name)
def made(
    starts_process: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Made]:
    """A video that was made without any trouble, for all that is said of it."""
    folder = tmp_path_factory.mktemp("made")
    open_tasks, context = OpenTasks(folder / "state"), GenerationContext(folder / "a.mp4")
    with StandIn(sample_video()) as standin:
        backend = request.param(api_key=standin.key, base_url=standin.url, pacing=QUICK, open_tasks=open_tasks)
        yield Made(standin, open_tasks, context, backend.generate(REQUEST, context))
        backend.close()


@pytest.fixture
def interrupted(make: Callable[..., HostedBackend], context: GenerationContext, standin: StandIn) -> HostedBackend:
    """A backend whose task was left in mid-poll."""
    standin.inject("poll-malformed")
    backend = make()
    with pytest.raises(errors.InvalidAnswerError):
        backend.generate(REQUEST, context)
    return backend
