"""Novita's endpoints over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from manual_clock import ManualClock
from server_stage import CLIP, MODEL, SUBMISSIONS, Stage

from hunyuan_local.jobs.eta import Forecaster
from hunyuan_local.jobs.worker_reports import WorkerReport, WorkerReports
from hunyuan_local.schema import Progress

PATH, BODY = SUBMISSIONS["novita"]
RESULT = "/v3/async/task-result"
HALFWAY = Progress(stage="denoise", step=5, total=10, seconds_per_step=2.0, seconds_left=10.0)


def result(client: TestClient, job_id: str) -> dict[str, Any]:
    answer = client.get(RESULT, params={"task_id": job_id})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_submission_is_answered_with_the_id_alone(client: TestClient, stage: Stage) -> None:
    answer = client.post(PATH, json=BODY)
    assert (answer.status_code, answer.json().keys()) == (200, {"task_id"})
    assert stage.store.get(answer.json()["task_id"]).request.num_frames == 85


def test_a_waiting_job_is_queued(client: TestClient) -> None:
    task = result(client, client.post(PATH, json=BODY).json()["task_id"])["task"]
    assert (task["status"], task["progress_percent"], task["eta"]) == ("TASK_STATUS_QUEUED", 0, 0)


def test_progress_is_live(client: TestClient, stage: Stage) -> None:
    task = result(client, stage.running(HALFWAY).job_id)["task"]
    assert (task["status"], task["progress_percent"]) == ("TASK_STATUS_PROCESSING", 48)


@pytest.fixture
def timeless(client: TestClient, stage: Stage) -> TestClient:
    """A client of a server for which no time passes, however slow this machine is."""
    stage.store.database.clock = clock = ManualClock()
    client.app.state.service._forecaster = Forecaster(stage.store, MODEL.identity, clock)
    return client


def test_the_time_left_comes_from_measured_steps(timeless: TestClient, stage: Stage) -> None:
    assert result(timeless, stage.running(HALFWAY).job_id)["task"]["eta"] == 10


def test_a_waiting_job_has_a_time_left_once_others_were_measured(timeless: TestClient, stage: Stage) -> None:
    stage.succeeded()
    stage.running(HALFWAY)
    assert result(timeless, stage.queued().job_id)["task"]["eta"] == 10 + 4 + 24


def test_workers_that_report_shorten_it(timeless: TestClient, stage: Stage) -> None:
    stage.succeeded()
    stage.running(HALFWAY)
    for name in ("w", "w2"):
        report = WorkerReport(name=name, pid=1, model=MODEL.identity, device="CPU", state="idle")
        WorkerReports(stage.store.database).report(report)
    assert result(timeless, stage.queued().job_id)["task"]["eta"] == 24


def test_a_finished_video_can_be_fetched_without_a_key(make_client: Callable[..., TestClient], stage: Stage) -> None:
    client = make_client(api_keys=("k",), video_url_ttl_s=100)
    params, headers = {"task_id": stage.succeeded().job_id}, {"Authorization": "k"}
    answer = client.get(RESULT, params=params, headers=headers).json()
    video = answer["videos"][0]
    assert (video["video_type"], video["video_url_ttl"]) == ("mp4", "100")
    assert (client.get(video["video_url"]).content, answer["extra"]) == (CLIP, {"seed": "7"})


def test_an_address_does_not_outlive_the_file(make_client: Callable[..., TestClient], stage: Stage) -> None:
    client = make_client(video_url_ttl_s=100, retention_s=50)
    assert result(client, stage.succeeded().job_id)["videos"][0]["video_url_ttl"] == "50"


def test_a_failed_job_says_why(client: TestClient, stage: Stage) -> None:
    task = result(client, stage.failed("no memory").job_id)["task"]
    assert (task["status"], task["reason"]) == ("TASK_STATUS_FAILED", "no memory")


def test_lists_are_never_null(client: TestClient, stage: Stage) -> None:
    answer = result(client, stage.queued().job_id)
    assert (answer["images"], answer["videos"], type(answer["extra"])) == ([], [], dict)


def test_a_doubled_slash_at_the_begin_is_taken(live: str, stage: Stage) -> None:
    made = httpx.post(f"{live}/{PATH}", json=BODY)
    answer = httpx.get(f"{live}/{RESULT}", params={"task_id": made.json()["task_id"]})
    assert answer.json()["task"]["task_id"] == stage.store.find()[0].job_id


def test_a_webhook_is_remembered(make_client: Callable[..., TestClient], stage: Stage) -> None:
    body = BODY | {"extra": {"webhook": {"url": "http://127.0.0.1:9/hook"}}}
    made = make_client(allow_private_webhooks=True).post(PATH, json=body).json()
    assert stage.store.get(made["task_id"]).webhook == "http://127.0.0.1:9/hook"


def test_a_webhook_is_refused_by_its_place_in_the_body(client: TestClient) -> None:
    answer = client.post(PATH, json=BODY | {"extra": {"webhook": {"url": "ftp://a"}}})
    assert answer.json()["message"].startswith("extra.webhook.url='ftp://a': must be like https://host/path")


@pytest.mark.parametrize("webhook", [{"url": "http://127.0.0.1/"}, {"url": "ftp://a"}, {"url": ""}, {"url": 3}, "x"])
def test_other_webhooks_are_refused(client: TestClient, webhook: object) -> None:
    assert client.post(PATH, json=BODY | {"extra": {"webhook": webhook}}).status_code == 400


@pytest.mark.parametrize("field", sorted(BODY))
def test_every_field_of_the_page_is_required(client: TestClient, field: str) -> None:
    answer = client.post(PATH, json={name: value for name, value in BODY.items() if name != field})
    assert (answer.status_code, answer.json()["metadata"]) == (400, {"field": field})


def test_a_missing_id_is_named(client: TestClient) -> None:
    answer = client.get(RESULT)
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_REQUEST_BODY")
    assert answer.json()["metadata"] == {"field": "task_id"}


def test_an_unknown_id_is_not_found(client: TestClient) -> None:
    answer = client.get(RESULT, params={"task_id": "x"})
    assert (answer.status_code, answer.json()["reason"]) == (404, "TASK_NOT_FOUND")


def test_a_job_of_another_dialect_is_seen_here(client: TestClient) -> None:
    made = client.post("/v1/videos", json={"prompt": "a fox"}).json()
    assert result(client, made["id"])["task"]["task_id"] == made["id"]
