"""Submitting to a service: what is sent and recorded, and what is never sent twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hosted_settings import QUICK, REQUEST, Made
from standin import StandIn

from hunyuan_local import errors
from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted.backend import HostedBackend
from hunyuan_local.backends.hosted.client import ServiceClient
from hunyuan_local.backends.hosted.novita import NovitaBackend
from hunyuan_local.backends.hosted.open_tasks import OpenTask, OpenTasks
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.schema import Progress
from hunyuan_local.wires import wavespeed


def test_one_submission_makes_one_video(made: Made) -> None:
    assert len(made.standin.submissions) == 1 and made.result.path.exists()


def test_the_seed_that_was_asked_for_is_sent(made: Made) -> None:
    assert made.standin.submissions[0].body["seed"] == 11


@pytest.mark.usefixtures("starts_process")
def test_a_seed_is_drawn_here_so_that_it_is_known(
    backend: HostedBackend, context: GenerationContext, standin: StandIn
) -> None:
    result = backend.generate(REQUEST.replace(seed=None), context)
    assert result.seed == standin.submissions[0].body["seed"] >= 0


def test_the_remote_id_is_reported(made: Made) -> None:
    assert made.context.remote_id == made.standin.submissions[0].task_id


@pytest.mark.usefixtures("starts_process")
def test_the_remote_id_is_on_disk_before_the_first_poll(
    backend: HostedBackend, context: GenerationContext, open_tasks: OpenTasks, standin: StandIn
) -> None:
    seen: list[tuple[str | None, int]] = []
    context.on_note = lambda note: seen.extend((job.remote_id, len(standin.polls)) for job in open_tasks.jobs())
    backend.generate(REQUEST, context)
    assert (standin.submissions[0].task_id, 0) in seen


@pytest.mark.usefixtures("starts_process")
def test_a_record_stands_before_the_submission(
    backend: HostedBackend, context: GenerationContext, open_tasks: OpenTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, seen = ServiceClient.post, []

    def look_and_post(self: ServiceClient, path: str, body: dict) -> object:
        seen.extend(job.remote_id for job in open_tasks.jobs())
        return post(self, path, body)

    monkeypatch.setattr(ServiceClient, "post", look_and_post)
    backend.generate(REQUEST, context)
    assert seen == [None]


def test_nothing_is_remembered_of_a_finished_job(made: Made) -> None:
    assert made.open_tasks.jobs() == []


def test_no_lock_of_a_job_is_left(made: Made) -> None:
    assert [path.name for path in made.open_tasks.folder.iterdir()] == ["ledger.lock"]


@pytest.mark.usefixtures("starts_process")
def test_a_task_that_cannot_be_remembered_is_fetched_all_the_same(
    backend: HostedBackend, context: GenerationContext, open_tasks: OpenTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, notes = open_tasks.save, []

    def full_disk(job: OpenTask) -> None:
        if job.remote_id is not None:
            raise errors.ConfigError("no space left")
        save(job)

    monkeypatch.setattr(open_tasks, "save", full_disk)
    context.on_note = notes.append
    assert backend.generate(REQUEST, context).path.exists()
    assert [note for note in notes if "do not interrupt" in note and context.remote_id in note]


def test_an_id_is_kept_whatever_else_is_in_the_answer(
    standin: StandIn, open_tasks: OpenTasks, context: GenerationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"data": {"id": "p1", "status": "archiving", "error": {}, "created_at": 5}}
    monkeypatch.setattr(ServiceClient, "post", lambda *_: answer)
    with pytest.raises(errors.RequestRefusedError):  # the stand-in does not know this task
        WaveSpeedBackend(standin.key, standin.url, pacing=QUICK, open_tasks=open_tasks).generate(REQUEST, context)
    assert [job.remote_id for job in open_tasks.jobs()] == ["p1"]


def test_the_key_does_not_go_to_the_storage_server(made: Made) -> None:
    downloads = [headers for _, path, headers in made.standin.requests if path.startswith("/files/")]
    assert downloads and not any("authorization" in headers for headers in downloads)


@pytest.mark.usefixtures("starts_process")
def test_progress_runs_through_the_stages(backend: HostedBackend, context: GenerationContext) -> None:
    stages: list[Progress] = []
    context.on_progress = stages.append
    backend.generate(REQUEST, context)
    assert list(dict.fromkeys(p.stage for p in stages)) == ["submit", "queue", "run", "download", "write"]


def test_timings_have_the_stages_of_a_service(made: Made) -> None:
    timings = made.result.timings
    assert timings.submit_s > 0 and timings.download_s > 0 and timings.denoise_s == 0


def test_the_stages_do_not_exceed_the_whole(made: Made) -> None:
    stages = made.result.timings.model_dump(exclude={"total_s"})
    assert sum(stages.values()) == pytest.approx(made.result.timings.total_s, abs=0.2)


@pytest.mark.usefixtures("starts_process")
def test_run_time_is_the_services_own_figure(
    standin: StandIn, open_tasks: OpenTasks, context: GenerationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = wavespeed.job_from_wire
    monkeypatch.setattr(wavespeed, "job_from_wire", lambda body: read(body).model_copy(update={"inference_s": 12.5}))
    backend = WaveSpeedBackend(standin.key, standin.url, pacing=QUICK, open_tasks=open_tasks)
    assert backend.generate(REQUEST, context).timings.run_s == 12.5


def test_what_the_file_really_holds_is_reported(made: Made) -> None:
    video = made.result.video
    assert (video.width, video.height, video.num_frames) == (1280, 720, 5)


@pytest.mark.usefixtures("starts_process")
def test_a_video_of_another_size_is_kept_and_noted(backend: HostedBackend, context: GenerationContext) -> None:
    result = backend.generate(REQUEST.replace(width=720, height=1280), context)
    assert [note for note in result.notes if "1280x720, not 720x1280" in note]


def test_a_loss_is_refused_before_anything_is_sent(
    backend: HostedBackend, context: GenerationContext, standin: StandIn
) -> None:
    with pytest.raises(errors.RequestLossError):
        backend.generate(REQUEST.replace(fps=24), context)
    assert standin.requests == []


@pytest.mark.usefixtures("starts_process")
def test_a_permitted_loss_is_noted(backend: HostedBackend, context: GenerationContext) -> None:
    context.allow_loss = True
    result = backend.generate(REQUEST.replace(fps=24), context)
    assert [note for note in result.notes if note.startswith("fps=24 was omitted")]


@pytest.mark.parametrize("fault", ["submit-drop", "submit-malformed", "submit-html-502"])
def test_a_lost_answer_is_reported_as_such(
    backend: HostedBackend, context: GenerationContext, standin: StandIn, fault: str
) -> None:
    standin.inject(fault)
    with pytest.raises(errors.SubmissionLostError, match="--submit-again"):
        backend.generate(REQUEST, context)


def test_after_a_lost_answer_the_same_request_is_not_sent_again(
    backend: HostedBackend, context: GenerationContext, standin: StandIn
) -> None:
    standin.inject("submit-drop")
    for _ in range(2):
        with pytest.raises(errors.SubmissionLostError):
            backend.generate(REQUEST, context)
    assert len(standin.submissions) == 1


@pytest.mark.usefixtures("starts_process")
def test_after_a_lost_answer_another_request_is_sent(
    backend: HostedBackend, context: GenerationContext, standin: StandIn
) -> None:
    standin.inject("submit-drop")
    with pytest.raises(errors.SubmissionLostError):
        backend.generate(REQUEST, context)
    backend.generate(REQUEST.replace(seed=12), context)
    assert len(standin.submissions) == 2


@pytest.mark.usefixtures("starts_process")
def test_submit_again_starts_a_new_task(backend: HostedBackend, context: GenerationContext, standin: StandIn) -> None:
    standin.inject("submit-drop")
    with pytest.raises(errors.SubmissionLostError):
        backend.generate(REQUEST, context)
    context.submit_again = True
    assert backend.generate(REQUEST, context).path.exists()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("submit-429", errors.RateLimitError),
        ("submit-401", errors.AuthenticationError),
    ],
)
def test_a_refused_submission_is_not_repeated_and_not_remembered(
    backend: HostedBackend, context: GenerationContext, standin: StandIn, open_tasks: OpenTasks, fault: str,
    error: type[errors.HostedError],
) -> None:  # fmt: skip
    standin.inject(fault)
    with pytest.raises(error):
        backend.generate(REQUEST, context)
    assert open_tasks.jobs() == [] and len(standin.requests) == 1


def test_a_documented_server_error_made_nothing(
    standin: StandIn, open_tasks: OpenTasks, context: GenerationContext
) -> None:
    standin.inject("submit-500")
    with pytest.raises(errors.UnreachableError):
        NovitaBackend(standin.key, standin.url, pacing=QUICK, open_tasks=open_tasks).generate(REQUEST, context)
    assert open_tasks.jobs() == []


def test_an_undocumented_server_error_may_have_made_a_task(
    standin: StandIn, open_tasks: OpenTasks, context: GenerationContext
) -> None:
    standin.inject("submit-500")
    with pytest.raises(errors.SubmissionLostError):
        WaveSpeedBackend(standin.key, standin.url, pacing=QUICK, open_tasks=open_tasks).generate(REQUEST, context)


def test_a_rate_limit_says_how_long_to_wait(
    backend: HostedBackend, context: GenerationContext, standin: StandIn
) -> None:
    standin.inject("submit-429")
    with pytest.raises(errors.RateLimitError, match="wait 3 s") as caught:
        backend.generate(REQUEST, context)
    assert caught.value.retry_after_s == 3


def test_the_services_own_words_are_in_a_refusal(
    make: Callable[..., HostedBackend], context: GenerationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make()
    other = backend.wire.CAPABILITIES.model_copy(update={"steps": (1, 100)})
    monkeypatch.setattr(backend.wire, "CAPABILITIES", other)  # as if the service's format had changed
    with pytest.raises(errors.RequestRefusedError, match=r"says: .*steps"):
        backend.generate(REQUEST.replace(num_inference_steps=50), context)


def test_a_service_that_is_not_there(make: Callable[..., HostedBackend], context: GenerationContext) -> None:
    with pytest.raises(errors.UnreachableError, match=r"cannot be reached at http://127\.0\.0\.1:9"):
        make(base_url="http://127.0.0.1:9").generate(REQUEST, context)
