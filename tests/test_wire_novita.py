"""Novita's dialect against its API page: every parameter, default, range, status word and response field."""

from __future__ import annotations

import contextlib
import json
import typing
from typing import Any

import pytest
from hypothesis import given
from wire_strategies import JSON, damaged, jobs, requests, unhurried

from hunyuan_local.errors import InvalidAnswerError, InvalidRequestError, RequestLossError
from hunyuan_local.schema import GenerationRequest, JobView
from hunyuan_local.wires import novita
from hunyuan_local.wires.base import Fault, FaultKind

BASE = "https://host.example"
PAGE_PROMPT = (
    "A close up view of a glass sphere that has a zen garden within it. There is a small dwarf in the sphere who is "
    "raking the zen garden and creating patterns in the sand."
)
PAGE_BODY = {
    "model_name": "hunyuan-video-fast",
    "height": 720,
    "width": 1280,
    "seed": -1,
    "steps": 30,
    "prompt": PAGE_PROMPT,
    "frames": 85,
}
PAGE_STATUSES = {
    "TASK_STATUS_QUEUED": "queued",
    "TASK_STATUS_PROCESSING": "running",
    "TASK_STATUS_SUCCEED": "succeeded",
    "TASK_STATUS_FAILED": "failed",
}
TASK = {
    "task_id": "t1",
    "task_type": "HUNYUAN_VIDEO_FAST",
    "status": "TASK_STATUS_SUCCEED",
    "reason": "",
    "eta": 0,
    "progress_percent": 100,
}
VIDEO = {"video_url": "https://cdn.example/v.mp4", "video_url_ttl": "3600", "video_type": "mp4"}
PAGE_RESULT = {"task": TASK, "images": [], "videos": [VIDEO]}


def received(**changes: object) -> GenerationRequest:
    return novita.request_from_wire(PAGE_BODY | changes).request


def refusal(**changes: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        received(**changes)
    return str(caught.value)


def answered(**changes: object) -> JobView:
    return novita.job_from_wire(PAGE_RESULT | {"task": TASK | changes})


def answered_video(**changes: object) -> JobView:
    return novita.job_from_wire(PAGE_RESULT | {"videos": [VIDEO | changes]})


def sent(job: JobView) -> dict[str, Any]:
    return novita.job_to_wire(job, BASE).to_json()


def finished(**fields: object) -> JobView:
    return JobView(job_id="t1", status="succeeded", outputs=("https://cdn.example/v.mp4",), **fields)


def test_paths() -> None:
    assert novita.SUBMIT_PATH == "/v3/async/hunyuan-video-fast"
    assert novita.RESULT_PATH == "/v3/async/task-result"


def test_a_task_is_asked_for_by_its_id_in_the_query() -> None:
    assert novita.result_query("{Returned Task ID}") == {"task_id": "{Returned Task ID}"}


# Request parameters


def test_the_example_of_the_page() -> None:
    assert received() == GenerationRequest(
        prompt=PAGE_PROMPT, width=1280, height=720, num_inference_steps=30, num_frames=85
    )


@pytest.mark.parametrize("field", ["model_name", "width", "height", "seed", "steps", "prompt"])
def test_required_fields(field: str) -> None:
    body = {name: value for name, value in PAGE_BODY.items() if name != field}
    with pytest.raises(InvalidRequestError, match=f"{field}=None: is required"):
        novita.request_from_wire(body)


def test_frames_may_be_left_out_and_are_then_85() -> None:
    body = {name: value for name, value in PAGE_BODY.items() if name != "frames"}
    assert novita.request_from_wire(body).request.num_frames == 85


def test_another_model_name_is_refused() -> None:
    assert "model_name='hunyuan-video'" in refusal(model_name="hunyuan-video")


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (720, 1280)])
def test_both_sizes_are_taken(width: int, height: int) -> None:
    request = received(width=width, height=height)
    assert (request.width, request.height) == (width, height)


def test_a_size_that_is_not_made_is_named_by_the_sides_that_were_sent() -> None:
    rule = "the height is 544; novita supports 1280x720 and 720x1280"
    assert refusal(width=960, height=544) == f"width=960: {rule}"


@pytest.mark.parametrize(("width", "height"), [(1280, 1280), (720, 720), (1280, 704), (1296, 720), (0, 720)])
def test_any_other_size_is_refused(width: int, height: int) -> None:
    assert "width=" in refusal(width=width, height=height) or "height=" in refusal(width=width, height=height)


@pytest.mark.parametrize(("wire", "seed"), [(-1, None), (0, 0), (9999999999, 9999999999)])
def test_both_ends_of_the_seeds_are_taken(wire: int, seed: int | None) -> None:
    assert received(seed=wire).seed == seed


@pytest.mark.parametrize("seed", [-2, 10000000000])
def test_seeds_beyond_are_refused(seed: int) -> None:
    assert f"seed={seed}" in refusal(seed=seed)


@pytest.mark.parametrize("seed", [-2, 10000000000, 2**64])
def test_a_refused_seed_is_answered_with_those_of_the_dialect(seed: int) -> None:
    assert "novita supports -1 (a random seed) and 0 to 9999999999" in refusal(seed=seed)


@pytest.mark.parametrize("frames", [-3, 9001])
def test_frames_that_no_model_has_are_answered_with_the_range_of_the_dialect(frames: int) -> None:
    assert refusal(frames=frames) == f"frames={frames}: novita supports 85 to 129"


@pytest.mark.parametrize("steps", [2, 30])
def test_both_ends_of_the_steps_are_taken(steps: int) -> None:
    assert received(steps=steps).num_inference_steps == steps


@pytest.mark.parametrize("steps", [1, 31])
def test_steps_beyond_are_refused_by_the_name_of_the_page(steps: int) -> None:
    assert refusal(steps=steps).startswith(f"steps={steps}: novita supports 2 to 30")


@pytest.mark.parametrize("prompt", ["x", "x" * 2000])
def test_both_ends_of_the_prompt_are_taken(prompt: str) -> None:
    assert received(prompt=prompt).prompt == prompt


@pytest.mark.parametrize("prompt", ["", "x" * 2001])
def test_prompts_beyond_are_refused(prompt: str) -> None:
    assert "prompt=" in refusal(prompt=prompt)


@pytest.mark.parametrize("frames", [85, 89, 129])
def test_both_ends_of_the_frames_are_taken(frames: int) -> None:
    assert received(frames=frames).num_frames == frames


@pytest.mark.parametrize("frames", [81, 133, 84, 130])
def test_frames_beyond_are_refused(frames: int) -> None:
    assert f"frames={frames}" in refusal(frames=frames)


@pytest.mark.parametrize("frames", [86, 87, 88])
def test_frames_that_cannot_be_made_are_refused_with_the_nearest(frames: int) -> None:
    assert "the nearest are 85 and 89" in refusal(frames=frames)


@pytest.mark.parametrize(
    ("field", "value"), [("prompt", 3), ("width", "1280"), ("seed", 7.5), ("seed", True), ("steps", "30")]
)
def test_wrong_types_are_refused_by_name(field: str, value: object) -> None:
    assert f"{field}={value!r}" in refusal(**{field: value})


def test_an_unknown_field_is_refused_with_the_likely_one() -> None:
    assert "step=30: unknown field; did you mean steps?" in refusal(step=30)


@pytest.mark.parametrize("body", [None, [], "prompt", 3])
def test_a_body_must_be_an_object(body: object) -> None:
    with pytest.raises(InvalidRequestError, match="body"):
        novita.request_from_wire(body)


def test_relaxed_takes_what_the_page_does_not() -> None:
    body = PAGE_BODY | {"width": 960, "height": 544, "seed": 2**40, "steps": 50, "frames": 17, "prompt": "x" * 2001}
    request = novita.request_from_wire(body, relaxed=True).request
    assert (request.width, request.seed, request.num_inference_steps, request.num_frames) == (960, 2**40, 50, 17)


def test_the_webhook_is_in_extra() -> None:
    submission = novita.request_from_wire(PAGE_BODY | {"extra": {"webhook": {"url": "https://me.example/hook"}}})
    assert submission.webhook == "https://me.example/hook"


@pytest.mark.parametrize("extra", [{}, {"webhook": None}])
def test_extra_may_be_empty(extra: dict) -> None:
    assert novita.request_from_wire(PAGE_BODY | {"extra": extra}).webhook is None


def test_what_is_missing_in_extra_is_named_by_its_place() -> None:
    assert refusal(extra={"webhook": {}}) == "extra.webhook.url=None: is required"


def test_what_is_unknown_in_extra_is_named_by_its_place() -> None:
    assert refusal(extra={"webook": 1}) == "extra.webook=1: unknown field; remove it"


# Requests sent


def test_a_bare_request_becomes_the_body_of_the_page() -> None:
    assert novita.request_to_wire(GenerationRequest(prompt=PAGE_PROMPT)).body == PAGE_BODY


def expected_losses(request: GenerationRequest) -> set[str]:
    """Fields that the page does not have."""
    absent = ("negative_prompt", "guidance_scale", "flow_shift", "fps")
    losses = {name for name in absent if getattr(request, name) is not None}
    sides = [side for side in (request.width, request.height) if side is not None]
    if any(side not in (1280, 720) for side in sides) or (len(sides) == 2 and sides[0] == sides[1]):
        losses.add("size")
    if request.true_cfg_scale != 1.0:
        losses.add("true_cfg_scale")
    if request.num_inference_steps is not None and not 2 <= request.num_inference_steps <= 30:
        losses.add("num_inference_steps")
    if request.num_frames is not None and not 85 <= request.num_frames <= 129:
        losses.add("num_frames")
    if request.seed is not None and request.seed > 9999999999:
        losses.add("seed")
    if len(request.prompt) > 2000:
        losses.add("prompt")
    return losses


def with_page_defaults(request: GenerationRequest) -> GenerationRequest:
    portrait = request.width == 720 or request.height == 1280
    width, height = (720, 1280) if portrait else (1280, 720)
    return request.with_defaults({"width": width, "height": height, "num_inference_steps": 30, "num_frames": 85})


@unhurried
@given(requests())
def test_a_request_survives_or_every_loss_is_named(request: GenerationRequest) -> None:
    losses = expected_losses(request)
    if losses:
        with pytest.raises(RequestLossError) as caught:
            novita.request_to_wire(request)
        assert {loss.field for loss in caught.value.losses} == losses
    else:
        body = json.loads(json.dumps(novita.request_to_wire(request).body))
        assert novita.request_from_wire(body).request == with_page_defaults(request)


@unhurried
@given(requests())
def test_with_permission_only_the_prompt_is_never_cut(request: GenerationRequest) -> None:
    if len(request.prompt) > 2000:
        with pytest.raises(RequestLossError) as caught:
            novita.request_to_wire(request, allow_loss=True)
        assert [loss.field for loss in caught.value.losses] == ["prompt"]
    else:
        made = novita.request_to_wire(request, allow_loss=True)
        assert novita.request_from_wire(made.body).request == made.request
        assert {loss.field for loss in made.losses} == expected_losses(request)


@unhurried
@given(requests().filter(lambda request: len(request.prompt) <= 2000))
def test_a_seed_is_never_wrapped(request: GenerationRequest) -> None:
    seed = request.seed if request.seed is not None and request.seed <= 9999999999 else -1
    assert novita.request_to_wire(request, allow_loss=True).body["seed"] == seed


@unhurried
@given(JSON | damaged(PAGE_BODY | {"extra": {"webhook": {"url": "https://me.example/hook"}}}))
def test_any_submission_is_taken_or_refused(body: object) -> None:
    with contextlib.suppress(InvalidRequestError):
        novita.request_from_wire(body)


# Answers sent


def test_the_answer_to_a_submission_is_the_id_alone() -> None:
    assert novita.submission_to_wire(JobView(job_id="t1", status="queued"), BASE).to_json() == {"task_id": "t1"}


def test_a_finished_job_is_as_on_the_page_and_has_an_extra_object() -> None:
    assert sent(finished(output_ttl_s=3600)) == PAGE_RESULT | {"extra": {}}


def test_the_seed_used_is_a_text_in_extra() -> None:
    assert sent(finished(seed=7))["extra"] == {"seed": "7"}


@pytest.mark.parametrize("status", ["queued", "running", "failed", "canceled"])
def test_the_lists_are_empty_and_not_null_until_there_is_a_video(status: str) -> None:
    answer = sent(JobView(job_id="t1", status=status, outputs=("https://cdn.example/v.mp4",)))
    assert (answer["images"], answer["videos"]) == ([], [])


def test_the_reason_of_a_failure() -> None:
    assert sent(JobView(job_id="t1", status="failed", error="too dark"))["task"]["reason"] == "too dark"


def test_eta_and_progress_are_whole_numbers() -> None:
    task = sent(JobView(job_id="t1", status="running", eta_s=12.6, progress_percent=40))["task"]
    assert (task["eta"], task["progress_percent"]) == (13, 40)
    assert type(task["eta"]) is int


def test_a_finished_job_is_at_100_percent() -> None:
    assert sent(finished(progress_percent=97))["task"]["progress_percent"] == 100


@pytest.mark.parametrize(("word", "status"), [(word, status) for word, status in PAGE_STATUSES.items()])
def test_status_words(word: str, status: str) -> None:
    assert sent(JobView(job_id="t1", status=status))["task"]["status"] == word
    assert answered(status=word).status == status


def test_a_canceled_job_has_failed_since_the_python_client_knows_four_words() -> None:
    assert sent(JobView(job_id="t1", status="canceled"))["task"]["status"] == "TASK_STATUS_FAILED"


def test_the_webhook_body() -> None:
    job = finished()
    event = novita.webhook_to_wire(job, BASE).to_json()
    assert event == {"event_type": "ASYNC_TASK_RESULT", "payload": sent(job)}


# Answers received


def test_the_id_of_a_submission() -> None:
    assert novita.submission_from_wire({"task_id": "{Returned Task ID}"}) == "{Returned Task ID}"


@pytest.mark.parametrize("body", [{}, {"task_id": ""}, {"task_id": None}, {"task_id": 7}, "<html>busy</html>", []])
def test_a_submission_without_an_id_is_an_invalid_answer(body: object) -> None:
    with pytest.raises(InvalidAnswerError, match="novita"):
        novita.submission_from_wire(body)


def test_the_answer_of_the_page_is_understood() -> None:
    assert novita.job_from_wire(PAGE_RESULT) == finished(progress_percent=100, output_ttl_s=3600)


def test_an_unknown_status_word_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(InvalidAnswerError, match=r"'TASK_STATUS_CANCELED'.*TASK_STATUS_QUEUED"):
        answered(status="TASK_STATUS_CANCELED")


@pytest.mark.parametrize("field", ["task_id", "status"])
def test_what_cannot_be_done_without_is_named(field: str) -> None:
    with pytest.raises(InvalidAnswerError, match=f"task.{field}"):
        answered(**{field: None})


@pytest.mark.parametrize("field", ["reason", "eta", "progress_percent"])
def test_null_is_as_good_as_nothing_in_the_task(field: str) -> None:
    assert answered(**{field: None}).job_id == "t1"


@pytest.mark.parametrize("field", ["images", "videos", "extra"])
def test_null_is_as_good_as_nothing_next_to_the_task(field: str) -> None:
    assert novita.job_from_wire(PAGE_RESULT | {field: None}).job_id == "t1"


@pytest.mark.parametrize(
    ("written", "seconds"), [("3600", 3600), (3600, 3600), ("", None), ("soon", None), ("9" * 5000, None)]
)
def test_the_ttl_may_are_in_quotes_or_not_at_all(written: object, seconds: int | None) -> None:
    assert answered_video(video_url_ttl=written).output_ttl_s == seconds


def test_a_video_without_an_address_is_an_invalid_answer() -> None:
    with pytest.raises(InvalidAnswerError, match=r"videos\.0\.video_url"):
        answered_video(video_url=None)


@pytest.mark.parametrize(
    ("written", "seed"), [("7", 7), (7, 7), (str(2**64 - 1), 2**64 - 1), ("", None), ("-1", None), ("9" * 5000, None)]
)
def test_the_seed_used_is_read(written: object, seed: int | None) -> None:
    assert novita.job_from_wire(PAGE_RESULT | {"extra": {"seed": written}}).seed == seed


@pytest.mark.parametrize("eta", [0, -1, float("nan"), float("inf")])
def test_no_eta_is_left_unsaid(eta: float) -> None:
    assert answered(eta=eta).eta_s is None


def test_an_eta_is_read() -> None:
    assert answered(eta=12).eta_s == 12


def test_a_failure_is_one_of_execution_since_the_page_tells_none_apart() -> None:
    job = answered(status="TASK_STATUS_FAILED", reason="too dark")
    assert (job.failure, job.error) == ("execution", "too dark")


@pytest.mark.parametrize("body", ["<html>busy</html>", None, [], {}, {"task": None}, {"task": []}, 200])
def test_other_answers_are_errors(body: object) -> None:
    with pytest.raises(InvalidAnswerError, match="novita"):
        novita.job_from_wire(body)


@unhurried
@given(jobs())
def test_what_the_page_has_a_place_for_survives(job: JobView) -> None:
    back = novita.job_from_wire(json.loads(json.dumps(sent(job))))
    failed = job.status in ("failed", "canceled")
    assert back == JobView(
        job_id=job.job_id,
        status="failed" if failed else job.status,
        progress_percent=job.progress_percent,
        eta_s=job.eta_s,
        outputs=job.outputs,
        output_ttl_s=job.output_ttl_s,
        error=job.error,
        failure="execution" if failed else None,
        seed=job.seed,
    )


@unhurried
@given(JSON | damaged(PAGE_RESULT | {"extra": {"seed": "7"}}))
def test_any_answer_is_a_job_or_an_invalid_one(body: object) -> None:
    with contextlib.suppress(InvalidAnswerError):
        assert isinstance(novita.job_from_wire(body), JobView)


# Faults


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("invalid", 400, "INVALID_REQUEST_BODY"),
        ("unauthorized", 403, "INVALID_API_KEY"),
        ("not_found", 404, "TASK_NOT_FOUND"),
        ("rate_limited", 429, "RATE_LIMIT_EXCEEDED"),
        ("internal", 500, "CREATE_TASK_FAILED"),
    ],
)
def test_documented_reasons(kind: FaultKind, status: int, reason: str) -> None:
    made = novita.fault_to_wire(Fault(kind, "no"))
    assert (made[0], made[1].reason) == (status, reason)


@pytest.mark.parametrize("kind", typing.get_args(FaultKind))
def test_every_fault_has_the_documented_shape_and_comes_back(kind: FaultKind) -> None:
    fault = Fault(kind, "what is wrong", "steps")
    status, body = novita.fault_to_wire(fault)
    assert body.code == status
    read = novita.fault_from_wire(status, body.to_json())
    assert (read.kind, read.message, read.field) == (kind, "what is wrong", "steps")


def test_a_missing_key_is_answered_with_400_and_a_reason() -> None:
    body = {"code": 400, "reason": "MISSING_API_KEY", "message": "no key", "metadata": {}}
    assert novita.fault_from_wire(400, body) == Fault("no_key", "no key")


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_either_status(status: int) -> None:
    assert novita.fault_from_wire(status, "<html>").kind == "unauthorized"


@pytest.mark.parametrize("status", [500, 502, 503])
def test_after_a_server_error_that_no_page_describes_a_task_may_exist(status: int) -> None:
    assert not novita.fault_from_wire(status, "<html>").nothing_made
    assert not novita.fault_from_wire(status, {"reason": ["CREATE_TASK_FAILED"]}).nothing_made


def test_the_documented_server_error_says_that_there_is_no_task() -> None:
    assert novita.fault_from_wire(500, {"reason": "CREATE_TASK_FAILED"}).nothing_made


def test_a_field_that_is_no_text_is_left_out() -> None:
    assert novita.fault_from_wire(400, {"message": "no", "metadata": {"field": 3}}) == Fault("invalid", "no")


@unhurried
@given(JSON)
def test_any_body_of_a_fault_is_understood(body: object) -> None:
    assert novita.fault_from_wire(502, body).kind == "internal"


def test_the_run_time_is_read_from_what_the_python_client_knows() -> None:
    info = {"submit_time_ms": 1790000000000, "execute_time_ms": 1790000001000, "complete_time_ms": 1790000043500}
    assert novita.job_from_wire(PAGE_RESULT | {"extra": {"debug_info": info}}).inference_s == 42.5


@pytest.mark.parametrize(("begin", "end"), [(10, 20), (1790000000000, 10**400)])
def test_times_that_are_no_moments_are_left_unsaid(begin: int, end: int) -> None:
    info = {"submit_time_ms": 5, "execute_time_ms": begin, "complete_time_ms": end}
    assert novita.job_from_wire(PAGE_RESULT | {"extra": {"debug_info": info}}).inference_s is None


@pytest.mark.parametrize("percent", [-1, 101, "half"])
def test_a_progress_that_makes_no_sense_is_left_unsaid(percent: object) -> None:
    assert answered(progress_percent=percent).progress_percent is None


def test_only_the_documented_failure_says_that_nothing_was_made() -> None:
    answers = [novita.fault_from_wire(500, {"reason": r}) for r in ("CREATE_TASK_FAILED", "SERVICE_UNAVAILABLE")]
    assert [answer.nothing_made for answer in answers] == [True, False]


def test_the_query_names_the_job() -> None:
    assert novita.result_from_query(novita.result_query("t1")) == "t1"


def test_a_query_without_a_job_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="task_id=None: is required"):
        novita.result_from_query({})
