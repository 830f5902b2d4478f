"""Shared fixtures: the built-in checkpoint, loaded once, a request that it makes in a second, the hosted stand-in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from manual_clock import ManualClock
from standin import StandIn, sample_video

from hunyuan_local.backends.local import LocalBackend
from hunyuan_local.schema import GenerationRequest

PROMPT = "a red circle moving right on a black background"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Encoded prompts are kept for the tests alone, not where the user's are; also by the commands they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUNYUAN_LOCAL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny() -> LocalBackend:
    """The local backend with the built-in model already in memory."""
    backend = LocalBackend(model="tiny", profile="cpu")
    backend.load()
    return backend


@pytest.fixture
def small_request() -> GenerationRequest:
    """Five frames and two steps on the native canvas."""
    return GenerationRequest(prompt=PROMPT, width=144, height=80, num_frames=5, num_inference_steps=2, seed=7)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def standin() -> Iterator[StandIn]:
    """Both hosted services, on this machine."""
    with StandIn(sample_video()) as service:
        yield service
