"""The public view of a job: percentages that never fall, times, and outputs only if there are any."""

from __future__ import annotations

from datetime import timedelta

import pytest
from server_stage import Stage

from hunyuan_local.jobs.job import Job
from hunyuan_local.schema import JobView, Progress
from hunyuan_local.server.job_view import pause_s, percent_of, view_of

LIFE = [
    None,
    Progress(stage="load"),
    Progress(stage="encode"),
    *[Progress(stage="denoise", step=step, total=30) for step in range(31)],
    *[Progress(stage="decode", step=step, total=17) for step in range(0, 18, 4)],
    Progress(stage="decode", step=17, total=17),
    Progress(stage="write"),
]


def viewed(job: Job, eta_s: float | None = None) -> JobView:
    return view_of(job, eta_s=eta_s, outputs=("http://host/a.mp4",), ttl_s=60)


def test_the_percent_never_falls() -> None:
    percents = [percent_of(progress) for progress in LIFE]
    assert percents == sorted(percents)


def test_it_begins_with_0_and_stays_below_100() -> None:
    assert (percent_of(LIFE[0]), percent_of(LIFE[-1])) == (0, 99)


def test_the_last_step_is_at_95_percent() -> None:
    assert percent_of(Progress(stage="denoise", step=30, total=30)) == 95


@pytest.mark.parametrize("stage", ["submit", "queue", "run", "download"])
def test_stages_of_other_backends_say_nothing(stage: str) -> None:
    assert percent_of(Progress(stage=stage, step=3, total=4)) == 0


def test_a_succeeded_job_is_at_100_percent(stage: Stage) -> None:
    assert viewed(stage.succeeded()).progress_percent == 100


def test_a_job_that_waits_again_is_at_0_percent(stage: Stage) -> None:
    job = stage.running(Progress(stage="denoise", step=5, total=10))
    stage.store.release(job, "the disk was full")
    assert viewed(stage.store.get(job.job_id)).progress_percent == 0


def test_outputs_are_there_when_it_has_succeeded(stage: Stage) -> None:
    view = viewed(stage.succeeded())
    assert (view.outputs, view.output_ttl_s) == (("http://host/a.mp4",), 60)


def test_before_that_and_after_a_failure_there_are_none(stage: Stage) -> None:
    jobs = [stage.failed(), stage.queued()]
    assert [(viewed(job).outputs, viewed(job).output_ttl_s) for job in jobs] == [((), None)] * 2


def test_computation_is_all_but_loading(stage: Stage) -> None:
    assert viewed(stage.succeeded()).inference_s == 24.0


def test_a_failure_is_reported_with_its_reason(stage: Stage) -> None:
    view = viewed(stage.failed("no memory"))
    assert (view.status, view.failure, view.error) == ("failed", "execution", "no memory")


def test_no_verdict_is_invented(stage: Stage) -> None:
    assert viewed(stage.succeeded()).nsfw == ()


def test_times_have_a_zone(stage: Stage) -> None:
    view = viewed(stage.succeeded())
    assert view.created_at.tzinfo and view.completed_at >= view.created_at


def test_the_seed_is_distinguished_from_the_beginning(stage: Stage) -> None:
    assert viewed(stage.queued()).seed == 7


@pytest.mark.parametrize(
    ("waited_s", "eta_s", "pause"),
    [
        (0, 60, 1.0),  # far from the end
        (3, 1, 0.5),  # half of the remaining time
        (3, 0.01, 0.03),  # nearly done: a hundredth of the time waited
        (0.5, 0, 0.02),  # but never without a pause
        (600, 0, 1.0),  # a late long job is not polled constantly
        (0, None, 0.1),
        (1.5, None, 0.5),
        (60, None, 1.0),
    ],
)
def test_it_is_asked_for_more_often_towards_the_end(
    stage: Stage, waited_s: float, eta_s: float | None, pause: float
) -> None:
    view = viewed(stage.queued(), eta_s)
    assert pause_s(view, view.created_at + timedelta(seconds=waited_s)) == pytest.approx(pause)


def test_a_finished_job_need_not_be_asked_for_again_soon(stage: Stage) -> None:
    view = viewed(stage.succeeded())
    assert pause_s(view, view.created_at) == 1.0


@pytest.mark.parametrize(("eta_s", "reported"), [(-0.5, 0.0), (3.5, 3.5), (None, None)])
def test_no_time_is_below_0(stage: Stage, eta_s: float | None, reported: float | None) -> None:
    assert viewed(stage.queued(), eta_s).eta_s == reported


def test_it_names_the_model_before_and_after(stage: Stage) -> None:
    queued = stage.queued(model="tiny")
    assert viewed(queued).model == "tiny"
    assert viewed(queued.model_copy(update={"origin": {}, "result": {"model": "fast-hunyuan"}})).model == "fast-hunyuan"
