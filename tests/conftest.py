"""Shared fixtures, including the two that determine a test's layer; ``suite.py`` has the suite's hooks."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import imageio_ffmpeg
import pytest
import suite
from hypothesis import settings
from manual_clock import ManualClock
from standin import StandIn, sample_video

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.schema import GenerationRequest

if TYPE_CHECKING:
    from server_stage import Stage

PROMPT = "a red circle moving right on a black background"

# A third of Hypothesis' default.
settings.register_profile("suite", max_examples=30)
settings.load_profile("suite")

LEAN = Path(__file__).parent / "lean"


def pytest_addoption(parser: pytest.Parser) -> None:
    suite.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    suite.configure(config)
    imageio_ffmpeg.get_ffmpeg_exe()  # runs ffmpeg once per process, before the guard watches
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job of a shell, and in its children
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection() -> None:
    suite.hide_slow_libraries()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return suite.is_passed_over(collection_path, config) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    suite.arrange(config, items)


def pytest_collection_finish() -> None:
    suite.show_slow_libraries()
    suite.let_loggers_propagate()
    gc.freeze()  # imported modules stay; garbage collections skip their million objects
    gc.set_threshold(20_000, 20, 20)  # and are rarer: parsing a file creates a hundred thousand more


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> suite.Scheduler:
    return suite.Scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with suite.GUARD.watching(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    result = yield
    if refused := suite.GUARD.take_refusals():
        pytest.fail(refused[0])
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    suite.add_command(report)
    return report


@pytest.fixture(scope="session")
def starts_process() -> None:
    """Requested by everything that starts a process; puts a test in the layer ``process``."""


@pytest.fixture(scope="session")
def loads_model() -> None:
    """Requested by everything that loads a model or generates a video; puts a test in the layer ``model``."""


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Uses a separate prompt cache for the tests and the commands that they start, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUNYUAN_LOCAL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("hunyuan_local.planner.layers.has_torch", lambda: True)  # plans start no process in quick tests
        yield


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Clients trust one certificate authority instead of 140, which saves 45 ms each; no test calls a public host."""
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    file = tmp_path_factory.mktemp("authority") / "one.pem"
    file.write_text(first + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@pytest.fixture(scope="session", autouse=True)
def without_extras() -> Iterator[None]:
    """Processes that the tests start do not load libraries of extras (``lean/sitecustomize.py``)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(LEAN), prepend=os.pathsep)
        yield


@pytest.fixture
def with_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that this test starts load whatever is installed."""
    kept = [path for path in os.environ["PYTHONPATH"].split(os.pathsep) if path and path != str(LEAN)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(kept))


@pytest.fixture(scope="session")
def one_loop() -> Iterator[None]:
    """All test clients of an app share one thread with an event loop: a new one for each request takes longer."""
    import anyio.from_thread
    from starlette.testclient import TestClient

    with anyio.from_thread.start_blocking_portal() as portal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestClient, "portal", portal)
        yield


@pytest.fixture(scope="session")
def tiny(loads_model: None) -> LocalBackend:
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
def wheel(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is published."""
    from site_of_extras import build_wheel

    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def scribe(loads_model: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a language model that has learnt to rewrite two prompts, and to decline one."""
    from scribe import make_scribe

    return make_scribe(tmp_path_factory.mktemp("scribe"))


@pytest.fixture(scope="session")
def classifier(loads_model: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classifier that has learnt the labels ``red`` and ``blue``."""
    from colour_classifier import save, small_model, train

    return save(train(small_model(), steps=80), tmp_path_factory.mktemp("classifier"))
