"""Visitors' actions over a real store: submitting, viewing, cancelling, deleting, and reusing settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from server_stage import CLIP, MODEL, REQUEST, TIMINGS, Stage

from hunyuan_local.config import load_model_config
from hunyuan_local.durations import in_words
from hunyuan_local.errors import HunyuanLocalError, InvalidRequestError, QueueFullError
from hunyuan_local.jobs.worker_reports import WorkerReport
from hunyuan_local.planner import Machine
from hunyuan_local.schema import Progress
from hunyuan_local.server.error_answers import UnknownJobError, VideoNotReadyError
from hunyuan_local.ui import actions as studio_module
from hunyuan_local.ui.actions import PAGE_SIZE, Studio
from hunyuan_local.ui.plan_summary import Outlook, Planner

GIB = 2**30
SMALL = {"prompt": "a fox", "size": "64x48", "num_frames": "5", "num_inference_steps": "2"}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan for a fixed machine, wherever the tests run."""
    monkeypatch.setattr(studio_module, "this_machine", lambda: Machine(None, 16 * GIB))


# The form


def test_a_submitted_form_becomes_a_job_with_its_settings(studio: Studio) -> None:
    request = studio.submit(SMALL).request
    assert (request.prompt, request.width, request.num_frames, request.num_inference_steps) == ("a fox", 64, 5, 2)


def test_what_is_left_empty_is_the_models_default(studio: Studio) -> None:
    assert studio.submit(SMALL).request.flow_shift == MODEL.defaults.flow_shift


def test_a_wrong_field_makes_no_job(studio: Studio) -> None:
    with pytest.raises(InvalidRequestError):
        studio.submit(SMALL | {"num_frames": "6"})
    assert studio.unfinished() == 0


def test_a_full_queue_is_reported(make_studio: Callable[..., Studio]) -> None:
    studio = make_studio(max_queue=1)
    studio.submit(SMALL)
    with pytest.raises(QueueFullError):
        studio.submit(SMALL)


@pytest.mark.parametrize("name", ["model", "profile"])
@pytest.mark.parametrize("value", ["/etc/passwd", "../x.yaml", "owner/name"])
def test_no_text_of_a_visitor_is_opened_as_a_path(studio: Studio, name: str, value: str) -> None:
    for do in (studio.submit, studio.outlook, lambda fields: studio.snippets(fields, "")):
        with pytest.raises(InvalidRequestError, match=f"{name}='{value}'"):
            do(SMALL | {name: value})


def test_no_models_defaults_are_read_from_a_path(studio: Studio) -> None:
    with pytest.raises(InvalidRequestError, match=r"model='x\.yaml'"):
        studio.defaults("x.yaml")


def test_a_server_whose_workers_stay_as_they_are_offers_its_own_model_and_profile(
    make_studio: Callable[..., Studio],
) -> None:
    studio = make_studio(profile="cpu")
    assert studio.model_choices() == ["tiny"]
    assert studio.profile_choices(("none",)) == [("the server's own (cpu)", "")]


def test_other_models_and_the_modes_that_fit_are_offered_where_workers_change(studio: Studio) -> None:
    assert studio.model_choices() == ["tiny", "hunyuan-video"]
    names = [name for _, name in studio.profile_choices(("none+tiling",))]
    assert {"", "auto", "cpu", "gpu-24gb", "none+tiling"} <= set(names)


def test_the_defaults_are_those_of_the_chosen_model(studio: Studio) -> None:
    assert studio.defaults("hunyuan-video")["num_frames"] == "129"
    assert studio.defaults("tiny")["num_frames"] == "17"


def test_the_servers_own_way_of_rewriting_is_the_first_choice(make_studio: Callable[..., Studio]) -> None:
    studio = make_studio(rewrite="normal")
    assert studio.first_fields()["rewrite"] == "normal"
    assert studio.submit(SMALL | {"rewrite": "off"}).request.rewrite == "off"


def test_off_is_left_unsaid_where_the_server_rewrites_nothing(studio: Studio) -> None:
    assert studio.submit(SMALL | {"rewrite": "off"}).request.rewrite is None


# The plan's summary


@pytest.fixture(autouse=True)
def empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make the cache appear empty, wherever the tests run."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def test_a_model_that_is_not_downloaded_says_so(studio: Studio) -> None:
    found = studio.outlook(SMALL | {"model": "hunyuan-video"})
    assert found.verdict == "no" and "hunyuan-local download hunyuan-video" in found.says[0]


def test_a_profile_for_a_gpu_is_none_for_a_cpu(studio: Studio) -> None:
    assert studio.outlook(SMALL | {"profile": "gpu-80gb"}).says == (
        "The profile gpu-80gb needs a GPU, but this machine has none.",
    )


def test_the_outlook_needs_no_prompt(studio: Studio) -> None:
    assert studio.outlook(SMALL | {"prompt": ""}).verdict == "fits"


def test_the_outlook_says_mode_memory_and_time(studio: Studio) -> None:
    said = " ".join(studio.outlook(SMALL).says)
    assert "mode none" in said and "16.0 GiB of main memory" in said and "to generate" in said


def test_what_does_not_fit_is_reported_with_what_would(studio: Studio) -> None:
    found = studio.outlook(SMALL | {"model": "hunyuan-video", "size": "1280x720", "num_frames": "129"})
    assert found.verdict == "no" and "no smaller request of this model would fit either" in found.says[1]


def test_a_measured_time_takes_the_place_of_the_estimate(studio: Studio, stage: Stage) -> None:
    before = studio.outlook(SMALL).says[1]
    stage.succeeded()
    of_this_size = studio.outlook(SMALL).says[1]
    of_another = studio.outlook(SMALL | {"size": "128x64"}).says[1]
    assert "an estimate" in before and "measured at this size" in of_this_size and "other sizes" in of_another


def test_the_measured_time_is_that_of_the_jobs(studio: Studio, stage: Stage) -> None:
    stage.succeeded()
    steps = TIMINGS["denoise_s"] / REQUEST.num_inference_steps * 2
    rest = TIMINGS["encode_s"] + TIMINGS["decode_s"] + TIMINGS["write_s"]
    assert studio.outlook(SMALL).says[1].startswith(f"About {in_words(steps + rest)} to generate")


def outlook_on(machine: Machine, **more: str) -> Outlook:
    planner = Planner(load_model_config, lambda: machine)
    request = studio_module.read_request({"prompt": "a fox", "size": "1280x720", "num_frames": "129"})
    return planner.look_ahead(request, "hunyuan-video", more.get("profile", "auto"), [])


def test_on_a_gpu_the_mode_that_fits_is_named_with_its_memory() -> None:
    found = outlook_on(Machine(80 * GIB, 64 * GIB))
    assert found.verdict == "fits" and "of 80.0 GiB of GPU memory" in found.says[0]


def test_the_time_on_a_card_that_was_not_measured_is_a_range() -> None:
    text = outlook_on(Machine(24 * GIB, 64 * GIB)).says[1]
    assert " to " in text and text.endswith("of video (a guess for this GPU, without loading the model).")


def test_a_chosen_profile_that_does_not_fit_is_reported() -> None:
    found = outlook_on(Machine(24 * GIB, 64 * GIB), profile="gpu-80gb")
    assert found.verdict == "no" and found.says[0].startswith("The profile gpu-80gb does not fit")
    assert found.modes


def test_the_notes_have_what_a_user_of_the_model_must_know() -> None:
    assert any("European Union" in note for note in outlook_on(Machine(80 * GIB, 64 * GIB)).notes)


# Jobs


def test_who_comes_sees_the_running_job_first(studio: Studio, stage: Stage) -> None:
    running = stage.running()
    stage.queued()
    assert studio.newest() == running.job_id


def test_who_comes_sees_the_waiting_job_before_a_finished_one(studio: Studio, stage: Stage) -> None:
    stage.succeeded()
    waiting = stage.queued()
    assert studio.newest() == waiting.job_id


def test_without_jobs_there_is_nothing_to_see(studio: Studio) -> None:
    assert studio.newest() is None


def test_the_place_in_the_queue_counts_those_before(studio: Studio, stage: Stage) -> None:
    stage.running()
    stage.queued()
    last = stage.queued()
    assert studio.show(last.job_id).ahead == 2


def test_a_job_that_nobody_will_take_says_why(studio: Studio, stage: Stage) -> None:
    assert "no worker" in studio.show(stage.queued().job_id).trouble


def test_a_job_that_waits_for_the_model_says_so(studio: Studio, stage: Stage) -> None:
    report = WorkerReport(name="w", pid=1, model=MODEL.identity, device="not loaded", state="loading")
    stage.store.worker_reports.report(report)
    assert studio.show(stage.queued().job_id).trouble == "the model is loading"


def test_a_finished_job_shows_the_request_that_was_made(studio: Studio, stage: Stage) -> None:
    stage.queued()
    job = stage.running()
    made = job.request.replace(prompt="a red fox", original_prompt="a fox", rewrite="normal")
    stage.folder.video(job).write_bytes(CLIP)
    stage.store.succeed(job, {"seed": 7, "request": made.model_dump(mode="json"), "timings": TIMINGS})
    assert studio.show(job.job_id).request == made


def test_the_gallery_has_pages(studio: Studio, stage: Stage) -> None:
    jobs = [stage.queued() for _ in range(PAGE_SIZE + 1)]
    first, more = studio.history(0)
    second, no_more = studio.history(1)
    assert (len(first), more, no_more) == (PAGE_SIZE, True, False)
    assert [job.job_id for job in second] == [jobs[0].job_id]


def test_a_waiting_job_is_cancelled_at_once(studio: Studio, stage: Stage) -> None:
    job = stage.queued()
    studio.cancel(job.job_id)
    assert studio.show(job.job_id).job.status == "canceled"


def test_a_job_that_ended_before_its_cancellation_keeps_its_video(studio: Studio, stage: Stage) -> None:
    job = stage.succeeded()
    studio.cancel(job.job_id)
    assert stage.folder.video(job).is_file()


def test_a_finished_job_is_deleted_with_its_video(studio: Studio, stage: Stage) -> None:
    job = stage.succeeded()
    studio.delete(job.job_id)
    assert stage.store.get(job.job_id) is None and not stage.folder.video(job).exists()


def test_an_unfinished_job_is_not_deleted(studio: Studio, stage: Stage) -> None:
    with pytest.raises(VideoNotReadyError, match="cancel it first"):
        studio.delete(stage.queued().job_id)


@pytest.mark.parametrize("act", ["show", "cancel", "delete", "take_over", "preview"])
@pytest.mark.parametrize("job_id", ["none", "../jobs.sqlite3"])
def test_an_unknown_job_is_reported(studio: Studio, act: str, job_id: str) -> None:
    with pytest.raises(UnknownJobError):
        getattr(studio, act)(job_id)


def test_settings_that_are_taken_over_make_the_same_request(studio: Studio, stage: Stage) -> None:
    job = stage.succeeded()
    assert studio.submit(studio.take_over(job.job_id)).request == job.request


def test_a_profile_that_was_chosen_is_taken_over(studio: Studio) -> None:
    job = studio.submit(SMALL | {"profile": "none+tiling"})
    assert studio.take_over(job.job_id)["profile"] == "none+tiling"


def test_a_preview_of_this_attempt_has_a_version(studio: Studio, stage: Stage) -> None:
    job = stage.running(Progress(stage="denoise", step=1, total=10))
    assert studio.show(job.job_id).preview is None
    picture = stage.folder.preview(job)
    picture.write_bytes(b"png")
    os.utime(picture, 2 * (job.started_at + 1,))  # a file system's clock may be some milliseconds behind
    assert studio.show(job.job_id).preview is not None
    assert studio.preview(job.job_id) == b"png"


def test_a_model_that_is_not_made_here_is_refused(studio: Studio) -> None:
    with pytest.raises(HunyuanLocalError, match="accvideo"):
        studio.submit(SMALL | {"model": "accvideo"})
