"""The server for the services' published clients, with two jobs that really failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import image_models
import pytest
import yaml
from PIL import Image
from running_server import RunningServer

from hunyuan_local.schema import VideoInfo
from hunyuan_local.video import probe


def _serve(folder: Path, **options: object) -> Iterator[RunningServer]:
    running = RunningServer(folder, **options)
    yield running
    assert running.stop() == 0, running.said
    assert "Traceback" not in running.said


@pytest.fixture(scope="session")
def server(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with one worker, which takes videos that are soon made."""
    yield from _serve(tmp_path_factory.mktemp("server"), relaxed=True)


@pytest.fixture(scope="session")
def idle_server(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server without workers, which takes what the services take: whoever waits for a video gets none after 1 s."""
    yield from _serve(tmp_path_factory.mktemp("idle"), workers=0, sync_timeout=1)


@pytest.fixture(scope="session")
def image_server(
    starts_process: None, loads_model: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server whose model begins its videos with an image."""
    folder = tmp_path_factory.mktemp("image-server")
    config = image_models.make_checkpoint(folder / "model", "token_replace")
    (folder / "toy.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True))
    yield from _serve(folder, relaxed=True, model=folder / "toy.yaml")


@pytest.fixture(scope="session")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upright image."""
    path = tmp_path_factory.mktemp("image") / "cat.png"
    Image.effect_noise((90, 144), 80).convert("RGB").save(path)
    return path


@pytest.fixture(scope="session")
def full_server(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose queue has no place left."""
    for running in _serve(tmp_path_factory.mktemp("full"), workers=0, max_queue=1):
        running.submit_long_job()
        yield running


@pytest.fixture(scope="session")
def failed_job(server: RunningServer) -> str:
    """The id of a job whose worker was killed while it worked."""
    job_id = server.submit_long_job()
    server.kill_worker_of(job_id)
    server.wait_for(job_id, "failed")
    return job_id


@pytest.fixture(scope="session")
def canceled_job(server: RunningServer) -> str:
    """The id of a job that was cancelled on the command line while it ran."""
    job_id = server.submit_long_job()
    server.wait_for(job_id, "running")
    server.run_cli("cancel", job_id)
    server.wait_for(job_id, "canceled")
    return job_id


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[[str], VideoInfo]:
    """Downloads a video as the clients' users do, without a key, and decodes it."""

    def fetch(url: str) -> VideoInfo:
        file = tmp_path / "video.mp4"
        with httpx.Client(timeout=60) as http:
            file.write_bytes(http.get(url).raise_for_status().content)
        return probe(file)

    return fetch
