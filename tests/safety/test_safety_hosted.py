"""Videos from a service, checked locally after the download."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hosted_settings import BACKENDS, QUICK, REQUEST
from standin import StandIn

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted.backend import HostedBackend
from hunyuan_local.backends.hosted.open_tasks import OpenTasks
from hunyuan_local.config import SafetyConfig
from hunyuan_local.errors import ContentBlockedError, GenerationCancelledError, InvalidAnswerError, ModelLoadError
from hunyuan_local.provenance import read_provenance
from hunyuan_local.video import VideoWriter

pytestmark = pytest.mark.usefixtures("starts_process")  # a clip is encoded

Check = Callable[..., SafetyConfig]


@pytest.fixture(scope="module")
def red_file(clip: Callable[..., np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An mp4 in which only the last frame is red."""
    with VideoWriter(tmp_path_factory.mktemp("clip") / "a.mp4", frame_size=(144, 80), fps=24) as writer:
        writer.write(clip("blue", "blue", "blue", "blue", "red"))
        return writer.finish().read_bytes()


@pytest.fixture
def service(red_file: bytes) -> Iterator[StandIn]:
    with StandIn(red_file, polls_until_done=1) as service:
        yield service


@pytest.fixture
def open_tasks(tmp_path: Path) -> OpenTasks:
    return OpenTasks(tmp_path / "state")


@pytest.fixture(params=BACKENDS, ids=lambda cls: cls.name)
def backend(request: pytest.FixtureRequest, service: StandIn, open_tasks: OpenTasks) -> Iterator[HostedBackend]:
    backend = request.param(api_key=service.key, base_url=service.url, pacing=QUICK, open_tasks=open_tasks)
    yield backend
    backend.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The video's path, in an otherwise empty folder."""
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


def test_a_flagged_video_is_delivered_and_says_so(backend: HostedBackend, check: Check, folder: Path) -> None:
    reported: list[str] = []
    context = GenerationContext(folder / "a.mp4", safety=check(frames=2), on_note=reported.append)
    result = backend.generate(REQUEST, context)
    kept = read_provenance(result.path)
    assert (result.safety.flagged, result.safety.frame, kept.safety) == (True, 4, result.safety)
    (note,) = [note for note in reported if "flagged this video" in note]
    assert note in result.notes and note in kept.notes


def test_a_video_is_withheld_and_its_price_is_not_nor_is_it_to_be_fetched_again(
    backend: HostedBackend, check: Check, folder: Path, open_tasks: OpenTasks
) -> None:
    context = GenerationContext(folder / "a.mp4", safety=check("block"))
    with pytest.raises(ContentBlockedError) as caught:
        backend.generate(REQUEST, context)
    assert re.search(f"frame 4.*task .* at {backend.name} finished and is billed", str(caught.value))
    assert "resume" not in str(caught.value)
    assert (list(folder.iterdir()), open_tasks.jobs()) == ([], [])


def test_without_a_check_the_field_is_empty(backend: HostedBackend, folder: Path) -> None:
    result = backend.generate(REQUEST, GenerationContext(folder / "a.mp4"))
    assert (result.safety, read_provenance(result.path).safety) == (None, None)


def test_with_a_missing_classifier_nothing_is_submitted(
    backend: HostedBackend, check: Check, folder: Path, service: StandIn
) -> None:
    with pytest.raises(ModelLoadError, match="none"):
        backend.generate(REQUEST, GenerationContext(folder / "a.mp4", safety=check(model_id=f"{folder}/none")))
    assert service.submissions == []


def test_a_resumed_task_is_not_waited_for_with_a_missing_classifier(
    backend: HostedBackend, check: Check, folder: Path, service: StandIn, open_tasks: OpenTasks
) -> None:
    service.inject("poll-malformed")
    with pytest.raises(InvalidAnswerError):
        backend.generate(REQUEST, GenerationContext(folder / "a.mp4"))
    polls = len(service.polls)
    with pytest.raises(ModelLoadError):
        backend.resume(open_tasks.jobs()[0], GenerationContext(safety=check(model_id=f"{folder}/none")))
    assert (len(service.polls), len(open_tasks.jobs())) == (polls, 1)


def test_whoever_resumes_a_task_keeps_to_the_check_that_was_wanted(
    backend: HostedBackend, open_tasks: OpenTasks, check: Check, folder: Path
) -> None:
    stopped = GenerationContext(folder / "a.mp4", safety=check("block"), keep_remote=True)
    stopped.on_progress = lambda reported: stopped.cancel.set() if reported.stage in ("queue", "run") else None
    with pytest.raises(GenerationCancelledError):
        backend.generate(REQUEST, stopped)
    (job,) = open_tasks.jobs()
    with pytest.raises(ContentBlockedError):
        backend.resume(job)
    assert list(folder.iterdir()) == []
