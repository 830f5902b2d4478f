"""Novita's published clients, unchanged, against our server: Python and JavaScript."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client_process import ClientError, ClientProcess
from client_requests import SMALL_NOVITA, next_seed, novita_body
from running_server import RunningServer

from hunyuan_local.schema import VideoInfo
from hunyuan_local.video import probe


class NovitaClient(ClientProcess):
    """One of the clients; its methods are those of its script."""

    def submit(self, server: RunningServer, body: dict[str, Any], key: str | None = None) -> str:
        return self.call({"url": server.url, "key": key or server.key, "method": "submit", "arguments": [body]})

    def wait(self, server: RunningServer, task_id: str) -> dict[str, Any]:
        return self.call({"url": server.url, "key": server.key, "method": "wait", "arguments": [task_id]})

    def get_result(self, server: RunningServer, task_id: str, url: str | None = None) -> dict[str, Any]:
        return self.call({"url": url or server.url, "key": server.key, "method": "result", "arguments": [task_id]})

    def read_refusal(self, error: ClientError) -> tuple[int, str]:
        """HTTP status and the service's reason, from wherever this client stores them."""
        if self.is_javascript:
            return error.fields["code"], error.fields["reason"]
        status, _, body = str(error).removeprefix("Request failed with status ").partition(", ")
        return int(status), body.partition('"reason":"')[2].partition('"')[0]


CLIENTS = {"python": ("call_novita.py", None), "javascript": ("call_novita.mjs", "node")}
ERRORS = {False: "NovitaResponseError", True: "NovitaError"}


@pytest.fixture(scope="module", params=CLIENTS)
def client(starts_process: None, request: pytest.FixtureRequest) -> Iterator[NovitaClient]:
    with NovitaClient(*CLIENTS[request.param]) as client:
        yield client


@pytest.fixture(scope="module")
def finished(client: NovitaClient, server: RunningServer) -> dict[str, Any]:
    """What the client saw of a job, from its submission to its end."""
    return client.wait(server, client.submit(server, novita_body(seed=9_999_999_999, **SMALL_NOVITA)))


def test_video_is_made_and_can_be_fetched(
    client: NovitaClient, finished: dict[str, Any], fetch: Callable[[str], VideoInfo]
) -> None:
    (video,) = finished["result"]["videos"]
    found = fetch(video["video_url"])
    assert (found.width, found.height, found.num_frames) == (320, 176, 5)


@pytest.mark.parametrize("client", ["python"], indirect=True)  # the other one downloads nothing
def test_the_clients_own_download_is_the_video(finished: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "video.mp4"
    file.write_bytes(base64.b64decode(*finished["videos"]))
    assert probe(file).num_frames == 5


def test_states_on_the_way_are_those_of_the_service_and_never_go_back(finished: dict[str, Any]) -> None:
    words = ["TASK_STATUS_QUEUED", "TASK_STATUS_PROCESSING", "TASK_STATUS_SUCCEED"]
    states = [(words.index(task["status"]), task["progress_percent"]) for task in finished["seen"]]
    assert states == sorted(states)
    assert states[-1] == (2, 100)


def test_seed_that_was_used_is_reported(finished: dict[str, Any]) -> None:
    assert int(finished["result"]["extra"]["seed"]) == 9_999_999_999


def test_wrong_key_is_refused(client: NovitaClient, server: RunningServer) -> None:
    with pytest.raises(ClientError) as caught:
        client.submit(server, novita_body(), key="wrong")
    assert caught.value.kinds == [ERRORS[client.is_javascript]]
    assert client.read_refusal(caught.value) == (403, "INVALID_API_KEY")


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 31), ("frames", 86), ("frames", 81), ("seed", 10**10), ("prompt", ""), ("model_name", "other")],
)
def test_field_that_is_not_allowed_is_named(
    client: NovitaClient, idle_server: RunningServer, field: str, value: object
) -> None:
    with pytest.raises(ClientError, match=field) as caught:
        client.submit(idle_server, novita_body(**{field: value}))
    assert caught.value.kinds == [ERRORS[client.is_javascript]]
    assert client.read_refusal(caught.value) == (400, "INVALID_REQUEST_BODY")


def test_full_queue_is_refused(client: NovitaClient, full_server: RunningServer) -> None:
    with pytest.raises(ClientError) as caught:
        client.submit(full_server, novita_body())
    assert client.read_refusal(caught.value) == (429, "RATE_LIMIT_EXCEEDED")


def test_unknown_task_is_not_found(client: NovitaClient, server: RunningServer) -> None:
    with pytest.raises(ClientError) as caught:
        client.get_result(server, "no-such-task")
    assert caught.value.kinds == [ERRORS[client.is_javascript]]
    # The Python client keeps only the status of a refused GET.
    assert client.read_refusal(caught.value) == (404, "TASK_NOT_FOUND" if client.is_javascript else "")


def test_failed_task_ends_the_waiting_with_its_reason(
    client: NovitaClient, server: RunningServer, failed_job: str
) -> None:
    result = client.wait(server, failed_job)["result"]
    assert (result["task"]["status"], result["videos"]) == ("TASK_STATUS_FAILED", [])
    assert "died" in result["task"]["reason"]


def test_cancelled_task_ends_the_waiting_with_its_reason(client: NovitaClient, server: RunningServer) -> None:
    task_id = client.submit(server, novita_body(seed=next_seed(), steps=30))
    server.wait_for(task_id, "queued", "running")
    server.http.post("/api/v3/predictions/delete", json={"ids": [task_id]}).raise_for_status()
    task = client.wait(server, task_id)["result"]["task"]
    assert task["status"] == "TASK_STATUS_FAILED"
    assert "cancelled" in task["reason"]


def test_base_url_may_end_in_a_slash(client: NovitaClient, server: RunningServer, failed_job: str) -> None:
    assert client.get_result(server, failed_job, server.url + "/")["task"]["task_id"] == failed_job
