"""OpenAI's endpoints over HTTP."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from server_stage import CLIP, Stage

from hunyuan_local.schema import GenerationRequest

FIELDS = {"prompt": "a fox", "size": "64x48", "num_frames": "9", "seed": "18446744073709551615"}


def taken(client: TestClient, stage: Stage, **call: Any) -> GenerationRequest:
    """The request of the job that a submission created."""
    answer = client.post("/v1/videos", **call)
    assert answer.status_code == 200, answer.text
    return stage.store.get(answer.json()["id"]).request


def refusal(client: TestClient, **call: Any) -> str:
    answer = client.post("/v1/videos", **call)
    assert answer.status_code == 400
    return answer.json()["error"]["message"]


def multipart(fields: dict[str, str]) -> dict[str, tuple[None, str]]:
    return {name: (None, value) for name, value in fields.items()}


@pytest.mark.parametrize(
    "call", [{"json": FIELDS | {"num_frames": 9, "seed": 2**64 - 1}}, {"data": FIELDS}, {"files": multipart(FIELDS)}]
)
def test_json_and_both_kinds_of_forms_are_taken(client: TestClient, stage: Stage, call: dict[str, Any]) -> None:
    request = taken(client, stage, **call)
    assert (request.width, request.height, request.num_frames, request.seed) == (64, 48, 9, 2**64 - 1)


def test_extras_may_are_in_objects(client: TestClient, stage: Stage) -> None:
    body = {"prompt": "a fox", "extra_body": {"seed": 1}, "extra_params": '{"num_frames": 9}'}
    request = taken(client, stage, json=body)
    assert (request.seed, request.num_frames) == (1, 9)


def test_extras_of_a_form_may_are_in_brackets(client: TestClient, stage: Stage) -> None:
    fields = {"prompt": "a fox", "extra_params[seed]": "1", "extra_body[num_frames]": "9"}
    request = taken(client, stage, files=multipart(fields))
    assert (request.seed, request.num_frames) == (1, 9)


def test_texts_of_a_form_are_utf_8(client: TestClient, stage: Stage) -> None:
    fields = {"prompt": "猫 mit Hut"}
    prompts = [taken(client, stage, data=fields).prompt, taken(client, stage, files=multipart(fields)).prompt]
    assert prompts == ["猫 mit Hut"] * 2


def test_a_submission_is_answered_with_the_video_object(client: TestClient) -> None:
    video = client.post("/v1/videos", json={"prompt": "a fox"}).json()
    assert (video["object"], video["status"], video["progress"]) == ("video", "queued", 0)


def test_clients_are_reported_when_to_ask_again(client: TestClient) -> None:
    made = client.post("/v1/videos", json={"prompt": "a fox"})
    asked = client.get(f"/v1/videos/{made.json()['id']}")
    assert [1 <= int(answer.headers["openai-poll-after-ms"]) <= 1000 for answer in (made, asked)] == [True, True]


def test_a_finished_video_expires_with_its_file(make_client: Callable[..., TestClient], stage: Stage) -> None:
    job = stage.succeeded()
    video = make_client(retention_s=1000).get(f"/v1/videos/{job.job_id}").json()
    assert (video["status"], video["expires_at"] - video["completed_at"]) == ("completed", 1000)


# Bodies that are refused


def test_an_image_is_refused_with_the_models_that_take_one(client: TestClient) -> None:
    call = {"data": {"prompt": "a fox"}, "files": {"input_reference": ("a.png", b"\x89PNG", "image/png")}}
    message = refusal(client, **call)
    assert message.startswith("input_reference='a.png': tiny makes videos from text alone; image-to-video models are ")
    assert "hunyuan-video-i2v" in message


def test_only_an_image_may_be_a_file(client: TestClient) -> None:
    call = {"files": {"prompt": ("a.txt", b"a fox", "text/plain")}}
    assert refusal(client, **call).startswith("prompt='a.txt': is a file, but this field takes none")


def browser_form(fields: dict[str, str], *empty_files: str) -> dict[str, Any]:
    """A call with a form as browsers encode it; httpx would not send a file without a name."""
    parts = [f'name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    parts += [f'name="{n}"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n\r\n' for n in empty_files]
    body = "".join(f"--b\r\nContent-Disposition: form-data; {part}" for part in parts) + "--b--\r\n"
    return {"content": body.encode(), "headers": {"content-type": "multipart/form-data; boundary=b"}}


def test_a_field_without_a_file_is_nothing(client: TestClient, stage: Stage) -> None:
    call = browser_form({"prompt": "a fox"}, "input_reference", "input_reference", "mask")
    assert taken(client, stage, **call).prompt == "a fox"


def test_an_empty_file_with_a_name_is_a_file(client: TestClient) -> None:
    call = {"data": {"prompt": "a fox"}, "files": {"input_reference": ("a.png", b"", "image/png")}}
    assert "input_reference='a.png': " in refusal(client, **call)


EMPTY = {"size": "", "seed": "", "seconds": "", "negative_prompt": "", "rewrite": "", "extra_params": "", "model": ""}


@pytest.mark.parametrize("kind", ["data", "files"])
def test_fields_of_a_form_that_were_left_empty_are_not_given(client: TestClient, stage: Stage, kind: str) -> None:
    fields = {"prompt": "a fox", "input_reference": "", "extra_params[fps]": ""} | EMPTY
    request = taken(client, stage, **{kind: multipart(fields) if kind == "files" else fields})
    assert (request.negative_prompt, request.fps) == (None, 12)  # the model's default


def test_a_prompt_that_was_left_empty_is_refused_as_it_was_sent(client: TestClient) -> None:
    assert refusal(client, data={"prompt": "", "size": ""}).startswith("prompt='': the prompt is empty")


def test_an_unknown_field_is_refused_though_it_was_left_empty(client: TestClient) -> None:
    assert refusal(client, data={"prompt": "a fox", "steps": ""}).startswith("steps='': unknown field")


def test_a_field_that_is_once_empty_is_given_once(client: TestClient, stage: Stage) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert taken(client, stage, content=b"prompt=a&seed=&seed=7&seed=", headers=headers).seed == 7


def test_an_empty_text_of_json_is_no_number(client: TestClient) -> None:
    assert refusal(client, json={"prompt": "a fox", "seed": ""}).startswith("seed='': ")


def test_a_video_that_is_too_large_is_refused_by_the_length_that_was_sent(client: TestClient) -> None:
    message = refusal(client, data={"prompt": "a fox", "seconds": "12"})
    assert message == (
        "seconds=12: is 289 frames at 24 fps; 1280x720x289 is 266342400 pixels; the limit is 236851200; "
        "reduce the size or the frames"
    )


@pytest.mark.parametrize(
    ("fields", "beginning"),
    [
        ({"size": "8192x8192"}, "size='8192x8192': 8192x8192x"),
        ({"width": "8192", "height": "8192"}, "width=8192: the height is 8192; 8192x8192x"),
        ({"size": "8192x8192", "num_frames": "129"}, "num_frames=129: 8192x8192x129 is"),
    ],
)
def test_a_video_that_is_too_large_is_refused_by_a_field_that_was_sent(
    client: TestClient, fields: dict[str, str], beginning: str
) -> None:
    assert refusal(client, data={"prompt": "a fox"} | fields).startswith(beginning)


def test_a_form_in_another_encoding_is_not_guessed_at(client: TestClient) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nf\xfcchsin\r\n--b--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert "is not UTF-8" in refusal(client, content=body, headers=headers)


@pytest.mark.parametrize("body", [b"prompt=%FF", b"prompt=\xff", b"prompt=%ED%A0%80", b"&".join([b"a=1"] * 200)])
def test_urlencoded_forms_must_be_whole_text(client: TestClient, body: bytes) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert "is not a valid form" in refusal(client, content=body, headers=headers)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b; charset=utf-7", b"--b\r\n\r\n+2AA-\r\n--b--\r\n"),
        ("multipart/form-data; boundary=" + "b" * 300, b"--b"),
        ("application/x-www-form-urlencoded", b""),
        ("text/plain", b"prompt=a"),
        ("application/xml", b"<prompt/>"),
    ],
)
def test_bodies_that_cannot_be_read_are_refused(client: TestClient, kind: str, body: bytes) -> None:
    assert refusal(client, content=body, headers={"content-type": kind})


def test_a_field_given_twice_is_refused(client: TestClient) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert "is given twice" in refusal(client, content=b"prompt=a&prompt=b", headers=headers)


@pytest.mark.parametrize("name", ["x" * 10_000, "[" * 10_000, "extra_body[" * 5000, "\x00"])
def test_strange_names_are_unknown_fields(client: TestClient, name: str) -> None:
    assert len(refusal(client, json={"prompt": "a", name: 1})) < 1000


# Lists


def ids(client: TestClient, **query: object) -> list[str]:
    answer = client.get("/v1/videos", params=query)
    assert answer.status_code == 200, answer.text
    return [video["id"] for video in answer.json()["data"]]


def test_the_newest_is_listed_first(client: TestClient, stage: Stage) -> None:
    jobs = [stage.queued().job_id for _ in range(3)]
    assert (ids(client), ids(client, order="asc")) == (jobs[::-1], jobs)


def test_20_are_listed_unless_told_otherwise(client: TestClient, stage: Stage) -> None:
    for _ in range(21):
        stage.queued()
    answer = client.get("/v1/videos").json()
    assert (len(answer["data"]), answer["has_more"]) == (20, True)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_all_are_found_page_by_page(client: TestClient, stage: Stage, order: str) -> None:
    jobs = {stage.queued().job_id for _ in range(5)}
    found, query = [], {"limit": 2, "order": order}
    while page := ids(client, **query):
        found += page
        query["after"] = page[-1]
    assert (len(found), set(found)) == (5, jobs)


def test_the_last_page_has_no_more_behind_it(client: TestClient, stage: Stage) -> None:
    job = stage.queued()
    answer = client.get("/v1/videos", params={"limit": 1}).json()
    assert (answer["has_more"], answer["first_id"], answer["last_id"]) == (False, job.job_id, job.job_id)


@pytest.mark.parametrize(
    ("query", "status"),
    [("limit=0", 400), ("limit=101", 400), ("limit=x", 400), ("limit=", 400), ("order=up", 400), ("after=x", 404)],
)
def test_other_queries_are_refused(client: TestClient, query: str, status: int) -> None:
    assert client.get(f"/v1/videos?{query}").status_code == status


def test_unknown_parameters_are_left_alone(client: TestClient) -> None:
    assert client.get("/v1/videos?beta=true").status_code == 200


# Deletion


def test_a_waiting_video_is_cancelled_and_stays(client: TestClient, stage: Stage) -> None:
    path = f"/v1/videos/{stage.queued().job_id}"
    assert client.delete(path).json()["deleted"] is True
    video = client.get(path).json()
    assert (video["status"], video["error"]["code"]) == ("failed", "canceled")


def test_a_running_video_is_asked_to_stop(client: TestClient, stage: Stage) -> None:
    job = stage.running()
    client.delete(f"/v1/videos/{job.job_id}")
    assert (stage.store.beat(job, 10), stage.store.get(job.job_id).status) == (False, "running")


def test_a_finished_video_is_deleted_with_its_file(client: TestClient, stage: Stage) -> None:
    job = stage.succeeded()
    answer = client.delete(f"/v1/videos/{job.job_id}").json()
    assert answer == {"id": job.job_id, "object": "video.deleted", "deleted": True}
    assert (stage.store.get(job.job_id), stage.folder.video(job).exists()) == (None, False)


def test_an_unknown_video_cannot_be_deleted(client: TestClient) -> None:
    assert client.delete("/v1/videos/x").status_code == 404


# Files


def content(client: TestClient, job_id: str, query: str = "", **headers: str) -> Any:
    return client.get(f"/v1/videos/{job_id}/content{query}", headers=headers)


@pytest.mark.parametrize("accept", ["application/binary", "*/*", "text/html"])
def test_the_file_is_given_whatever_is_accepted(client: TestClient, stage: Stage, accept: str) -> None:
    answer = content(client, stage.succeeded().job_id, accept=accept)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "video/mp4", CLIP)


@pytest.mark.usefixtures("starts_process")
def test_a_thumbnail_is_the_first_frame(client: TestClient, stage: Stage) -> None:
    answer = content(client, stage.succeeded().job_id, "?variant=thumbnail")
    picture = Image.open(io.BytesIO(answer.content))
    assert (answer.headers["content-type"], picture.format, picture.size) == ("image/webp", "WEBP", (64, 48))


@pytest.mark.parametrize("variant", ["spritesheet", "x", ""])
def test_other_variants_are_refused_with_those_that_there_are(client: TestClient, stage: Stage, variant: str) -> None:
    answer = content(client, stage.succeeded().job_id, f"?variant={variant}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "variant")
    assert "'video' or 'thumbnail'" in answer.json()["error"]["message"]


def test_before_it_is_ready_there_is_no_file(client: TestClient, stage: Stage) -> None:
    answer = content(client, stage.queued().job_id)
    assert (answer.status_code, "is not ready yet" in answer.json()["error"]["message"]) == (404, True)


def test_after_a_failure_there_is_none_either_and_why(client: TestClient, stage: Stage) -> None:
    answer = content(client, stage.failed("no memory").job_id)
    assert (answer.status_code, "no memory" in answer.json()["error"]["message"]) == (404, True)


def test_a_file_that_was_taken_away_is_gone(client: TestClient, stage: Stage) -> None:
    job = stage.succeeded()
    stage.folder.video(job).unlink()
    answer = content(client, job.job_id)
    assert (answer.status_code, "no longer exists" in answer.json()["error"]["message"]) == (404, True)


@pytest.mark.usefixtures("starts_process")
def test_a_video_that_cannot_be_decoded_has_no_thumbnail_and_is_handed_out(client: TestClient, stage: Stage) -> None:
    job = stage.succeeded()
    video = CLIP.replace(b"avc1\0\0\0\0", b"zzz1\0\0\0\0")
    stage.folder.video(job).write_bytes(video)
    answer = content(client, job.job_id, "?variant=thumbnail")
    assert (answer.status_code, "cannot be decoded here" in answer.json()["error"]["message"]) == (404, True)
    assert content(client, job.job_id).content == video


def test_a_file_that_is_no_video_has_no_thumbnail(client: TestClient, stage: Stage) -> None:
    job = stage.succeeded()
    stage.folder.video(job).write_bytes(CLIP[:100])
    answer = content(client, job.job_id, "?variant=thumbnail")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
