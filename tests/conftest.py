"""Shared fixtures: the built-in checkpoint, loaded once, a quick request, the hosted stand-in, a folder of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from manual_clock import ManualClock
from standin import StandIn, sample_video

from hunyuan_local.backends.local import LocalBackend
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.schema import GenerationRequest

if TYPE_CHECKING:
    from server_stage import Stage

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


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """An empty data folder."""
    return DataFolder(tmp_path / "data")


@pytest.fixture
def store(folder: DataFolder) -> JobStore:
    """Its jobs."""
    return folder.store()


@pytest.fixture
def stage(folder: DataFolder, store: JobStore) -> Stage:
    """Brings those jobs to the state that a test is about."""
    from server_stage import Stage

    return Stage(folder, store)


@pytest.fixture(scope="session")
def scribe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a language model that has learnt to rewrite two prompts, and to decline one."""
    from scribe import make_scribe

    return make_scribe(tmp_path_factory.mktemp("scribe"))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classifier that has learnt the labels ``red`` and ``blue``."""
    from colour_classifier import save, small_model, train

    return save(train(small_model(), steps=80), tmp_path_factory.mktemp("classifier"))
