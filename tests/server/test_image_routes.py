"""Videos from images through the routes of both dialects; nothing is fetched from outside this machine."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from server_stage import MODEL, Stage

from hunyuan_local.config import load_model_config
from hunyuan_local.images import MAX_BYTES
from hunyuan_local.jobs.folder import UPLOADS_KEPT_S
from hunyuan_local.jobs.housekeeping import sweep
from hunyuan_local.jobs.job import Job
from hunyuan_local.server import image_model, service
from hunyuan_local.server.config import ServerConfig
from hunyuan_local.wires import openai, wavespeed, wavespeed_image

TAKES = MODEL.model_copy(update={"name": "toy-i2v", "takes_image": True})
I2V, UPLOADS, OPENAI = wavespeed.IMAGE_SUBMIT_PATH, wavespeed_image.UPLOAD_PATH, openai.SUBMIT_PATH


def png(width: int = 64, height: int = 48, mode: str = "RGB", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.new(mode, (width, height), "navy").save(content, "PNG", **options)
    return content.getvalue()


PNG = png()
BASE64 = base64.b64encode(PNG).decode()


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client(model=TAKES)


def newest(stage: Stage) -> Job:
    return stage.store.find(limit=1)[0]


def upload(client: TestClient, content: bytes = PNG, size: int | None = None) -> Any:
    """Upload as WaveSpeed's clients do; returns the ticket and the answer to the PUT, which has no key."""
    announced = {"filename": "cat.png", "size": len(content) if size is None else size, "content_type": "image/png"}
    ticket = client.post(UPLOADS, json=announced).json()["data"]
    call = ticket["upload"]
    return ticket, client.request(call["method"], call["url"], headers=call["headers"], content=content)


def error_of(answer: Any) -> str:
    assert answer.status_code == 400, answer.text
    body = answer.json()
    return body["error"]["message"] if isinstance(body.get("error"), dict) else body["message"]


# A job from each form of an image


@pytest.mark.parametrize("image", [BASE64, f"data:image/png;base64,{BASE64}"])
def test_wavespeed_takes_base64(client: TestClient, stage: Stage, image: str) -> None:
    answer = client.post(I2V, json={"prompt": "a cat", "image": image}).json()
    job = newest(stage)
    assert (answer["data"]["id"], answer["data"]["model"]) == (job.job_id, wavespeed.IMAGE_MODEL)
    assert stage.folder.with_image(job.request).image.content() == PNG
    assert (job.request.width, job.request.height, job.request.num_frames) == (1280, 720, 121)


def test_wavespeed_takes_the_address_of_an_upload_without_fetching_it(client: TestClient, stage: Stage) -> None:
    ticket, sent = upload(client)
    assert sent.status_code == 204
    answer = client.post(I2V, json={"prompt": "a cat", "image": ticket["download_url"]})
    assert answer.status_code == 200, answer.text
    assert stage.folder.with_image(newest(stage).request).image.content() == PNG


@pytest.mark.parametrize(
    "call",
    [
        {"data": {"prompt": "a cat"}, "files": {"input_reference": ("c.png", PNG, "image/png")}},
        {"json": {"prompt": "a cat", "input_reference": {"image_url": f"data:image/png;base64,{BASE64}"}}},
        {"json": {"prompt": "a cat", "input_reference": BASE64}},
        {"data": {"prompt": "a cat", "input_reference[image_url]": f"data:image/png;base64,{BASE64}"}},
    ],
)
def test_openai_takes_files_and_text(client: TestClient, stage: Stage, call: dict[str, Any]) -> None:
    answer = client.post(OPENAI, **call)
    assert answer.status_code == 200, answer.text
    assert stage.folder.with_image(newest(stage).request).image.content() == PNG


def test_a_large_file_arrives_whole(client: TestClient, stage: Stage) -> None:
    large = png(1200, 1000, compress_level=0)
    assert len(large) > 3_000_000
    call = {"data": {"prompt": "猫"}, "files": {"input_reference": ("c.png", large, "image/png")}}
    assert client.post(OPENAI, **call).status_code == 200
    job = newest(stage)
    assert (job.request.prompt, stage.folder.with_image(job.request).image.content() == large) == ("猫", True)


def test_a_list_has_the_jobs_of_one_model(client: TestClient, stage: Stage) -> None:
    client.post(I2V, json={"prompt": "a cat", "image": BASE64})
    stage.queued()
    for model, others in ((wavespeed.IMAGE_MODEL, wavespeed.MODEL), (wavespeed.MODEL, wavespeed.IMAGE_MODEL)):
        items = client.post("/api/v3/predictions", json={"model": model}).json()["data"]["items"]
        assert [item["model"] for item in items] == [model] and others not in str(items)


# Refusals


POISON = {
    "bomb": (lambda: png(8000, 8000, mode="1"), "the limit is 50,000,000"),
    "truncated": (lambda: png(640, 480, compress_level=0)[:5000], "damaged or incomplete"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not that of an image"),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n", "is not that of an image"),
    "empty": (lambda: b"", "empty"),
    "tiny": (lambda: png(8, 8), "at least 16"),
}


@pytest.mark.parametrize("kind", POISON)
def test_a_poisoned_image_is_refused_by_its_field(client: TestClient, stage: Stage, kind: str) -> None:
    make, rule = POISON[kind]
    content = make()
    call = {"data": {"prompt": "a cat"}, "files": {"input_reference": ("c.png", content, "image/png")}}
    message = error_of(client.post(OPENAI, **call))
    assert message.startswith("input_reference='c.png': ") and rule in message
    if content:
        body = {"prompt": "a cat", "image": base64.b64encode(content).decode()}
        message = error_of(client.post(I2V, json=body))
        assert message.startswith("image='") and rule in message
    assert stage.store.counts() == {} and stage.folder.image_digests() == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/c.png", "http://169.254.169.254/latest", "http://[::1]/c"])
def test_a_private_address_is_refused_with_the_option(client: TestClient, address: str) -> None:
    message = error_of(client.post(I2V, json={"prompt": "a cat", "image": address}))
    assert message.startswith("image='http://") and message.endswith("or start the server with --allow-private-images")


@pytest.mark.parametrize("path", ["/etc/passwd", "file:///etc/passwd", "ftp://cat.example/c.png", "c.png"])
def test_a_path_of_the_server_is_not_read(client: TestClient, path: str) -> None:
    message = error_of(client.post(I2V, json={"prompt": "a cat", "image": path}))
    assert "must be an http(s) URL, a data URI, or an image file in base64" in message


def test_the_error_names_the_field_that_openais_clients_know(client: TestClient) -> None:
    answer = client.post(OPENAI, json={"prompt": "a cat", "input_reference": "http://127.0.0.1/c.png"})
    assert answer.json()["error"]["param"] == "input_reference"


def test_a_model_that_needs_an_image_refuses_a_video_without(client: TestClient) -> None:
    message = error_of(client.post(OPENAI, json={"prompt": "a cat"}))
    assert message.startswith("input_reference=None: toy-i2v makes videos that begin with an image; give one; text-")
    assert "hunyuan-video" in message


def test_a_server_without_such_a_model_names_those_that_fit(make_client: Callable[..., TestClient]) -> None:
    message = error_of(make_client().post(I2V, json={"prompt": "a cat", "image": "http://cat.example/c.png"}))
    assert "tiny makes videos from text alone; image-to-video models are hunyuan-video-i2v, " in message


def test_such_a_server_takes_no_uploads(make_client: Callable[..., TestClient]) -> None:
    message = error_of(make_client().post(UPLOADS, json={"filename": "c.png", "size": 100}))
    assert message.startswith("filename='c.png': tiny makes videos from text alone; image-to-video models are ")


def test_a_built_in_checkpoint_does_not_stand_in_for_a_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_model, "find_here", lambda model: "/weights")
    toy = TAKES.model_copy(update={"name": "toy"})
    models = {"toy": toy, "hunyuan-video-i2v": load_model_config("hunyuan-video-i2v")}
    monkeypatch.setattr(image_model, "load_model_config", models.__getitem__)
    found = [
        image_model.model_for_images(ServerConfig(model=load_model_config(own), models=tuple(models)))
        for own in ("tiny", "hunyuan-video")
    ]
    assert found == ["toy", "hunyuan-video-i2v"]


def test_novita_has_no_field_for_an_image(client: TestClient) -> None:
    answer = client.post("/v3/async/hunyuan-video-fast", json={"image": BASE64, "prompt": "a cat"})
    assert "image=" in answer.json()["message"] and "unknown field" in answer.json()["message"]


# Uploads


def test_a_poisoned_upload_is_refused_at_once(client: TestClient, stage: Stage) -> None:
    ticket, sent = upload(client, b"%PDF-1.4")
    assert (sent.status_code, "is not that of an image" in sent.json()["error"]) == (400, True)
    message = error_of(client.post(I2V, json={"prompt": "a cat", "image": ticket["download_url"]}))
    assert "nothing was uploaded to this address" in message


def test_an_upload_above_the_limit_is_refused(client: TestClient) -> None:
    _, sent = upload(client, b"x" * (MAX_BYTES + 1), size=1000)
    assert sent.status_code == 413


@pytest.mark.parametrize(
    "change", [("signature=", "signature=x"), ("uploads/", "uploads/0"), ("expires=", "expires=9")]
)
def test_another_address_is_neither_written_nor_read(client: TestClient, change: tuple[str, str]) -> None:
    ticket, _ = upload(client)
    url = ticket["download_url"].replace(*change)
    assert client.put(url, content=PNG).status_code == 403
    answer = client.post(I2V, json={"prompt": "a cat", "image": url})
    assert answer.status_code == 400


def test_the_address_of_a_video_is_not_that_of_an_upload(client: TestClient, stage: Stage) -> None:
    job = stage.succeeded()
    url = client.post("/api/v3/predictions", json={}).json()["data"]["items"][0]["outputs"][0]
    moved = url.replace(f"/files/{job.job_id}.mp4", f"/files/uploads/{job.job_id.replace('-', '')}")
    assert client.put(moved, content=PNG).status_code == 403


def test_an_upload_needs_a_key_and_its_address_none(make_client: Callable[..., TestClient]) -> None:
    guarded = make_client(model=TAKES, api_keys=("k",))
    announced = {"filename": "c.png", "size": len(PNG)}
    assert guarded.post(UPLOADS, json=announced).status_code == 401
    ticket = guarded.post(UPLOADS, json=announced, headers={"Authorization": "Bearer k"}).json()["data"]
    assert guarded.put(ticket["upload"]["url"], content=PNG).status_code == 204


def test_uploads_are_deleted_after_their_time_and_those_of_jobs_stay(client: TestClient, stage: Stage) -> None:
    ticket, _ = upload(client)
    client.post(I2V, json={"prompt": "a cat", "image": ticket["download_url"]})
    sweep(stage.folder, stage.store, time.time())
    assert len(list((stage.folder.root / "uploads").iterdir())) == 1
    sweep(stage.folder, stage.store, time.time() + UPLOADS_KEPT_S + 60)
    assert list((stage.folder.root / "uploads").iterdir()) == []
    assert stage.folder.with_image(newest(stage).request).image.content() == PNG


# Which model, and what is listed


def test_another_model_of_the_server_takes_images(
    make_client: Callable[..., TestClient], stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (image_model, service):
        monkeypatch.setattr(module, "find_here", lambda model: "/weights")
    client = make_client(models=("hunyuan-video", "hunyuan-video-i2v"))
    assert client.post(I2V, json={"prompt": "a cat", "image": BASE64}).status_code == 200
    assert newest(stage).origin["crew"]["model"] == "hunyuan-video-i2v"
    listed = client.get("/api/v3/models").json()["data"]
    assert [model["type"] for model in listed] == ["text-to-video", "image-to-video"]


def test_a_server_of_image_to_video_lists_that_alone(client: TestClient) -> None:
    assert [model["model_id"] for model in client.get("/api/v3/models").json()["data"]] == [wavespeed.IMAGE_MODEL]


def test_bodies_may_be_large_only_where_an_image_is_expected(client: TestClient) -> None:
    large = {"prompt": "a cat", "image": "A" * 2_000_000}
    assert client.post(I2V, json=large).status_code == 400
    assert client.post(wavespeed.SUBMIT_PATH, json=large).status_code == 413
    assert client.post("/v3/async/hunyuan-video-fast", json=large).status_code == 413


@pytest.mark.parametrize("path", [I2V, OPENAI])
def test_a_large_body_is_refused_with_the_reason_where_no_model_takes_an_image(
    make_client: Callable[..., TestClient], path: str
) -> None:
    answer = make_client().post(path, json={"prompt": "a cat", "image": "A" * 2_000_000})
    assert answer.status_code == 413
    wanted = ("limit of 1048576 bytes", "makes videos from text alone", "hunyuan-video-i2v")
    assert [words for words in wanted if words not in answer.text] == []


def test_a_large_body_without_an_announced_length_is_refused_with_the_same_reason(
    make_client: Callable[..., TestClient],
) -> None:
    pieces = (b" " * 2**19 for _ in range(3))
    answer = make_client().post(I2V, content=pieces, headers={"Content-Type": "application/json"})
    assert (answer.status_code, "makes videos from text alone" in answer.text) == (413, True)


def test_where_no_server_takes_an_image_the_limit_alone_is_named(make_client: Callable[..., TestClient]) -> None:
    answer = make_client().post(wavespeed.SUBMIT_PATH, content=b" " * 2**21)
    assert (answer.status_code, answer.json()["message"]) == (413, "the body is larger than the limit of 1048576 bytes")
