"""OpenAI's dialect: JSON and form bodies, extras, the video object, lists, faults."""

from __future__ import annotations

import contextlib
import io
import json
import typing
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from wire_strategies import JSON, damaged, jobs, requests, unhurried

from hunyuan_local.errors import InvalidAnswerError, InvalidRequestError
from hunyuan_local.schema import GenerationRequest, JobView
from hunyuan_local.wires import openai, openai_library
from hunyuan_local.wires.base import Fault, FaultKind, Listing
from hunyuan_local.wires.forms import Form
from hunyuan_local.wires.sent_image import SentFile

BASE = "https://host.example"
STATUSES = {"queued": "queued", "in_progress": "running", "completed": "succeeded", "failed": "failed"}
VIDEO = {
    "id": "video_1",
    "object": "video",
    "created_at": 1758941485,
    "completed_at": 1758941585,
    "expires_at": 1758945185,
    "model": "hunyuan-video",
    "status": "completed",
    "progress": 100,
    "prompt": "A calico cat playing a piano on stage",
    "seconds": "4",
    "size": "1280x720",
    "error": None,
}
REQUEST = GenerationRequest(prompt="A calico cat playing a piano on stage", width=1280, height=720)
# Every field as OpenAI's client and curl send it: only text.
FORM = {
    "prompt": "a cat",
    "model": "sora-2",
    "size": "1280x720",
    "seconds": "4",
    "negative_prompt": "dogs",
    "num_frames": "17",
    "num_inference_steps": "8",
    "seed": "18446744073709551615",
    "guidance_scale": "6.0",
    "true_cfg_scale": "1.5",
    "flow_shift": "7.0",
    "fps": "12",
}
FORM_REQUEST = GenerationRequest(
    prompt="a cat",
    negative_prompt="dogs",
    width=1280,
    height=720,
    num_frames=17,
    num_inference_steps=8,
    seed=2**64 - 1,
    guidance_scale=6.0,
    true_cfg_scale=1.5,
    flow_shift=7.0,
    fps=12,
)


def received(**fields: object) -> GenerationRequest:
    return openai.request_from_wire({"prompt": "a cat"} | fields).request


def refusal(**fields: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        received(**fields)
    return str(caught.value)


def answered(**changes: object) -> JobView:
    return openai.job_from_wire(VIDEO | changes)


def sent(job: JobView) -> dict[str, Any]:
    return openai.job_to_wire(job, BASE).to_json()


def test_paths() -> None:
    assert openai.SUBMIT_PATH == "/v1/videos"
    assert openai.result_path("video_1") == "/v1/videos/video_1"


def test_an_id_cannot_leave_its_path() -> None:
    assert openai.result_path("../files?x") == "/v1/videos/..%2Ffiles%3Fx"


# Request fields


def test_only_the_prompt_is_required() -> None:
    assert received() == GenerationRequest(prompt="a cat")


def test_the_prompt_is_required() -> None:
    with pytest.raises(InvalidRequestError, match="prompt=None: is required"):
        openai.request_from_wire({"size": "1280x720"})


def test_the_example_of_sglang() -> None:
    body = {"prompt": "A calico cat playing a piano on stage", "size": "1280x720"}
    assert openai.request_from_wire(body).request == REQUEST


def test_a_form_of_texts_is_read() -> None:
    assert openai.request_from_wire(FORM).request == FORM_REQUEST


def test_the_same_as_json_is_read() -> None:
    body = {"prompt": "a cat", "negative_prompt": "dogs"} | {
        name: json.loads(FORM[name]) for name in FORM.keys() - {"prompt", "model", "size", "negative_prompt", "seconds"}
    }
    assert openai.request_from_wire(body | {"size": "1280x720"}).request == FORM_REQUEST


@pytest.mark.parametrize("model", ["sora-2", "hunyuan-video", "anything"])
def test_any_model_is_taken_and_ignored(model: str) -> None:
    assert received(model=model) == received()


@pytest.mark.parametrize("field", ["size", "seconds", "seed", "num_frames", "true_cfg_scale", "input_reference"])
def test_null_is_not_given(field: str) -> None:
    assert received(**{field: None}) == received()


@pytest.mark.parametrize(("wire", "seed"), [(-1, None), ("-1", None), (0, 0), (2**64 - 1, 2**64 - 1), ("7", 7)])
def test_seeds(wire: object, seed: int | None) -> None:
    assert received(seed=wire).seed == seed


@pytest.mark.parametrize("seed", [-2, 2**64])
def test_seeds_beyond_are_refused(seed: int) -> None:
    assert f"seed={seed}" in refusal(seed=seed)


def test_a_refused_seed_is_answered_with_those_of_the_dialect() -> None:
    assert "openai supports -1 (a random seed) and 0 to 2^64-1" in refusal(seed=-2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "abc"),
        ("seed", 7.5),
        ("seed", True),
        ("seed", ""),
        ("num_inference_steps", "ten"),
        ("num_frames", "17 frames"),
        ("fps", "1/24"),
        ("guidance_scale", "high"),
        ("guidance_scale", True),
        ("flow_shift", []),
        ("seconds", "soon"),
        ("seconds", 0),
        ("seconds", "-4"),
        ("seconds", 86401),
        ("width", "wide"),
        ("size", 1280),
        ("size", "1280*720"),
        ("size", ""),
        ("prompt", 3),
        ("prompt", " "),
        ("model", 3),
    ],
)
def test_wrong_values_are_refused_by_name(field: str, value: object) -> None:
    assert f"{field}=" in refusal(**{field: value})


def test_all_wrong_values_are_named_at_once() -> None:
    message = refusal(seed="abc", fps="x")
    assert "seed='abc'" in message and "fps='x'" in message


def test_an_unknown_field_is_refused_with_the_likely_one() -> None:
    assert "steps=8: unknown field; did you mean num_inference_steps?" in refusal(steps=8)


IMAGE_URL = "https://cat.example/cat.png"


@pytest.mark.parametrize(
    "fields",
    [
        {"input_reference": IMAGE_URL},
        {"input_reference": {"image_url": IMAGE_URL}},
        {"input_reference": f'{{"image_url": "{IMAGE_URL}"}}'},
        {"input_reference[image_url]": IMAGE_URL},
        {"extra_body": {"input_reference": IMAGE_URL}},
        {"extra_body[input_reference][image_url]": IMAGE_URL},
    ],
)
@pytest.mark.parametrize("kind", [dict, Form])
def test_an_image_is_text_or_an_object(kind: type, fields: dict[str, object]) -> None:
    image = openai.request_from_wire(kind({"prompt": "a cat"} | fields)).image
    assert image is not None and (image.field, image.source, image.fit) == ("input_reference", IMAGE_URL, None)


def test_an_image_is_a_file_of_a_form() -> None:
    file = SentFile("cat.png", b"...")
    image = openai.request_from_wire(Form(prompt="a cat", input_reference=file, image_fit="pad")).image
    assert image is not None and (image.source, image.shown, image.fit) == (file, "cat.png", "pad")


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"file_id": "f-1"}, "input_reference.file_id='f-1': file ids are not supported; send the image itself"),
        ({}, "input_reference.image_url=None: is required"),
        ({"image_url": 3}, "input_reference.image_url=3: "),
        ({"image_url": IMAGE_URL, "detail": "high"}, "input_reference.detail='high': unknown field"),
        (3, "input_reference=3: must be a file in a form, "),
        ("{", "input_reference='{': is not valid JSON"),
    ],
)
def test_another_image_is_refused_by_name(sent: object, message: str) -> None:
    assert message in refusal(input_reference=sent)


def test_an_image_is_given_once() -> None:
    with pytest.raises(InvalidRequestError, match="input_reference='x': is given twice"):
        openai.request_from_wire({"prompt": "a", "input_reference": IMAGE_URL, "extra_body": {"input_reference": "x"}})


def test_a_fit_without_an_image_is_refused() -> None:
    assert "image_fit='pad': has no effect without image" in refusal(image_fit="pad")


@pytest.mark.parametrize("body", [None, [], "prompt", '{"prompt": "a cat"}', 3])
def test_a_body_must_be_an_object(body: object) -> None:
    with pytest.raises(InvalidRequestError, match="body"):
        openai.request_from_wire(body)


# Size


def test_a_size_may_be_two_sides() -> None:
    assert received(width="1280", height="720") == received(size="1280x720")


def test_one_side_alone_is_taken() -> None:
    assert (received(height=720).width, received(height=720).height) == (None, 720)


def test_a_size_and_the_same_sides_agree() -> None:
    assert received(size="1280x720", width="1280", height=720) == received(size="1280x720")


def test_a_size_and_other_sides_are_refused() -> None:
    assert refusal(size="1280x720", width=720) == "width=720: contradicts size=1280x720; send only one of the two"


def test_a_size_that_cannot_be_made_is_named_once_as_it_was_sent() -> None:
    rule = "width must be a multiple of 16; the nearest are 1280 and 1296"
    assert refusal(size="1281x720") == f"size='1281x720': {rule}"


def test_sides_with_the_same_fault_share_their_rule() -> None:
    rule = "width and height must be a multiple of 16; the nearest are 96 and 112"
    assert refusal(size="100x100") == f"size='100x100': {rule}"


def test_each_side_with_a_fault_has_its_rule() -> None:
    rules = [
        "width must be a multiple of 16; the nearest are 96 and 112",
        "height must be a multiple of 16; the nearest are 80 and 96",
    ]
    assert refusal(size="100x90") == f"size='100x90': {'; '.join(rules)}"


@pytest.mark.parametrize("seconds", [170, "170", 170.0])
def test_a_length_that_cannot_be_made_is_refused_as_seconds(seconds: object) -> None:
    rule = "is 40801 frames at 240 fps; must be 4k+1 frames, from 1 to 4097; the nearest is 4097"
    assert refusal(seconds=seconds, fps=240) == f"seconds=170: {rule}"


def test_a_side_that_cannot_be_made_is_refused_by_its_name() -> None:
    assert "width=1281: must be a multiple of 16" in refusal(width=1281, height=720)


# Length


def test_seconds_alone_are_at_24_frames_each() -> None:
    request = received(seconds="4")
    assert (request.num_frames, request.fps) == (97, 24)


def test_the_nearest_4k_plus_1_frames_are_made() -> None:
    assert [received(seconds=n, fps=1).num_frames for n in (1, 2, 4, 5, 6, 8)] == [1, 1, 5, 5, 5, 9]


def test_seconds_count_at_the_given_rate() -> None:
    request = received(seconds=5, fps=16)
    assert (request.num_frames, request.fps) == (81, 16)


def test_frames_win_over_seconds() -> None:
    request = received(seconds="4", num_frames=17)
    assert (request.num_frames, request.fps) == (17, None)


def test_frames_of_another_number_are_refused_rather_than_rounded() -> None:
    assert "num_frames=80: must be 4k+1 frames; the nearest are 77 and 81" in refusal(num_frames=80)


def test_without_either_the_length_is_left_open() -> None:
    assert (received(fps=16).num_frames, received().fps) == (None, None)


@pytest.mark.parametrize("fps", [0, -5, 241, 10**400])
def test_a_wrong_rate_is_named_even_where_the_length_depends_on_it(fps: int) -> None:
    assert "fps=" in refusal(seconds=4, fps=fps)


@unhurried
@given(st.floats(0, 17, exclude_min=True), st.integers(1, 240))  # 17 x 240 frames are nearly the maximum
def test_seconds_are_kept_to_within_two_frames(seconds: float, fps: int) -> None:
    frames = received(seconds=seconds, fps=fps).num_frames
    assert abs(frames - max(1, seconds * fps)) <= 2


# Extras


@pytest.mark.parametrize("container", ["extra_body", "extra_params"])
@pytest.mark.parametrize("form", [lambda extras: extras, json.dumps], ids=["object", "text"])
def test_extras_in_an_object(container: str, form: Any) -> None:
    assert received(**{container: form({"seed": 7, "flow_shift": None})}).seed == 7


@pytest.mark.parametrize("name", ["extra_params[seed]", "extra_body[seed]", "extra_body[extra_params][seed]"])
def test_extras_in_the_names_of_a_form(name: str) -> None:
    assert received(**{name: "7"}).seed == 7


def test_extras_within_extras() -> None:
    assert received(extra_body={"extra_params": {"seed": 7}}).seed == 7


def test_unknown_extras_are_refused() -> None:
    assert "steps=8: unknown field" in refusal(extra_body={"steps": 8})


def test_deeper_names_of_a_form_are_unknown_fields() -> None:
    assert "b[c][]='x': unknown field" in refusal(**{"extra_params[b][c][]": "x"})


@pytest.mark.parametrize("value", ["", "seed=7", "[7]", "7", [], 7, "[" * 100_000])
def test_extras_must_be_an_object(value: object) -> None:
    assert "extra_params=" in refusal(extra_params=value)


@pytest.mark.parametrize(
    "body",
    [
        {"seed": 1, "extra_body": {"seed": 7}},
        {"seed": "1", "extra_params[seed]": "7"},
        {"extra_body": {"seed": 7}, "extra_params": '{"seed": 1}'},
    ],
)
def test_one_field_with_two_values_is_refused(body: dict) -> None:
    assert refusal(**body).startswith("seed=")
    assert "is given twice" in refusal(**body)


def test_one_field_twice_with_one_value_is_taken() -> None:
    assert received(seed=7, **{"extra_params[seed]": "7"}).seed == 7


def test_deep_nesting_ends_in_an_answer() -> None:
    body: dict[str, Any] = {"seed": 7}
    for _ in range(5000):
        body = {"extra_body": body}
    assert received(**body).seed == 7


@unhurried
@given(JSON | damaged(FORM | {"extra_params": {"seed": 7}, "extra_body": '{"fps": 12}'}))
def test_any_submission_is_taken_or_refused(body: object) -> None:
    with contextlib.suppress(InvalidRequestError):
        openai.request_from_wire(body)


# Requests sent


def test_what_is_left_open_is_left_out() -> None:
    body = openai.request_to_wire(GenerationRequest(prompt="a cat")).body
    assert body == {"model": "hunyuan-video", "prompt": "a cat"}


def test_what_is_reported_is_flat() -> None:
    assert openai.request_to_wire(FORM_REQUEST).body == {
        "model": "hunyuan-video",
        "prompt": "a cat",
        "negative_prompt": "dogs",
        "size": "1280x720",
        "num_frames": 17,
        "num_inference_steps": 8,
        "seed": 2**64 - 1,
        "guidance_scale": 6.0,
        "true_cfg_scale": 1.5,
        "flow_shift": 7.0,
        "fps": 12,
    }


@unhurried
@given(requests())
def test_every_request_survives(request: GenerationRequest) -> None:
    made = openai.request_to_wire(request)
    assert openai.request_from_wire(json.loads(json.dumps(made.body))).request == request == made.request
    assert made.losses == ()


@unhurried
@given(requests())
def test_every_request_survives_as_a_form(request: GenerationRequest) -> None:
    form = {name: str(value) for name, value in openai.request_to_wire(request, allow_loss=True).body.items()}
    assert openai.request_from_wire(form).request == request


# Answers sent


def test_a_finished_job_is_the_documented_object() -> None:
    job = JobView(
        job_id="video_1",
        status="succeeded",
        request=REQUEST.replace(num_frames=97, fps=24),
        created_at=datetime.fromtimestamp(1758941485, UTC),
        completed_at=datetime.fromtimestamp(1758941585, UTC),
        outputs=("https://host.example/signed",),
        output_ttl_s=3600,
    )
    assert sent(job) == VIDEO


def test_a_new_job_has_all_fields_and_the_nullable_ones_are_null() -> None:
    video = sent(JobView(job_id="video_1", status="queued", created_at=datetime.fromtimestamp(1758941485, UTC)))
    assert video.keys() == VIDEO.keys()
    assert {name for name, value in video.items() if value is None} == {
        "completed_at",
        "expires_at",
        "prompt",
        "error",
    }


def test_the_answer_to_a_submission_is_the_state_of_the_job() -> None:
    job = JobView(job_id="video_1", status="queued")
    assert openai.submission_to_wire(job, BASE).to_json() == sent(job)


@pytest.mark.parametrize(("frames", "fps", "seconds"), [(97, 24, "4"), (129, 24, "5"), (5, 24, "1"), (17, 12, "1")])
def test_seconds_are_whole_and_a_text(frames: int, fps: int, seconds: str) -> None:
    request = GenerationRequest(prompt="a cat", num_frames=frames, fps=fps)
    assert sent(JobView(job_id="video_1", status="queued", request=request))["seconds"] == seconds


def test_unknown_seconds_and_size_are_empty_texts() -> None:
    video = sent(JobView(job_id="video_1", status="queued", request=GenerationRequest(prompt="a cat", width=1280)))
    assert (video["seconds"], video["size"]) == ("", "")


def test_the_seed_used_is_reported() -> None:
    assert sent(JobView(job_id="video_1", status="succeeded", seed=2**64 - 1))["seed"] == 2**64 - 1


@pytest.mark.parametrize(("word", "status"), [(word, status) for word, status in STATUSES.items()])
def test_status_words(word: str, status: str) -> None:
    assert sent(JobView(job_id="video_1", status=status))["status"] == word
    assert answered(status=word).status == status


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ("moderation", "moderation_blocked"),
        ("invalid", "invalid_request"),
        ("execution", "generation_failed"),
        ("timeout", "timeout"),
        (None, "generation_failed"),
    ],
)
def test_a_failure_has_code_and_message(failure: Any, code: str) -> None:
    video = sent(JobView(job_id="video_1", status="failed", failure=failure, error="no"))
    assert video["error"] == {"code": code, "message": "no"}


def test_a_canceled_job_has_failed_and_its_code_says_why() -> None:
    video = sent(JobView(job_id="video_1", status="canceled", error="stopped"))
    assert (video["status"], video["error"]) == ("failed", {"code": "canceled", "message": "stopped"})
    assert openai.job_from_wire(video).status == "canceled"


def test_a_list_names_its_ends() -> None:
    page = [JobView(job_id=name, status="queued") for name in ("video_1", "video_2")]
    assert openai_library.list_to_wire(page, BASE, has_more=True).to_json() == {
        "object": "list",
        "data": [sent(job) for job in page],
        "has_more": True,
        "first_id": "video_1",
        "last_id": "video_2",
    }


def test_an_empty_list_has_no_ends() -> None:
    empty = {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}
    assert openai_library.list_to_wire([], BASE, has_more=False).to_json() == empty


def test_a_deletion() -> None:
    assert openai_library.deleted_to_wire("video_1").to_json() == {
        "id": "video_1",
        "object": "video.deleted",
        "deleted": True,
    }


# Answers received


def test_the_documented_object_is_understood() -> None:
    assert openai.job_from_wire(VIDEO) == JobView(
        job_id="video_1",
        status="succeeded",
        created_at=datetime.fromtimestamp(1758941485, UTC),
        completed_at=datetime.fromtimestamp(1758941585, UTC),
        progress_percent=100,
        output_ttl_s=3600,
    )


def test_the_id_of_a_submission() -> None:
    assert openai.submission_from_wire(VIDEO | {"status": "queued"}) == "video_1"


def test_an_unknown_status_word_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(InvalidAnswerError, match=r"'cancelled'.*queued, in_progress, completed, failed"):
        answered(status="cancelled")


@pytest.mark.parametrize(("field", "value"), [("id", None), ("id", ""), ("id", 7), ("status", None)])
def test_what_cannot_be_done_without_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidAnswerError, match=field):
        answered(**{field: value})


@pytest.mark.parametrize("field", ["progress", "created_at", "completed_at", "expires_at", "error"])
def test_null_is_as_good_as_nothing(field: str) -> None:
    assert answered(**{field: None}).job_id == "video_1"


@pytest.mark.parametrize("seconds", [0, 1e18, float("nan"), float("inf"), float("-inf")])
def test_a_time_of_no_use_is_left_unsaid(seconds: float) -> None:
    assert answered(created_at=seconds).created_at is None


@pytest.mark.parametrize("error", [None, {"message": "no"}, {"code": 500, "message": "no"}, {"code": "other"}])
def test_a_failure_of_no_known_code_is_one_of_execution(error: object) -> None:
    assert answered(status="failed", error=error).failure == "execution"


@pytest.mark.parametrize("body", ["<html>busy</html>", None, [], {}, 200])
def test_other_answers_are_errors(body: object) -> None:
    with pytest.raises(InvalidAnswerError, match="openai"):
        openai.job_from_wire(body)


@unhurried
@given(jobs())
def test_what_the_object_has_a_place_for_survives(job: JobView) -> None:
    back = openai.job_from_wire(json.loads(json.dumps(sent(job))))
    assert back == JobView(
        job_id=job.job_id,
        status=job.status,
        created_at=job.created_at,
        completed_at=job.completed_at,
        progress_percent=job.progress_percent,
        output_ttl_s=job.output_ttl_s,
        error=job.error,
        failure=job.failure,
        seed=job.seed,
    )


@unhurried
@given(JSON | damaged(VIDEO | {"status": "failed", "error": {"code": "timeout", "message": "no"}, "seed": 7}))
def test_any_answer_is_a_job_or_an_invalid_one(body: object) -> None:
    with contextlib.suppress(InvalidAnswerError):
        assert isinstance(openai.job_from_wire(body), JobView)


# Faults


@pytest.mark.parametrize(
    ("kind", "status", "word", "code"),
    [
        ("invalid", 400, "invalid_request_error", None),
        ("unauthorized", 401, "invalid_request_error", "invalid_api_key"),
        ("forbidden", 403, "request_forbidden", None),
        ("not_found", 404, "invalid_request_error", None),
        ("rate_limited", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("internal", 500, "server_error", None),
        ("unavailable", 503, "service_unavailable_error", "server_is_overloaded"),
    ],
)
def test_documented_errors(kind: FaultKind, status: int, word: str, code: str | None) -> None:
    made = openai.fault_to_wire(Fault(kind, "no", "seed"))
    body = {"error": {"message": "no", "type": word, "param": "seed", "code": code}}
    assert (made[0], made[1].to_json()) == (status, body)


@pytest.mark.parametrize("kind", typing.get_args(FaultKind))
def test_every_fault_has_the_documented_shape_and_comes_back(kind: FaultKind) -> None:
    fault = Fault(kind, "what is wrong", "seed")
    status, body = openai.fault_to_wire(fault)
    back = openai.fault_from_wire(status, body.to_json())
    read = "unauthorized" if kind == "no_key" else kind  # both are 401
    assert (back.kind, back.message, back.field) == (read, "what is wrong", "seed")
    assert back.nothing_made == (kind not in ("internal", "not_supported"))


@pytest.mark.parametrize("kind", typing.get_args(FaultKind))
def test_only_a_call_that_made_nothing_may_be_repeated(kind: FaultKind) -> None:
    repeats = openai.fault_headers(Fault(kind, "no")) != {"x-should-retry": "false"}
    assert repeats == (kind in ("rate_limited", "unavailable"))


@pytest.mark.parametrize("body", [{"detail": "no"}, {"error": "no"}, {"error": {"message": "no"}}])
def test_other_shapes_of_errors_are_read(body: dict) -> None:
    assert openai.fault_from_wire(404, body) == Fault("not_found", "no")


@unhurried
@given(JSON | damaged({"error": {"message": "no", "type": "server_error", "param": "seed", "code": "x"}}))
def test_any_body_of_a_fault_is_understood(body: object) -> None:
    assert openai.fault_from_wire(502, body).kind == "internal"


# Queries


def test_a_list_without_a_query_is_the_newest_20() -> None:
    assert openai_library.list_from_wire({}) == Listing(limit=20)


def test_a_list_can_be_continued_and_turned_around() -> None:
    query = {"limit": "5", "after": "video_1", "order": "asc", "beta": "true"}
    assert openai_library.list_from_wire(query) == Listing(limit=5, after="video_1", oldest_first=True)


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "101"}, {"limit": "1.5"}, {"limit": "x"}, {"order": "up"}])
def test_other_queries_are_refused_by_name(query: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(query))):
        openai_library.list_from_wire(query)


@pytest.mark.parametrize(("query", "variant"), [({}, "video"), ({"variant": "thumbnail"}, "thumbnail")])
def test_the_video_is_meant_unless_another_file_is_named(query: dict[str, str], variant: str) -> None:
    assert openai_library.variant_from_wire(query) == variant


def test_there_are_no_spritesheets() -> None:
    with pytest.raises(InvalidRequestError, match="variant='spritesheet'"):
        openai_library.variant_from_wire({"variant": "spritesheet"})


@pytest.mark.parametrize("name", ["x" * 201, "extra_body[" * 50])
def test_very_long_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"\.\.\.=1: unknown field"):
        openai.request_from_wire({"prompt": "a", name: 1})


def test_very_many_fields_are_refused_as_one_mistake() -> None:
    with pytest.raises(InvalidRequestError, match="has 101 fields") as caught:
        openai.request_from_wire({str(number): number for number in range(101)})
    assert len(caught.value.problems) == 1


def test_no_more_than_ten_mistakes_are_explained() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        openai.request_from_wire({str(number): number for number in range(50)})
    assert len(caught.value.problems) == 10


def test_an_image_is_sent_as_a_reference() -> None:
    content = io.BytesIO()
    Image.new("RGB", (64, 48)).save(content, "PNG")
    request = GenerationRequest(prompt="a cat", image=content.getvalue(), image_fit="pad")
    body = openai.request_to_wire(request).body
    assert body["input_reference"]["image_url"].startswith("<PNG 64x48, sha256:")
    assert (body["image_fit"], "image" in body) == ("pad", False)
