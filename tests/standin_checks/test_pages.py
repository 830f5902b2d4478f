"""The stand-in compared with the services' API pages: examples, fields, and refusals."""

from __future__ import annotations

import json
from datetime import datetime

import httpx
import pytest
from standin import StandIn
from standin_calls import (
    BODIES,
    MODEL,
    NOVITA_EXAMPLE,
    NOVITA_RESULT_EXAMPLE,
    PATHS,
    SERVICES,
    WAVESPEED_EXAMPLE,
    WAVESPEED_RESULT_EXAMPLE,
    bearer,
    finish,
    poll,
    run_example,
    status_of,
    submit,
)


def test_wavespeeds_example_is_refused_for_the_prompt_that_it_lacks(standin: StandIn, http: httpx.Client) -> None:
    answer = run_example(http, standin, WAVESPEED_EXAMPLE)
    assert (answer.status_code, answer.json()["message"]) == (400, "prompt is required")


def test_wavespeeds_example_with_a_prompt_is_accepted(standin: StandIn, http: httpx.Client) -> None:
    example = WAVESPEED_EXAMPLE.replace('"size"', '"prompt": "a cat",\n    "size"')
    assert status_of(run_example(http, standin, example)) == "created"


def test_wavespeeds_example_of_a_result_is_accepted(standin: StandIn, http: httpx.Client) -> None:
    task_id = submit(http, standin, "wavespeed").json()["data"]["id"]
    assert status_of(run_example(http, standin, WAVESPEED_RESULT_EXAMPLE, task_id)) == "created"


def test_novitas_example_is_accepted(standin: StandIn, http: httpx.Client) -> None:
    answer = run_example(http, standin, NOVITA_EXAMPLE)
    assert answer.json() == {"task_id": standin.submissions[0].task_id}


def test_novitas_example_of_a_result_is_accepted(standin: StandIn, http: httpx.Client) -> None:
    task_id = submit(http, standin, "novita").json()["task_id"]
    assert status_of(run_example(http, standin, NOVITA_RESULT_EXAMPLE, task_id)) == "TASK_STATUS_QUEUED"


def test_novitas_result_has_every_field_of_the_page(standin: StandIn, http: httpx.Client) -> None:
    result = finish(http, standin, "novita")
    seed = result["extra"]["seed"]
    assert 0 <= int(seed) <= 9_999_999_999
    assert result == {
        "task": {
            "task_id": standin.submissions[0].task_id,
            "task_type": "HUNYUAN_VIDEO_FAST",
            "status": "TASK_STATUS_SUCCEED",
            "reason": "",
            "eta": 0,
            "progress_percent": 100,
        },
        "images": [],
        "videos": [{"video_url": result["videos"][0]["video_url"], "video_url_ttl": "3600", "video_type": "mp4"}],
        "extra": {"seed": seed},
    }


def test_wavespeeds_result_has_every_field_of_the_page(standin: StandIn, http: httpx.Client) -> None:
    result = finish(http, standin, "wavespeed")
    data = result["data"]
    assert (result["code"], result["message"]) == (200, "success")
    assert data["urls"]["get"].endswith(f"/api/v3/predictions/{data['id']}/result")
    assert (data["model"], data["status"], data["error"]) == (MODEL, "completed", "")
    assert (data["has_nsfw_contents"], len(data["outputs"])) == ([False], 1)
    assert isinstance(data["timings"]["inference"], int)
    assert datetime.fromisoformat(data["created_at"]).tzinfo is not None


def test_wavespeeds_outputs_are_empty_until_the_end(standin: StandIn, http: httpx.Client) -> None:
    assert submit(http, standin, "wavespeed").json()["data"]["outputs"] == []


def test_wavespeeds_shorter_result_path_answers_the_same(standin: StandIn, http: httpx.Client) -> None:
    data = finish(http, standin, "wavespeed")["data"]
    short = http.get(f"{standin.url}/api/v3/predictions/{data['id']}", headers=bearer(standin))
    assert short.json()["data"] == data


def test_a_deleted_prediction_is_counted_and_recorded(standin: StandIn, http: httpx.Client) -> None:
    task_id = submit(http, standin, "wavespeed").json()["data"]["id"]
    url = f"{standin.url}/api/v3/predictions/delete"
    answer = http.post(url, json={"ids": [task_id, "no-such-task"]}, headers=bearer(standin))
    assert answer.json()["data"] == {"deleted_count": 1}
    assert standin.deleted == [task_id, "no-such-task"]


def test_a_deleted_prediction_is_unknown(standin: StandIn, http: httpx.Client) -> None:
    task_id = submit(http, standin, "wavespeed").json()["data"]["id"]
    http.post(f"{standin.url}/api/v3/predictions/delete", json={"ids": [task_id]}, headers=bearer(standin))
    assert poll(http, standin, "wavespeed", task_id).status_code == 404


# What is refused.


@pytest.mark.parametrize(
    ("service", "changes", "field"),
    [
        ("wavespeed", {"prompt": None}, "prompt"),
        ("wavespeed", {"prompt": ""}, "prompt"),
        ("wavespeed", {"prompt": 3}, "prompt"),
        ("wavespeed", {"size": "1280x720"}, "size"),
        ("wavespeed", {"size": "854*480"}, "size"),
        ("wavespeed", {"seed": -2}, "seed"),
        ("wavespeed", {"seed": 2**31}, "seed"),
        ("wavespeed", {"seed": "7"}, "seed"),
        ("wavespeed", {"num_inference_steps": 1}, "num_inference_steps"),
        ("wavespeed", {"num_inference_steps": 31}, "num_inference_steps"),
        ("wavespeed", {"num_inference_steps": 30.5}, "num_inference_steps"),
        ("novita", {"model_name": None}, "model_name"),
        ("novita", {"model_name": "hunyuan"}, "model_name"),
        ("novita", {"width": None}, "width"),
        ("novita", {"height": None}, "height"),
        ("novita", {"width": 720}, "width and height"),
        ("novita", {"width": 640, "height": 368}, "width and height"),
        ("novita", {"seed": None}, "seed"),
        ("novita", {"seed": 10**10}, "seed"),
        ("novita", {"seed": True}, "seed"),
        ("novita", {"steps": None}, "steps"),
        ("novita", {"steps": 1}, "steps"),
        ("novita", {"steps": 31}, "steps"),
        ("novita", {"prompt": None}, "prompt"),
        ("novita", {"prompt": ""}, "prompt"),
        ("novita", {"prompt": "x" * 2001}, "prompt"),
        ("novita", {"frames": 84}, "frames"),
        ("novita", {"frames": 130}, "frames"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    strict: StandIn, http: httpx.Client, service: str, changes: dict, field: str
) -> None:
    answer = submit(http, strict, service, **changes)
    assert (answer.status_code, answer.json()["message"].startswith(field)) == (400, True)


@pytest.mark.parametrize(
    ("service", "changes"),
    [
        ("wavespeed", {"size": "720*1280", "seed": 2**31 - 1, "num_inference_steps": 2}),
        ("wavespeed", {"size": "1280*720", "seed": -1, "num_inference_steps": 30}),
        ("novita", {"width": 720, "height": 1280, "seed": 9_999_999_999, "steps": 2, "prompt": "x" * 2000}),
        ("novita", {"seed": 0, "steps": 30, "prompt": "x", "frames": 129}),
    ],
)
def test_the_ends_of_the_ranges_are_accepted(
    standin: StandIn, http: httpx.Client, service: str, changes: dict[str, object]
) -> None:
    assert submit(http, standin, service, **changes).status_code == 200


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"prompt": '])
@pytest.mark.parametrize("service", SERVICES)
def test_a_body_that_is_no_json_object_is_refused(
    strict: StandIn, http: httpx.Client, service: str, content: str
) -> None:
    headers = bearer(strict) | {"Content-Type": "application/json"}
    assert http.post(strict.url + PATHS[service], content=content, headers=headers).status_code == 400


def test_novita_refuses_another_content_type(strict: StandIn, http: httpx.Client) -> None:
    content = json.dumps(BODIES["novita"])
    assert http.post(strict.url + PATHS["novita"], content=content, headers=bearer(strict)).status_code == 400


def test_wavespeeds_errors_have_its_shape(strict: StandIn, http: httpx.Client) -> None:
    body = submit(http, strict, "wavespeed", seed=-2).json()
    message = "seed must be between -1 and 2147483647"
    assert body == {"code": 400, "message": message, "error": message}


def test_novitas_errors_have_its_shape(strict: StandIn, http: httpx.Client) -> None:
    body = submit(http, strict, "novita", steps=31).json()
    message = "steps must be between 2 and 30"
    assert body == {"code": 400, "reason": "INVALID_REQUEST_BODY", "message": message, "metadata": {}}


@pytest.mark.parametrize(
    ("service", "authorization", "status"),
    [
        ("wavespeed", None, 401),
        ("wavespeed", "Bearer wrong", 401),
        ("wavespeed", "test-key-0123456789", 401),
        ("novita", None, 400),
        ("novita", "Bearer wrong", 403),
        ("novita", "test-key-0123456789", 403),
    ],
)
def test_a_key_must_come_as_a_bearer_token(
    strict: StandIn, http: httpx.Client, service: str, authorization: str | None, status: int
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    assert http.post(strict.url + PATHS[service], json=BODIES[service], headers=headers).status_code == status


@pytest.mark.parametrize(("service", "status"), [("wavespeed", 401), ("novita", 403)])
def test_a_result_needs_the_key_too(standin: StandIn, http: httpx.Client, service: str, status: int) -> None:
    submit(http, standin, service)
    assert poll(http, standin, service, key="wrong").status_code == status


@pytest.mark.parametrize("service", SERVICES)
def test_an_unknown_task_is_not_found(strict: StandIn, http: httpx.Client, service: str) -> None:
    assert poll(http, strict, service, "no-such-task").status_code == 404


def test_one_service_does_not_know_the_others_tasks(standin: StandIn, http: httpx.Client) -> None:
    task_id = submit(http, standin, "novita").json()["task_id"]
    assert poll(http, standin, "wavespeed", task_id).status_code == 404
