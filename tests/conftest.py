"""Shared fixtures: the built-in checkpoint, loaded once, and a request that it makes in a second."""

from __future__ import annotations

import pytest

from hunyuan_local.backends.local import LocalBackend
from hunyuan_local.schema import GenerationRequest

PROMPT = "a red circle moving right on a black background"


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
