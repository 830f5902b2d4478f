"""WaveSpeed's dialect against its API page: every parameter, default, range, status word and response field."""

from __future__ import annotations

import contextlib
import json
import typing
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from wire_strategies import JSON, damaged, jobs, requests, unhurried

from hunyuan_local.errors import InvalidAnswerError, InvalidRequestError, RequestLossError
from hunyuan_local.schema import GenerationRequest, JobView
from hunyuan_local.wires import wavespeed
from hunyuan_local.wires.base import Fault, FaultKind

BASE = "https://host.example"
# The page's cURL example; it omits the prompt, which its table requires.
PAGE_BODY = {"size": "1280*720", "seed": -1, "num_inference_steps": 30}
PAGE_STATUSES = {"created": "queued", "processing": "running", "completed": "succeeded", "failed": "failed"}
PREDICTION = {
    "id": "p1",
    "model": "wavespeed-ai/hunyuan-video/t2v",
    "outputs": ["https://cdn.example/v.mp4"],
    "urls": {"get": f"{BASE}/api/v3/predictions/p1/result"},
    "has_nsfw_contents": [False],
    "status": "completed",
    "created_at": "2023-04-01T12:34:56.789Z",
    "error": "",
    "timings": {"inference": 2500},
}
ANSWER = {"code": 200, "message": "success", "data": PREDICTION}


def received(**fields: object) -> GenerationRequest:
    return wavespeed.request_from_wire({"prompt": "a cat"} | fields).request


def refusal(**fields: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        received(**fields)
    return str(caught.value)


def answered(**changes: object) -> JobView:
    return wavespeed.job_from_wire(ANSWER | {"data": PREDICTION | changes})


def sent(job: JobView) -> dict[str, Any]:
    return wavespeed.job_to_wire(job, BASE).to_json()["data"]


def test_paths() -> None:
    assert wavespeed.SUBMIT_PATH == "/api/v3/wavespeed-ai/hunyuan-video/t2v"
    assert wavespeed.result_path("p1") == "/api/v3/predictions/p1/result"


def test_an_id_cannot_leave_its_path() -> None:
    assert wavespeed.result_path("../balance?x") == "/api/v3/predictions/..%2Fbalance%3Fx/result"


# Request parameters


def test_the_example_of_the_page_with_a_prompt() -> None:
    request = received(**PAGE_BODY)
    assert (request.width, request.height, request.seed, request.num_inference_steps) == (1280, 720, None, 30)


def test_the_prompt_is_required() -> None:
    with pytest.raises(InvalidRequestError, match="prompt=None: is required"):
        wavespeed.request_from_wire(PAGE_BODY)


def test_the_default_size_is_1280_by_720() -> None:
    assert (received().width, received().height) == (1280, 720)


def test_the_default_seed_is_a_random_one() -> None:
    assert received().seed is None


def test_the_default_steps_are_30() -> None:
    assert received().num_inference_steps == 30


@pytest.mark.parametrize(("size", "sides"), [("1280*720", (1280, 720)), ("720*1280", (720, 1280))])
def test_both_sizes_are_taken(size: str, sides: tuple[int, int]) -> None:
    assert (received(size=size).width, received(size=size).height) == sides


@pytest.mark.parametrize("size", ["960*544", "100*100", "0*0"])
def test_sizes_are_proposed_as_the_page_writes_them(size: str) -> None:
    assert refusal(size=size) == f"size='{size}': wavespeed supports 1280*720 and 720*1280"


@pytest.mark.parametrize("size", ["1280*704", "720*720", "1280x720", "1280", "", "*", "-1280*720", "1280*720*1"])
def test_any_other_size_is_refused(size: str) -> None:
    assert "size=" in refusal(size=size)


@pytest.mark.parametrize(("wire", "seed"), [(-1, None), (0, 0), (2147483647, 2147483647)])
def test_both_ends_of_the_seeds_are_taken(wire: int, seed: int | None) -> None:
    assert received(seed=wire).seed == seed


@pytest.mark.parametrize("seed", [-2, 2147483648])
def test_seeds_beyond_are_refused(seed: int) -> None:
    assert f"seed={seed}" in refusal(seed=seed)


@pytest.mark.parametrize("seed", [-2, 2147483648, 2**64])
def test_a_refused_seed_is_answered_with_those_of_the_dialect(seed: int) -> None:
    assert "wavespeed supports -1 (a random seed) and 0 to 2147483647" in refusal(seed=seed)


def test_a_relaxed_server_names_the_seeds_of_the_local_model() -> None:
    with pytest.raises(InvalidRequestError, match=r"seed=-2: .*-1 \(a random seed\) and 0 to 2\^64-1"):
        wavespeed.request_from_wire({"prompt": "a cat", "seed": -2}, relaxed=True)


@pytest.mark.parametrize("steps", [0, 101])
def test_steps_that_no_model_has_are_answered_with_the_range_of_the_dialect(steps: int) -> None:
    assert refusal(num_inference_steps=steps) == f"num_inference_steps={steps}: wavespeed supports 2 to 30"


@pytest.mark.parametrize("steps", [2, 30])
def test_both_ends_of_the_steps_are_taken(steps: int) -> None:
    assert received(num_inference_steps=steps).num_inference_steps == steps


@pytest.mark.parametrize("steps", [1, 31])
def test_steps_beyond_are_refused(steps: int) -> None:
    assert f"num_inference_steps={steps}: wavespeed supports 2 to 30" in refusal(num_inference_steps=steps)


@pytest.mark.parametrize(
    ("field", "value"),
    [("prompt", 3), ("size", 1280), ("seed", "7"), ("seed", 7.5), ("seed", True), ("num_inference_steps", "30")],
)
def test_wrong_types_are_refused_by_name(field: str, value: object) -> None:
    assert f"{field}={value!r}" in refusal(**{field: value})


def test_an_unknown_field_is_refused_with_the_likely_one() -> None:
    assert "steps=30: unknown field; did you mean num_inference_steps?" in refusal(steps=30)


@pytest.mark.parametrize("body", [None, [], "prompt", 3])
def test_a_body_must_be_an_object(body: object) -> None:
    with pytest.raises(InvalidRequestError, match="body"):
        wavespeed.request_from_wire(body)


def test_relaxed_takes_what_the_page_does_not() -> None:
    body = {"prompt": "a cat", "size": "960*544", "seed": 2**40, "num_inference_steps": 50}
    request = wavespeed.request_from_wire(body, relaxed=True).request
    assert (request.width, request.seed, request.num_inference_steps) == (960, 2**40, 50)


def test_relaxed_still_refuses_what_no_model_makes() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        wavespeed.request_from_wire({"prompt": "a cat", "size": "1281*720"}, relaxed=True)
    assert str(caught.value) == "size='1281*720': width must be a multiple of 16; the nearest are 1280 and 1296"


def test_sync_mode_asks_to_wait() -> None:
    assert wavespeed.request_from_wire({"prompt": "a cat", "enable_sync_mode": True}).wait


def test_base64_output_asks_for_the_file_itself() -> None:
    assert wavespeed.request_from_wire({"prompt": "a cat", "enable_base64_output": True}).inline


def test_plain_submissions_neither_wait_nor_ask_for_the_file() -> None:
    submission = wavespeed.request_from_wire({"prompt": "a cat"})
    assert (submission.wait, submission.inline, submission.webhook) == (False, False, None)


def test_the_webhook_is_in_the_query() -> None:
    submission = wavespeed.request_from_wire({"prompt": "a cat"}, {"webhook": "https://me.example/hook"})
    assert submission.webhook == "https://me.example/hook"


def test_base64_output_and_a_webhook_exclude_each_other() -> None:
    body = {"prompt": "a cat", "enable_base64_output": True}
    with pytest.raises(InvalidRequestError, match="enable_base64_output"):
        wavespeed.request_from_wire(body, {"webhook": "https://me.example/hook"})


# Requests sent


def test_a_bare_request_becomes_the_body_of_the_page() -> None:
    body = wavespeed.request_to_wire(GenerationRequest(prompt="a cat")).body
    assert body == {"prompt": "a cat"} | PAGE_BODY


def expected_losses(request: GenerationRequest) -> set[str]:
    """Fields that the page does not have."""
    absent = ("negative_prompt", "num_frames", "guidance_scale", "flow_shift", "fps")
    losses = {name for name in absent if getattr(request, name) is not None}
    sides = [side for side in (request.width, request.height) if side is not None]
    if any(side not in (1280, 720) for side in sides) or (len(sides) == 2 and sides[0] == sides[1]):
        losses.add("size")
    if request.true_cfg_scale != 1.0:
        losses.add("true_cfg_scale")
    if request.num_inference_steps is not None and not 2 <= request.num_inference_steps <= 30:
        losses.add("num_inference_steps")
    if request.seed is not None and request.seed > 2147483647:
        losses.add("seed")
    return losses


def with_page_defaults(request: GenerationRequest) -> GenerationRequest:
    portrait = request.width == 720 or request.height == 1280
    width, height = (720, 1280) if portrait else (1280, 720)
    return request.with_defaults({"width": width, "height": height, "num_inference_steps": 30})


@unhurried
@given(requests())
def test_a_request_survives_or_every_loss_is_named(request: GenerationRequest) -> None:
    losses = expected_losses(request)
    if losses:
        with pytest.raises(RequestLossError) as caught:
            wavespeed.request_to_wire(request)
        assert {loss.field for loss in caught.value.losses} == losses
    else:
        body = json.loads(json.dumps(wavespeed.request_to_wire(request).body))
        assert wavespeed.request_from_wire(body).request == with_page_defaults(request)


@unhurried
@given(requests())
def test_with_permission_every_request_is_one_that_the_page_allows(request: GenerationRequest) -> None:
    made = wavespeed.request_to_wire(request, allow_loss=True)
    assert wavespeed.request_from_wire(made.body).request == made.request
    assert {loss.field for loss in made.losses} == expected_losses(request)


@unhurried
@given(requests())
def test_a_seed_is_never_wrapped(request: GenerationRequest) -> None:
    seed = request.seed if request.seed is not None and request.seed <= 2147483647 else -1
    assert wavespeed.request_to_wire(request, allow_loss=True).body["seed"] == seed


@unhurried
@given(JSON)
def test_any_json_is_a_submission_or_refused(body: object) -> None:
    with contextlib.suppress(InvalidRequestError):
        wavespeed.request_from_wire(body)


@unhurried
@given(damaged({"prompt": "a cat", "enable_sync_mode": True} | PAGE_BODY))
def test_any_damaged_submission_is_taken_or_refused(body: object) -> None:
    with contextlib.suppress(InvalidRequestError):
        wavespeed.request_from_wire(body)


# Answers sent


def test_the_envelope_says_200_and_success() -> None:
    envelope = wavespeed.job_to_wire(JobView(job_id="p1", status="queued"), BASE).to_json()
    assert (envelope["code"], envelope["message"]) == (200, "success")


def test_the_answer_to_a_submission_is_the_state_of_the_job() -> None:
    job = JobView(job_id="p1", status="queued")
    assert wavespeed.submission_to_wire(job, BASE) == wavespeed.job_to_wire(job, BASE)


def test_data_has_the_fields_of_the_page_and_no_others() -> None:
    assert sent(JobView(job_id="p1", status="queued")).keys() == PREDICTION.keys()


def test_a_finished_job_is_as_on_the_page() -> None:
    job = JobView(
        job_id="p1",
        status="succeeded",
        created_at=datetime(2023, 4, 1, 12, 34, 56, 789000, UTC),
        outputs=("https://cdn.example/v.mp4",),
        inference_s=2.5,
        nsfw=(False,),
    )
    assert wavespeed.job_to_wire(job, BASE).to_json() == ANSWER


@pytest.mark.parametrize("base", [BASE, f"{BASE}/"])
def test_the_result_url_is_whole(base: str) -> None:
    data = wavespeed.job_to_wire(JobView(job_id="p1", status="queued"), base).data
    assert data.urls.get == f"{BASE}/api/v3/predictions/p1/result"


@pytest.mark.parametrize("status", ["queued", "running", "failed", "canceled"])
def test_outputs_are_empty_when_status_is_not_completed(status: str) -> None:
    assert sent(JobView(job_id="p1", status=status, outputs=("https://cdn.example/v.mp4",)))["outputs"] == []


def test_no_error_is_an_empty_text() -> None:
    assert sent(JobView(job_id="p1", status="queued"))["error"] == ""


def test_inference_time_is_whole_milliseconds() -> None:
    assert sent(JobView(job_id="p1", status="succeeded", inference_s=2.5004))["timings"] == {"inference": 2500}


@pytest.mark.parametrize(("word", "status"), [(word, status) for word, status in PAGE_STATUSES.items()])
def test_status_words(word: str, status: str) -> None:
    assert sent(JobView(job_id="p1", status=status))["status"] == word
    assert answered(status=word).status == status


def test_a_canceled_job_has_failed_since_old_clients_know_no_other_word() -> None:
    assert sent(JobView(job_id="p1", status="canceled"))["status"] == "failed"


@pytest.mark.parametrize(
    ("failure", "code"), [("moderation", 1200), ("invalid", 1401), ("execution", 1403), ("timeout", 5004)]
)
def test_failure_codes(failure: str, code: int) -> None:
    assert sent(JobView(job_id="p1", status="failed", failure=failure))["code"] == code
    assert answered(status="failed", code=code).failure == failure


# Answers received


def test_the_answer_of_the_page_is_understood() -> None:
    job = answered()
    assert job == JobView(
        job_id="p1",
        status="succeeded",
        created_at=datetime(2023, 4, 1, 12, 34, 56, 789000, UTC),
        outputs=("https://cdn.example/v.mp4",),
        inference_s=2.5,
        nsfw=(False,),
    )


def test_an_unknown_status_word_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(InvalidAnswerError, match=r"'paused'.*created, processing, completed, failed"):
        answered(status="paused")


@pytest.mark.parametrize("field", ["outputs", "has_nsfw_contents", "timings", "error", "created_at"])
def test_null_is_as_good_as_nothing(field: str) -> None:
    assert answered(**{field: None}).job_id == "p1"


@pytest.mark.parametrize("field", ["id", "status"])
def test_what_cannot_be_done_without_is_named(field: str) -> None:
    with pytest.raises(InvalidAnswerError, match=f"data.{field}"):
        answered(**{field: None})


def test_an_empty_id_is_no_id() -> None:
    with pytest.raises(InvalidAnswerError, match=r"data\.id"):
        answered(id="")


def test_a_time_without_zone_is_utc() -> None:
    assert answered(created_at="2023-04-01T12:34:56").created_at == datetime(2023, 4, 1, 12, 34, 56, tzinfo=UTC)


def test_a_time_in_another_form_is_left_unsaid() -> None:
    assert answered(created_at="yesterday").created_at is None


@pytest.mark.parametrize("milliseconds", [0, -1, float("nan"), float("inf")])
def test_no_inference_time_is_left_unsaid(milliseconds: float) -> None:
    assert answered(timings={"inference": milliseconds}).inference_s is None


def test_fields_that_the_page_does_not_have_are_left_alone() -> None:
    assert answered(executionTime=7).job_id == "p1"


def test_the_id_of_a_submission() -> None:
    assert wavespeed.submission_from_wire(ANSWER) == "p1"


@pytest.mark.parametrize("body", ["<html>busy</html>", None, [], {}, {"data": None}, {"data": []}, 200])
def test_other_answers_are_errors(body: object) -> None:
    with pytest.raises(InvalidAnswerError, match="wavespeed"):
        wavespeed.job_from_wire(body)


@unhurried
@given(jobs())
def test_what_the_page_has_a_place_for_survives(job: JobView) -> None:
    back = wavespeed.job_from_wire(json.loads(json.dumps(wavespeed.job_to_wire(job, BASE).to_json())))
    assert back == JobView(
        job_id=job.job_id,
        status="failed" if job.status == "canceled" else job.status,
        created_at=job.created_at,
        outputs=job.outputs,
        error=job.error,
        failure=None if job.failure == "canceled" else job.failure,
        inference_s=job.inference_s,
        nsfw=job.nsfw,
    )


@unhurried
@given(JSON | damaged(ANSWER | {"data": PREDICTION | {"code": 1403}}))
def test_any_answer_is_a_job_or_an_invalid_one(body: object) -> None:
    with contextlib.suppress(InvalidAnswerError):
        assert isinstance(wavespeed.job_from_wire(body), JobView)


# Faults


@pytest.mark.parametrize(
    ("kind", "status"),
    [("unauthorized", 401), ("forbidden", 403), ("not_found", 404), ("rate_limited", 429), ("invalid", 400)],
)
def test_http_statuses(kind: FaultKind, status: int) -> None:
    assert wavespeed.fault_to_wire(Fault(kind, "no"))[0] == status


@pytest.mark.parametrize("kind", typing.get_args(FaultKind))
def test_every_fault_has_the_shape_that_the_clients_read_and_comes_back(kind: FaultKind) -> None:
    status, body = wavespeed.fault_to_wire(Fault(kind, "what is wrong"))
    assert body.to_json() == {"code": status, "message": "what is wrong", "error": "what is wrong"}
    read = "unauthorized" if kind == "no_key" else kind  # both are 401
    assert wavespeed.fault_from_wire(status, body.to_json()) == Fault(read, "what is wrong", nothing_made=status < 500)


@pytest.mark.parametrize(("status", "kind"), [(402, "invalid"), (418, "invalid"), (500, "internal"), (599, "internal")])
def test_other_http_statuses(status: int, kind: str) -> None:
    assert wavespeed.fault_from_wire(status, {"error": "no"}) == Fault(kind, "no", nothing_made=status < 500)


@unhurried
@given(JSON)
def test_any_body_of_a_fault_is_understood(body: object) -> None:
    assert wavespeed.fault_from_wire(500, body).kind == "internal"


# Deletion


def test_deletion_lists_ids() -> None:
    assert wavespeed.delete_to_wire(["p1", "p2"]) == {"ids": ["p1", "p2"]}


def test_deletion_answers_with_a_count() -> None:
    assert wavespeed.deleted_from_wire({"code": 200, "data": {"deleted_count": 2}}) == 2


def test_deletion_without_a_count_is_an_invalid_answer() -> None:
    with pytest.raises(InvalidAnswerError, match="deleted_count"):
        wavespeed.deleted_from_wire({"code": 200, "data": {}})


# Sync mode


def test_a_submission_that_waited_in_vain_is_still_processing() -> None:
    job = JobView(job_id="p1", status="queued")
    data = wavespeed.unfinished_to_wire(job, BASE).data
    assert (data.status, data.code, data.id) == ("processing", 5004, "p1")


def test_a_failure_text_does_not_make_the_client_run_the_task_again() -> None:
    job = JobView(job_id="x", status="failed", error="the encoder answered HTTP 503", failure="execution")
    assert wavespeed.job_to_wire(job, "http://h").data.error == "the encoder answered HTTP status 503"
