"""Seconds left, from the current step times or the cost of earlier jobs, and never a guess."""

from __future__ import annotations

import pytest
from manual_clock import ManualClock
from server_stage import MODEL, REQUEST, Stage

from hunyuan_local.jobs.eta import Cost, Forecaster, forecast, measure
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.worker_reports import WorkerReport, WorkerReports
from hunyuan_local.schema import Progress

VOXELS = 64 * 48 * 5
# 10 steps took 20 s; encoding, decoding and writing 4 s.
COSTS = {0: Cost(2 / VOXELS, 4 / VOXELS)}
HALFWAY = Progress(stage="denoise", step=5, total=10, seconds_per_step=2, seconds_left=10)


def changed(job: Job, **fields: object) -> Job:
    return job.model_copy(update={"request": REQUEST.replace(**fields)})


def test_nothing_is_known_before_anything_was_measured(stage: Stage) -> None:
    assert forecast([], [stage.queued()], {}, 1).seconds_left.popitem()[1] is None


def test_a_running_job_needs_its_remaining_steps_and_the_rest(stage: Stage) -> None:
    job = stage.running(HALFWAY)
    assert forecast([job], [], COSTS, 1).seconds_left[job.job_id] == pytest.approx(14)


def test_its_own_steps_are_enough_to_know_something(stage: Stage) -> None:
    job = stage.running(HALFWAY)
    assert forecast([job], [], {}, 1).seconds_left[job.job_id] == 10


def test_before_the_first_step_it_needs_what_others_needed(stage: Stage) -> None:
    job = stage.running(Progress(stage="encode"))
    assert forecast([job], [], COSTS, 1).seconds_left[job.job_id] == pytest.approx(24)


@pytest.mark.parametrize(
    ("progress", "seconds"),
    [(Progress(stage="decode", step=1, total=4), 3), (Progress(stage="decode"), 4), (Progress(stage="write"), 0)],
)
def test_after_the_last_step_it_needs_a_part_of_the_rest(stage: Stage, progress: Progress, seconds: float) -> None:
    job = stage.running(progress)
    assert forecast([job], [], COSTS, 1).seconds_left[job.job_id] == pytest.approx(seconds)


def test_a_waiting_job_waits_for_those_before_it(stage: Stage) -> None:
    running, first, second = stage.running(HALFWAY), stage.queued(), stage.queued()
    left = forecast([running], [first, second], COSTS, 1).seconds_left
    assert (left[first.job_id], left[second.job_id]) == (pytest.approx(14 + 24), pytest.approx(14 + 48))


def test_a_second_worker_takes_the_next_job(stage: Stage) -> None:
    running, first, second = stage.running(HALFWAY), stage.queued(), stage.queued()
    left = forecast([running], [first, second], COSTS, 2).seconds_left
    assert (left[first.job_id], left[second.job_id]) == (pytest.approx(24), pytest.approx(14 + 24))


def test_without_a_worker_nobody_knows_when(stage: Stage) -> None:
    job = stage.queued()
    assert forecast([], [job], COSTS, 0).seconds_left[job.job_id] is None


def test_a_place_is_free_when_the_first_running_job_ends(stage: Stage) -> None:
    running = stage.running(HALFWAY)
    assert forecast([running], [stage.queued()], COSTS, 1).seconds_to_place == pytest.approx(14)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"num_inference_steps": 5}, 10 + 4),
        ({"width": 128}, 2 * 24),
        ({"num_frames": 25}, 5 * 24),
        ({"true_cfg_scale": 2.0, "negative_prompt": "blur"}, 40 + 4),
        ({"true_cfg_scale": 2.0}, 24),  # has no effect without a negative prompt
    ],
)
def test_cost_grows_with_steps_size_frames_and_guidance(stage: Stage, fields: dict, seconds: float) -> None:
    job = changed(stage.queued(), **fields)
    assert forecast([], [job], COSTS, 1).seconds_left[job.job_id] == pytest.approx(seconds)


def test_what_jobs_have_cost_is_measured(stage: Stage) -> None:
    assert measure([stage.succeeded()])[VOXELS].total_of(REQUEST) == pytest.approx(24)


def test_jobs_of_the_same_size_count_before_others(stage: Stage) -> None:
    other = changed(stage.succeeded(), width=640, height=480)
    costs = measure([stage.succeeded(), other])
    assert forecast([], [job := stage.queued()], costs, 1).seconds_left[job.job_id] == pytest.approx(24)


def test_failed_and_interrupted_jobs_measure_nothing(stage: Stage) -> None:
    whole = stage.succeeded()
    timings = whole.result["timings"] | {"denoise_s": 8.0, "denoise_steps": 4}
    interrupted = whole.model_copy(update={"result": whole.result | {"timings": timings}})
    assert measure([stage.failed(), interrupted]) == {}


def test_what_has_passed_since_a_job_was_heard_of_is_not_left(stage: Stage) -> None:
    job = stage.running(HALFWAY)
    now = job.lease_until - job.lease_s + 3
    assert forecast([job], [], COSTS, 1, now).seconds_left[job.job_id] == pytest.approx(14 - 3)


def test_a_job_that_is_late_needs_no_time_below_0(stage: Stage) -> None:
    job = stage.running(HALFWAY)
    assert forecast([job], [], COSTS, 1, job.lease_until + 3600).seconds_left[job.job_id] == 0


# From the store


@pytest.fixture
def store(folder: DataFolder, clock: ManualClock) -> JobStore:
    """A store with a stopped clock."""
    return JobStore(folder.root / "jobs.sqlite3", clock)


def test_a_forecast_grows_old(stage: Stage) -> None:
    stage.succeeded()
    job, clock = stage.running(), ManualClock()
    forecaster = Forecaster(stage.store, MODEL.identity, clock)
    assert forecaster.seconds_left(job) == pytest.approx(24)
    clock.now += 0.75
    assert forecaster.seconds_left(job) == pytest.approx(24 - 0.75)


def test_finished_jobs_and_reported_workers_are_enough(stage: Stage) -> None:
    stage.succeeded()
    WorkerReports(stage.store.database).report(
        WorkerReport(name="w", pid=1, model=MODEL.identity, device="CPU", state="working")
    )
    job = stage.queued()
    assert Forecaster(stage.store, MODEL.identity, lambda: 0.0).seconds_left(job) == pytest.approx(24)


def test_a_job_that_came_after_the_last_forecast_is_in_the_next(stage: Stage) -> None:
    stage.succeeded()
    stage.running()
    forecaster = Forecaster(stage.store, MODEL.identity, clock=lambda: 0.0)
    first = stage.queued()
    assert forecaster.seconds_left(first) == pytest.approx(48)
    assert forecaster.seconds_left(stage.queued()) == pytest.approx(72)


def test_jobs_of_another_model_are_none_of_it(stage: Stage) -> None:
    stage.succeeded()
    stage.running()
    stage.store.enqueue(REQUEST, "another")
    job = stage.queued()
    assert Forecaster(stage.store, MODEL.identity, lambda: 0.0).seconds_left(job) == pytest.approx(48)


def test_a_finished_job_has_no_seconds_left(stage: Stage) -> None:
    assert Forecaster(stage.store, MODEL.identity).seconds_left(stage.succeeded()) is None
