"""WaveSpeed's published clients, unchanged, against our server: Python of both major versions, and JavaScript."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from client_process import ClientError, ClientProcess
from client_requests import SMALL_WAVESPEED, WAVESPEED_MODEL, next_seed, wavespeed_body
from running_server import RunningServer

from hunyuan_local.schema import VideoInfo
from hunyuan_local.video import probe


class WaveSpeedClient(ClientProcess):
    """One of the clients; ``refused`` and ``failed`` are what it raises for a refused submission and a failed task."""

    name: str

    def __init__(self, script: str, folder: str | None, refused: str, failed: str):
        super().__init__(script, folder)
        self.refused, self.failed = refused, failed

    def run(
        self,
        server: RunningServer,
        body: dict[str, Any],
        *,
        key: str | None = None,
        model: str = WAVESPEED_MODEL,
        **options: Any,
    ) -> Any:
        """Its ``run``, which submits and waits; options by their Python names."""
        return self._use(server, key, "run", model, body, poll_interval=0.2, **options)

    def run_no_throw(self, server: RunningServer, body: dict[str, Any], **options: Any) -> Any:
        """Its ``run`` without exceptions."""
        name = "runNoThrow" if self.is_javascript else "run_no_throw"
        return self._use(server, None, name, WAVESPEED_MODEL, body, **options)

    def upload(self, server: RunningServer, file: Path) -> str:
        """Upload a local file; returns its address."""
        return self._use(server, None, "upload", str(file))

    def get_result(self, server: RunningServer, task_id: str) -> Any:
        """The state of a task, as its ``run`` requests it."""
        return self._use(server, None, "_getResult" if self.is_javascript else "get_result", task_id)

    def wait(self, server: RunningServer, task_id: str) -> Any:
        """What its ``run`` does after the submission."""
        return self._use(server, None, "_wait", task_id, 60, 0.2)

    def _use(self, server: RunningServer, key: str | None, method: str, *arguments: Any, **options: Any) -> Any:
        call = {"url": server.url, "key": key or server.key, "method": method, "arguments": arguments}
        if not self.is_javascript:
            return self.call(call | {"options": options})
        camel = {re.sub("_(.)", lambda letter: letter[1].upper(), name): value for name, value in options.items()}
        return self.call(call | {"arguments": [*arguments, camel] if camel else arguments})


VERSIONS = {"python-2": "2.0.5", "python-1": "1.0.14", "javascript": "0.3.2"}
CLIENTS = {
    "python-2": ("call_wavespeed.py", None, "RuntimeError", "RuntimeError"),
    "python-1": ("call_wavespeed.py", "wavespeed-1", "RuntimeError", "RuntimeError"),
    "javascript": ("call_wavespeed.mjs", "node", "WavespeedSubmissionException", "Error"),
}


@pytest.fixture(scope="module", params=CLIENTS)
def client(starts_process: None, request: pytest.FixtureRequest) -> Iterator[WaveSpeedClient]:
    with WaveSpeedClient(*CLIENTS[request.param]) as client:
        client.name = request.param
        yield client


def test_version_is_the_one_that_it_is_taken_for(client: WaveSpeedClient, idle_server: RunningServer) -> None:
    with pytest.raises(ClientError) as caught:
        client.run(idle_server, {})
    assert caught.value.fields["version"] == VERSIONS[client.name]


def test_run_returns_the_address_of_the_video(
    client: WaveSpeedClient, server: RunningServer, fetch: Callable[[str], VideoInfo]
) -> None:
    (url,) = client.run(server, wavespeed_body(**SMALL_WAVESPEED))["outputs"]
    video = fetch(url)
    assert (video.width, video.height, video.num_frames) == (320, 176, 17)


def test_sync_mode_returns_the_address_of_the_video(
    client: WaveSpeedClient, server: RunningServer, fetch: Callable[[str], VideoInfo]
) -> None:
    (url,) = client.run(server, wavespeed_body(size="176*320"), enable_sync_mode=True)["outputs"]
    video = fetch(url)
    assert (video.width, video.height, video.num_frames) == (176, 320, 17)


@pytest.mark.parametrize("client", ["python-2"], indirect=True)
def test_output_can_be_the_video_itself(client: WaveSpeedClient, server: RunningServer, tmp_path: Path) -> None:
    (encoded,) = client.run(server, wavespeed_body(enable_base64_output=True, **SMALL_WAVESPEED))["outputs"]
    (tmp_path / "video.mp4").write_bytes(base64.b64decode(encoded, validate=True))
    assert probe(tmp_path / "video.mp4").num_frames == 17


def test_sync_mode_that_takes_too_long_says_where_the_result_will_be(
    client: WaveSpeedClient, idle_server: RunningServer
) -> None:
    with pytest.raises(ClientError, match="Sync mode timed out") as caught:
        client.run(idle_server, wavespeed_body(seed=(seed := next_seed())), enable_sync_mode=True)
    task_id = idle_server.wait_for_seed(seed, "queued").job_id
    assert f"{idle_server.url}/api/v3/predictions/{task_id}/result" in str(caught.value)


def test_sync_mode_that_takes_too_long_is_still_processing(client: WaveSpeedClient, idle_server: RunningServer) -> None:
    result = client.run_no_throw(idle_server, wavespeed_body(), enable_sync_mode=True)
    detail = result.get("detail", result)
    assert (result["outputs"], detail["status"]) == (None, "processing")


# Two steps and five frames.
SMALL_IMAGE_VIDEO = {"prompt": "a cat", "num_inference_steps": 2, "duration": 0.2, "seed": 3}
IMAGE_MODEL = "wavespeed-ai/hunyuan-video/i2v"


def test_a_local_file_is_uploaded_and_begins_the_video(
    client: WaveSpeedClient, image_server: RunningServer, image_file: Path, fetch: Callable[[str], VideoInfo]
) -> None:
    address = client.upload(image_server, image_file)
    (url,) = client.run(image_server, SMALL_IMAGE_VIDEO | {"image": address}, model=IMAGE_MODEL)["outputs"]
    video = fetch(url)
    assert (video.width, video.height, video.num_frames) == (80, 144, 5)


@pytest.mark.parametrize("client", ["python-2"], indirect=True)
def test_an_image_in_base64_begins_the_same_video(
    client: WaveSpeedClient, image_server: RunningServer, image_file: Path, fetch: Callable[[str], VideoInfo]
) -> None:
    data = base64.b64encode(image_file.read_bytes()).decode()
    body = SMALL_IMAGE_VIDEO | {"image": f"data:image/png;base64,{data}"}
    (url,) = client.run(image_server, body, model=IMAGE_MODEL, enable_sync_mode=True)["outputs"]
    assert fetch(url).num_frames == 5


def test_a_file_that_is_no_image_is_refused_as_it_is_uploaded(
    client: WaveSpeedClient, image_server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "cat.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    with pytest.raises(ClientError, match=r"HTTP 400: .*is not that of an image of an accepted format"):
        client.upload(image_server, tmp_path / "cat.svg")


def test_an_image_at_a_private_address_is_refused(client: WaveSpeedClient, image_server: RunningServer) -> None:
    body = SMALL_IMAGE_VIDEO | {"image": "http://127.0.0.1:9/cat.png"}
    with pytest.raises(ClientError, match=r"HTTP 400: .*image=.*--allow-private-images"):
        client.run(image_server, body, model=IMAGE_MODEL)


def test_wrong_key_is_a_refused_submission(client: WaveSpeedClient, server: RunningServer) -> None:
    with pytest.raises(ClientError, match=r"HTTP 401: .*key") as caught:
        client.run(server, wavespeed_body(), key="wrong")
    assert client.refused in caught.value.kinds


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", "640*480"), ("num_inference_steps", 31), ("seed", 2**31), ("prompt", ""), ("frames", 17)],
)
def test_field_that_is_not_allowed_is_named(
    client: WaveSpeedClient, idle_server: RunningServer, field: str, value: object
) -> None:
    with pytest.raises(ClientError, match=rf"HTTP 400: .*{field}") as caught:
        client.run(idle_server, wavespeed_body(**{field: value}))
    assert client.refused in caught.value.kinds


def test_missing_prompt_is_named(client: WaveSpeedClient, server: RunningServer) -> None:
    body = wavespeed_body()
    del body["prompt"]
    with pytest.raises(ClientError, match=r"HTTP 400: .*prompt"):
        client.run(server, body)


def test_model_of_another_name_is_not_found(client: WaveSpeedClient, server: RunningServer) -> None:
    with pytest.raises(ClientError, match=rf"HTTP 404: .*{WAVESPEED_MODEL}") as caught:
        client.run(server, wavespeed_body(), model="wavespeed-ai/z-image/turbo")
    assert client.refused in caught.value.kinds


def test_full_queue_is_a_refused_submission(client: WaveSpeedClient, full_server: RunningServer) -> None:
    with pytest.raises(ClientError, match="HTTP 429: ") as caught:
        client.run(full_server, wavespeed_body(), max_retries=1)
    assert client.refused in caught.value.kinds


def test_unknown_task_is_not_found(client: WaveSpeedClient, server: RunningServer) -> None:
    with pytest.raises(ClientError, match=r"task no-such-task: HTTP 404: .*no-such-task"):
        client.get_result(server, "no-such-task")


def test_failed_task_is_reported_with_its_reason(
    client: WaveSpeedClient, server: RunningServer, failed_job: str
) -> None:
    with pytest.raises(ClientError, match=rf"Prediction failed \(task_id: {failed_job}\): .*died") as caught:
        client.wait(server, failed_job)
    assert client.failed in caught.value.kinds


def test_failed_task_has_the_code_of_a_failed_execution(
    client: WaveSpeedClient, server: RunningServer, failed_job: str
) -> None:
    data = client.get_result(server, failed_job)["data"]
    assert (data["status"], data["code"], data["outputs"]) == ("failed", 1403, [])


def test_cancelled_task_ends_the_run_and_is_not_submitted_again(client: WaveSpeedClient, server: RunningServer) -> None:
    body = wavespeed_body(seed=(seed := next_seed()), num_inference_steps=30)
    # With retries, the JavaScript client repeats any failed task whose id happens to contain "429".
    retries = 0 if client.is_javascript else 1
    with ThreadPoolExecutor() as background:
        running = background.submit(client.run, server, body, max_retries=retries)
        job = server.wait_for_seed(seed, "queued", "running")
        server.http.delete(f"/v1/videos/{job.job_id}").raise_for_status()
    with pytest.raises(ClientError, match=rf"^Prediction failed \(task_id: {job.job_id}\): .*cancelled") as caught:
        running.result()
    assert client.failed in caught.value.kinds
    assert server.count_with_seed(seed) == 1
