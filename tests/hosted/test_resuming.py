"""Resuming and stopping a task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hosted_settings import QUICK, REQUEST
from standin import StandIn

from hunyuan_local import errors
from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted.backend import HostedBackend
from hunyuan_local.backends.hosted.client import Pacing
from hunyuan_local.backends.hosted.novita import NovitaBackend
from hunyuan_local.backends.hosted.open_tasks import OpenTasks
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend


@pytest.mark.usefixtures("starts_process")
def test_resume_fetches_the_video_submits_nothing_and_says_so(
    interrupted: HostedBackend, open_tasks: OpenTasks, standin: StandIn, tmp_path: Path
) -> None:
    result = interrupted.resume(open_tasks.jobs()[0])
    assert result.path == tmp_path / "a.mp4" and result.path.exists()
    assert len(standin.submissions) == 1
    assert [note for note in result.notes if note.startswith("resuming task")]


@pytest.mark.usefixtures("starts_process")
def test_resume_may_name_another_file(interrupted: HostedBackend, open_tasks: OpenTasks, tmp_path: Path) -> None:
    context = GenerationContext(tmp_path / "b.mp4")
    assert interrupted.resume(open_tasks.jobs()[0], context).path == tmp_path / "b.mp4"


def test_a_job_in_other_hands_is_left_alone(interrupted: HostedBackend, open_tasks: OpenTasks) -> None:
    job = open_tasks.jobs()[0]
    with open_tasks.hold(job.job_id), pytest.raises(errors.ConfigError, match="another process"):
        interrupted.resume(job)


def test_the_same_request_in_other_hands_is_not_paid_for_twice(
    interrupted: HostedBackend, open_tasks: OpenTasks, standin: StandIn
) -> None:
    job = open_tasks.jobs()[0]
    with open_tasks.hold(job.job_id), pytest.raises(errors.ConfigError, match="--submit-again"):
        interrupted.generate(REQUEST, GenerationContext(job.output))
    assert len(standin.submissions) == 1


@pytest.mark.usefixtures("starts_process")
def test_submit_again_leaves_the_paid_task_to_be_resumed(
    interrupted: HostedBackend, open_tasks: OpenTasks, standin: StandIn
) -> None:
    job = open_tasks.jobs()[0]
    interrupted.generate(REQUEST, GenerationContext(job.output, submit_again=True))
    assert open_tasks.jobs() == [job] and len(standin.submissions) == 2


def test_a_taken_name_says_how_to_fetch_the_paid_video(interrupted: HostedBackend, open_tasks: OpenTasks) -> None:
    job = open_tasks.jobs()[0]
    job.output.write_text("mine")
    with pytest.raises(errors.OutputExistsError, match=f"hunyuan-local resume {job.job_id} --output"):
        interrupted.resume(job)


def _cancel_while(stage: str, context: GenerationContext) -> None:
    context.on_progress = lambda progress: context.cancel.set() if progress.stage == stage else None


def test_cancelling_deletes_the_task_where_the_service_can(
    standin: StandIn, open_tasks: OpenTasks, context: GenerationContext
) -> None:
    _cancel_while("queue", context)
    with pytest.raises(errors.GenerationCancelledError, match="was deleted at wavespeed"):
        WaveSpeedBackend(standin.key, standin.url, pacing=QUICK, open_tasks=open_tasks).generate(REQUEST, context)
    assert standin.deleted == [standin.submissions[0].task_id]


def test_cancelling_says_where_the_service_cannot(
    standin: StandIn, open_tasks: OpenTasks, context: GenerationContext
) -> None:
    _cancel_while("queue", context)
    with pytest.raises(errors.GenerationCancelledError, match="novita cannot stop tasks"):
        NovitaBackend(standin.key, standin.url, pacing=QUICK, open_tasks=open_tasks).generate(REQUEST, context)
    assert len(open_tasks.jobs()) == 1


def test_a_finished_task_is_not_deleted(standin: StandIn, open_tasks: OpenTasks, context: GenerationContext) -> None:
    _cancel_while("download", context)
    with pytest.raises(errors.GenerationCancelledError, match="the video is ready"):
        WaveSpeedBackend(standin.key, standin.url, pacing=QUICK, open_tasks=open_tasks).generate(REQUEST, context)
    assert standin.deleted == [] and len(open_tasks.jobs()) == 1


def test_cancelling_before_the_submission_sends_nothing(
    backend: HostedBackend, context: GenerationContext, standin: StandIn
) -> None:
    context.cancel.set()
    with pytest.raises(errors.GenerationCancelledError):
        backend.generate(REQUEST, context)
    assert standin.requests == []


def test_cancelling_while_downloading_leaves_no_file(
    backend: HostedBackend, context: GenerationContext, tmp_path: Path
) -> None:
    _cancel_while("download", context)
    with pytest.raises(errors.GenerationCancelledError):
        backend.generate(REQUEST, context)
    assert not list(tmp_path.glob("*.mp4"))


def test_cancelling_from_another_thread_ends_a_long_pause(
    make: Callable[..., HostedBackend], context: GenerationContext
) -> None:
    timer = threading.Timer(0.2, context.cancel.set)
    timer.start()
    with pytest.raises(errors.GenerationCancelledError):
        make(pacing=Pacing(first_s=200, longest_s=200)).generate(REQUEST, context)
