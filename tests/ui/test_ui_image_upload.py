"""The page's upload of input images: what it keeps, what it refuses, and who may call it."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from image_files import CLEAR, PICTURE, POISONED, TOO_LARGE
from PIL import Image
from server_stage import MODEL, Stage

from hunyuan_local.images import check_image
from hunyuan_local.jobs.housekeeping import sweep

KEYS = ("first-key",)
DAY_S = 24 * 3600
OF_IMAGES = MODEL.model_copy(update={"takes_image": True})


@pytest.fixture
def visitor(make_visitor: Callable[..., TestClient]) -> TestClient:
    return make_visitor(model=OF_IMAGES)


def kept(stage: Stage) -> list[str]:
    return stage.folder.image_digests()


def test_an_uploaded_image_is_kept_by_its_digest(visitor: TestClient, shared_stage: Stage) -> None:
    answer = visitor.post("/ui/image", content=PICTURE)
    assert answer.json() == check_image(PICTURE).described()
    assert shared_stage.folder.image(answer.json()["sha256"]).read_bytes() == PICTURE


def test_its_thumbnail_is_a_small_jpeg(visitor: TestClient) -> None:
    digest = visitor.post("/ui/image", content=CLEAR).json()["sha256"]
    answer = visitor.get(f"/ui/image/{digest}.jpg")
    small = Image.open(io.BytesIO(answer.content))
    assert (answer.headers["content-type"], small.format, small.size) == ("image/jpeg", "JPEG", (64, 96))
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("kind", POISONED)
def test_a_bad_file_is_refused_in_one_sentence_and_not_kept(
    visitor: TestClient, shared_stage: Stage, kind: str
) -> None:
    content, words = POISONED[kind]
    before = kept(shared_stage)
    answer = visitor.post("/ui/image", content=content)
    assert answer.status_code == 400 and answer.json().keys() == {"error"}
    said = answer.json()["error"]
    assert said.startswith("Image: ") and words in said and said.endswith(".") and "\n" not in said
    assert kept(shared_stage) == before


def test_a_file_of_more_than_32_mib_is_refused(visitor: TestClient) -> None:
    answer = visitor.post("/ui/image", content=TOO_LARGE)
    assert (answer.status_code, answer.json().keys()) == (413, {"error"})


def test_a_large_file_is_taken(visitor: TestClient, shared_stage: Stage) -> None:
    large = CLEAR + b"\0" * 20 * 2**20
    assert visitor.post("/ui/image", content=large).json()["sha256"] in kept(shared_stage)


def test_where_no_model_takes_an_image_there_is_no_upload(make_visitor: Callable[..., TestClient]) -> None:
    assert make_visitor().post("/ui/image", content=PICTURE).status_code in (404, 405)


def test_so_is_one_of_unannounced_length(visitor: TestClient) -> None:
    pieces = (TOO_LARGE[at : at + 2**20] for at in range(0, len(TOO_LARGE), 2**20))
    assert visitor.post("/ui/image", content=pieces).status_code == 413


def test_other_paths_keep_their_limit(visitor: TestClient) -> None:
    for path in ("/ui/gradio_api/queue/join", "/v3/async/hunyuan-video-fast"):
        assert visitor.post(path, content=b" " * 2**21).status_code == 413


def test_a_full_disk_is_reported(make_visitor: Callable[..., TestClient]) -> None:
    answer = make_visitor(model=OF_IMAGES, min_free_bytes=2**62).post("/ui/image", content=PICTURE)
    assert answer.status_code == 503 and "the disk has" in answer.json()["error"]


def test_without_a_pass_nothing_is_kept_or_shown(make_visitor: Callable[..., TestClient], shared_stage: Stage) -> None:
    stranger, before = make_visitor(model=OF_IMAGES, api_keys=KEYS), kept(shared_stage)
    other = check_image(CLEAR + b"\0")
    assert stranger.post("/ui/image", content=other.content()).status_code == 401
    assert stranger.get(f"/ui/image/{other.sha256}.jpg").status_code == 401
    assert kept(shared_stage) == before


def test_a_page_of_another_origin_may_not_upload(visitor: TestClient) -> None:
    answer = visitor.post("/ui/image", content=PICTURE, headers={"origin": "https://attacker.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize("name", ["0" * 64, "x", "..%2f..%2fjobs.sqlite3", "%00", "A" * 5000])
def test_what_was_not_uploaded_is_not_found(visitor: TestClient, name: str) -> None:
    assert visitor.get(f"/ui/image/{name}.jpg").status_code == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_nothing_else_is_at_the_address_of_the_upload(visitor: TestClient, method: str) -> None:
    assert visitor.request(method, "/ui/image").status_code == 404


def test_an_upload_without_a_job_is_kept_for_a_day(visitor: TestClient, shared_stage: Stage) -> None:
    digest = visitor.post("/ui/image", content=CLEAR + b"\1").json()["sha256"]
    now, file = time.time(), shared_stage.folder.image(digest)
    os.utime(file, (now - DAY_S + 60,) * 2)
    sweep(shared_stage.folder, shared_stage.store, now)
    assert file.exists()
    sweep(shared_stage.folder, shared_stage.store, now + 120)
    assert not file.exists()
