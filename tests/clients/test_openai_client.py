"""OpenAI's published Python client, unchanged, against our server."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from client_requests import PROMPT
from openai.types import Video
from PIL import Image
from running_server import RunningServer

from hunyuan_local.video import probe

# The client announces the end of its whole video interface.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

SHORT = {"num_frames": 5, "num_inference_steps": 2, "seed": 7}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def connect(server: RunningServer, key: str | None = None) -> openai.OpenAI:
    return openai.OpenAI(api_key=key or server.key, base_url=f"{server.url}/v1")


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        with connect(server) as client:
            yield client


@pytest.fixture(scope="module")
def video(client: openai.OpenAI) -> Video:
    """A finished video, as the client sees it."""
    return client.videos.create_and_poll(prompt=PROMPT, size="1280x720", extra_body=SHORT, poll_interval_ms=200)


def test_the_model_is_listed_and_shown(idle_server: RunningServer) -> None:
    with connect(idle_server) as client:
        listed = [model.id for model in client.models.list()]
        assert (listed, client.models.retrieve(listed[0]).object) == (["tiny"], "model")
        with pytest.raises(openai.NotFoundError, match="use tiny"):
            client.models.retrieve("tencent/HunyuanVideo")


def test_create_and_poll_returns_the_finished_video(video: Video) -> None:
    assert (video.object, video.status, video.progress, video.error) == ("video", "completed", 100, None)


def test_video_says_what_was_asked_for(video: Video) -> None:
    assert (video.prompt, video.size, video.seconds) == (PROMPT, "1280x720", "1")


def test_video_has_whole_times(video: Video) -> None:
    assert video.created_at <= video.completed_at < video.expires_at


def test_download_is_the_video(client: openai.OpenAI, video: Video, tmp_path: Path) -> None:
    client.videos.download_content(video.id).write_to_file(tmp_path / "video.mp4")
    found = probe(tmp_path / "video.mp4")
    assert (found.width, found.height, found.num_frames) == (1280, 720, 5)


def test_thumbnail_is_a_picture_of_the_videos_shape(client: openai.OpenAI, video: Video) -> None:
    content = client.videos.download_content(video.id, variant="thumbnail").content
    picture = Image.open(io.BytesIO(content))
    assert picture.width * 720 == pytest.approx(picture.height * 1280, rel=0.02)


def test_settings_may_are_in_an_object_of_extras(client: openai.OpenAI, tmp_path: Path) -> None:
    extras = {"extra_params": SHORT | {"num_frames": 9}}
    video = client.videos.create_and_poll(prompt=PROMPT, size="176x320", extra_body=extras, poll_interval_ms=200)
    client.videos.download_content(video.id).write_to_file(tmp_path / "video.mp4")
    found = probe(tmp_path / "video.mp4")
    assert (found.width, found.height, found.num_frames) == (176, 320, 9)


def test_asynchronous_client_gets_the_video(server: RunningServer, tmp_path: Path) -> None:
    async def make() -> None:
        async with openai.AsyncOpenAI(api_key=server.key, base_url=f"{server.url}/v1") as client:
            made = await client.videos.create_and_poll(
                prompt=PROMPT, size="320x176", extra_body=SHORT, poll_interval_ms=200
            )
            content = await client.videos.download_content(made.id)
            content.write_to_file(tmp_path / "video.mp4")

    asyncio.run(make())
    assert probe(tmp_path / "video.mp4").num_frames == 5


def test_polling_interval_is_reported(client: openai.OpenAI, video: Video) -> None:
    answer = client.videos.with_raw_response.retrieve(video.id)
    assert int(answer.headers["openai-poll-after-ms"]) > 0


def test_list_goes_through_all_jobs_page_by_page(client: openai.OpenAI, server: RunningServer, video: Video) -> None:
    listed = [entry.id for entry in client.videos.list(limit=1)]
    assert video.id in listed
    assert listed == [job.job_id for job in server.store.find(limit=1000)]


def test_list_can_be_the_oldest_first(client: openai.OpenAI, server: RunningServer, video: Video) -> None:
    first = client.videos.list(limit=1, order="asc").data[0]
    assert first.id == server.store.find(oldest_first=True, limit=1)[0].job_id


def test_deleted_video_is_gone(client: openai.OpenAI) -> None:
    made = client.videos.create_and_poll(prompt=PROMPT, size="320x176", extra_body=SHORT, poll_interval_ms=200)
    answer = client.videos.delete(made.id)
    assert (answer.id, answer.object, answer.deleted) == (made.id, "video.deleted", True)
    with pytest.raises(openai.NotFoundError, match=made.id):
        client.videos.retrieve(made.id)


def test_wrong_key_is_refused(server: RunningServer) -> None:
    with pytest.raises(openai.AuthenticationError, match="key") as caught:
        connect(server, key="wrong").videos.create(prompt=PROMPT)
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": "1281x720"}, "size"),
        ({"seconds": "12", "size": "1280x720"}, "seconds"),
        ({"size": "wide"}, "size"),
        ({"seconds": "-1"}, "seconds"),
        ({"extra_body": {"num_frames": 6}}, "num_frames"),
        ({"extra_body": {"num_inference_steps": 101}}, "num_inference_steps"),
        ({"extra_body": {"extra_params": {"seed": "many"}}}, "seed"),
        ({"extra_body": {"strength": 1}}, "strength"),
        ({"input_reference": b"a picture"}, "input_reference"),
        ({"prompt": " "}, "prompt"),
    ],
)
def test_field_that_is_not_allowed_is_named(idle_server: RunningServer, options: dict[str, Any], field: str) -> None:
    with connect(idle_server) as client, pytest.raises(openai.BadRequestError, match=field) as caught:
        client.videos.create(**{"prompt": PROMPT} | options)
    assert (caught.value.param, caught.value.type) == (field, "invalid_request_error")


def test_full_queue_is_a_rate_limit(full_server: RunningServer) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        connect(full_server).with_options(max_retries=0).videos.create(prompt=PROMPT)
    assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize("method", ["retrieve", "delete", "download_content"])
def test_unknown_video_is_not_found(client: openai.OpenAI, method: str) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-video"):
        getattr(client.videos, method)("no-such-video")


def test_failed_job_ends_the_polling_with_its_reason(client: openai.OpenAI, failed_job: str) -> None:
    video = client.videos.poll(failed_job)
    assert (video.status, video.error.code) == ("failed", "generation_failed")
    assert "died" in video.error.message


def test_cancelled_job_ends_the_polling_with_its_reason(client: openai.OpenAI, canceled_job: str) -> None:
    video = client.videos.poll(canceled_job)
    assert (video.status, video.error.code) == ("failed", "canceled")
    assert "cancelled" in video.error.message


def test_content_of_a_failed_job_is_refused_in_the_clients_words(client: openai.OpenAI, failed_job: str) -> None:
    with pytest.raises(openai.APIStatusError, match=failed_job) as caught:
        client.videos.download_content(failed_job)
    assert caught.value.status_code in (400, 404, 409)


def test_length_in_seconds_is_taken_at_24_frames_a_second(idle_server: RunningServer) -> None:
    with connect(idle_server) as client:
        made = client.videos.create(model="sora-2", prompt=PROMPT, seconds="4", size="720x1280")
    request = idle_server.store.get(made.id).request
    assert (request.width, request.height, request.num_frames, request.fps) == (720, 1280, 97, 24)


def test_settings_that_are_null_are_left_to_the_model(idle_server: RunningServer) -> None:
    with connect(idle_server) as client:
        made = client.videos.create(prompt=PROMPT, extra_body={"seed": 5, "num_inference_steps": None})
    request = idle_server.store.get(made.id).request
    assert (request.seed, request.num_inference_steps) == (5, 8)


def test_deleting_a_waiting_job_cancels_it(idle_server: RunningServer) -> None:
    with connect(idle_server) as client:
        waiting = client.videos.create(prompt=PROMPT)
        assert waiting.status == "queued"
        assert client.videos.delete(waiting.id).deleted
        idle_server.wait_for(waiting.id, "canceled")


# Videos that begin with an image


@pytest.mark.parametrize("kind", ["file", "address"])
def test_a_reference_begins_the_video(image_server: RunningServer, image_file: Path, tmp_path: Path, kind: str) -> None:
    data = base64.b64encode(image_file.read_bytes()).decode()
    # The client itself takes no address here, although its types do.
    address = {"input_reference": {"image_url": f"data:image/png;base64,{data}"}}
    given = {"input_reference": image_file} if kind == "file" else {"extra_body": SHORT | address}
    with connect(image_server) as client:
        video = client.videos.create_and_poll(
            **{"prompt": "a cat", "extra_body": SHORT, "poll_interval_ms": 200} | given
        )
        assert (video.status, video.size) == ("completed", "80x144")
        client.videos.download_content(video.id).write_to_file(tmp_path / "video.mp4")
    assert probe(tmp_path / "video.mp4").num_frames == 5


def test_a_poisoned_reference_is_named(image_server: RunningServer, image_file: Path) -> None:
    half = image_file.read_bytes()[:5000]
    with connect(image_server) as client, pytest.raises(openai.BadRequestError, match="incomplete") as caught:
        client.videos.create(prompt="a cat", input_reference=("cat.png", half))
    assert caught.value.param == "input_reference"
