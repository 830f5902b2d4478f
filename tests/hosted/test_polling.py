"""Polling a task and fetching its video, with all kinds of faults."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hosted_settings import REQUEST
from standin import StandIn, sample_video

from hunyuan_local import errors
from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted.backend import HostedBackend
from hunyuan_local.backends.hosted.client import Pacing, retry_after_s
from hunyuan_local.backends.hosted.open_tasks import OpenTasks


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize("fault", ["poll-500", "poll-drop"])
def test_a_passing_trouble_while_polling_is_waited_out(
    backend: HostedBackend, context: GenerationContext, standin: StandIn, fault: str
) -> None:
    standin.inject(fault, 3)
    assert backend.generate(REQUEST, context).path.exists()


@pytest.mark.usefixtures("starts_process")
def test_retry_after_is_honoured(backend: HostedBackend, context: GenerationContext, standin: StandIn) -> None:
    standin.inject("poll-429")
    assert backend.generate(REQUEST, context).path.exists()
    assert standin.polls[1] - standin.polls[0] >= 1


def test_retry_after_is_read_as_a_number_or_a_date() -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert [retry_after_s("7"), retry_after_s(date, lambda: 1792567670.0), retry_after_s("soon")] == [7, 10, None]


@pytest.mark.usefixtures("starts_process")
def test_trouble_is_reported_once(backend: HostedBackend, context: GenerationContext, standin: StandIn) -> None:
    standin.inject("poll-500", 3)
    notes: list[str] = []
    context.on_note = notes.append
    backend.generate(REQUEST, context)
    assert len([note for note in notes if note.endswith("retrying")]) == 1


def test_a_service_that_stays_down_is_given_up(
    make: Callable[..., HostedBackend], context: GenerationContext, standin: StandIn
) -> None:
    standin.inject("poll-500", 1000)
    pacing = Pacing(first_s=0.01, longest_s=0.05, patience_s=0.1, answer_s=5, limit_s=30)
    with pytest.raises(errors.UnreachableError, match="hunyuan-local resume"):
        make(pacing=pacing).generate(REQUEST, context)


@pytest.mark.usefixtures("starts_process")
def test_a_slow_answer_is_waited_for(backend: HostedBackend, context: GenerationContext, standin: StandIn) -> None:
    standin.inject("poll-slow")
    assert backend.generate(REQUEST, context).path.exists()


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("poll-malformed", errors.InvalidAnswerError, "not JSON"),
        ("poll-html", errors.InvalidAnswerError, "not JSON"),
        ("poll-unknown-status", errors.InvalidAnswerError, "undocumented status"),
        ("poll-404", errors.RequestRefusedError, "404"),
    ],
)
def test_an_answer_that_makes_no_sense_ends_the_polling(
    backend: HostedBackend, context: GenerationContext, standin: StandIn, fault: str,
    error: type[errors.HostedError], says: str,
) -> None:  # fmt: skip
    standin.inject(fault)
    with pytest.raises(error, match=says):
        backend.generate(REQUEST, context)


@pytest.mark.usefixtures("starts_process")
def test_after_such_an_answer_the_same_request_continues(
    backend: HostedBackend, context: GenerationContext, standin: StandIn
) -> None:
    standin.inject("poll-malformed")
    with pytest.raises(errors.InvalidAnswerError):
        backend.generate(REQUEST, context)
    assert backend.generate(REQUEST, context).path.exists() and len(standin.submissions) == 1


def test_a_failed_task_says_why(backend: HostedBackend, context: GenerationContext, standin: StandIn) -> None:
    standin.inject("task-failed")
    with pytest.raises(errors.TaskFailedError, match=r"could not finish task .*: .+; change"):
        backend.generate(REQUEST, context)


def test_a_failed_task_is_not_remembered(
    backend: HostedBackend, context: GenerationContext, standin: StandIn, open_tasks: OpenTasks
) -> None:
    standin.inject("task-failed")
    with pytest.raises(errors.TaskFailedError):
        backend.generate(REQUEST, context)
    assert open_tasks.jobs() == []


def test_the_time_limit_leaves_a_task_to_resume(
    make: Callable[..., HostedBackend], context: GenerationContext, open_tasks: OpenTasks
) -> None:
    with (
        StandIn(sample_video(), polls_until_done=10_000) as standin,
        pytest.raises(errors.TaskTimeoutError, match="hunyuan-local resume"),
    ):
        make(base_url=standin.url, timeout_s=0.3).generate(REQUEST, context)
    assert [job.remote_id for job in open_tasks.jobs()] == [standin.submissions[0].task_id]


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize("fault", ["file-500", "file-truncated"])
def test_a_broken_download_is_begun_again(
    backend: HostedBackend, context: GenerationContext, standin: StandIn, fault: str
) -> None:
    standin.inject(fault)
    assert backend.generate(REQUEST, context).path.exists()


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize("fault", ["file-403", "file-404", "file-cut", "file-html"])
def test_a_bad_file_is_asked_for_once_more(
    backend: HostedBackend, context: GenerationContext, standin: StandIn, fault: str
) -> None:
    standin.inject(fault)
    assert backend.generate(REQUEST, context).path.exists()


def test_a_file_that_stays_away_is_an_error(
    backend: HostedBackend, context: GenerationContext, standin: StandIn
) -> None:
    standin.inject("file-403", 2)
    with pytest.raises(errors.DownloadError, match="hunyuan-local resume"):
        backend.generate(REQUEST, context)


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize("fault", ["file-cut", "file-html"])
def test_a_file_that_stays_bad_is_an_error_and_no_half_of_it_is_left(
    backend: HostedBackend, context: GenerationContext, standin: StandIn, tmp_path: Path, fault: str
) -> None:
    standin.inject(fault, 2)
    with pytest.raises(errors.DownloadError, match="hunyuan-local resume"):
        backend.generate(REQUEST, context)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.usefixtures("starts_process")
def test_a_finished_task_that_cannot_be_struck_from_the_list_is_a_note(
    backend: HostedBackend, context: GenerationContext, open_tasks: OpenTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(job: object) -> None:
        raise PermissionError("read-only")

    notes: list[str] = []
    context.on_note = notes.append
    monkeypatch.setattr(open_tasks, "forget", refuse)
    assert backend.generate(REQUEST, context).path.exists()
    assert "stays listed as open" in notes[-1]


@pytest.mark.usefixtures("starts_process")
def test_a_task_for_a_file_with_a_raw_byte_in_its_name_is_remembered_and_made(
    backend: HostedBackend, open_tasks: OpenTasks, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"r\xff.mp4")
    seen: list[Path] = []
    context = GenerationContext(path, on_note=lambda text: seen.extend(job.output for job in open_tasks.jobs()))
    assert backend.generate(REQUEST, context).path == path
    assert path.exists() and seen[-1] == path
