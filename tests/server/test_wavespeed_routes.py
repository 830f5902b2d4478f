"""WaveSpeed's endpoints over HTTP."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from server_stage import CLIP, MODEL, SUBMISSIONS, Stage

PATH, BODY = SUBMISSIONS["wavespeed"]


def submit(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post(PATH, json=BODY | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def result(client: TestClient, job_id: str) -> dict[str, Any]:
    return client.get(f"/api/v3/predictions/{job_id}/result").json()["data"]


def listed(client: TestClient, **fields: Any) -> list[str]:
    answer = client.post("/api/v3/predictions", json=fields)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["data"]["items"]]


def test_a_submission_is_answered_in_the_envelope(client: TestClient) -> None:
    answer = client.post(PATH, json=BODY)
    assert (answer.status_code, answer.json()["code"], answer.json()["data"]["status"]) == (200, 200, "created")


def test_the_job_is_stored_when_the_answer_comes(client: TestClient, stage: Stage) -> None:
    assert stage.store.get(submit(client)["id"]).request.prompt == "a fox"


def test_what_the_page_leaves_open_is_the_models_own(client: TestClient, stage: Stage) -> None:
    request = stage.store.get(submit(client)["id"]).request
    defaults = MODEL.defaults
    assert (request.num_frames, request.fps, request.num_inference_steps) == (defaults.num_frames, defaults.fps, 30)


def test_a_random_seed_is_one_that_the_dialect_can_ask_for_again(client: TestClient, stage: Stage) -> None:
    assert 0 <= stage.store.get(submit(client)["id"]).request.seed <= 2**31 - 1


def test_the_url_to_ask_at_works(client: TestClient) -> None:
    made = submit(client)
    assert client.get(made["urls"]["get"]).json()["data"]["id"] == made["id"]


def test_the_short_path_says_the_same(client: TestClient) -> None:
    made = submit(client)
    assert client.get(f"/api/v3/predictions/{made['id']}").json()["data"] == result(client, made["id"])


def test_the_public_address_is_in_urls(make_client: Callable[..., TestClient]) -> None:
    made = submit(make_client(public_url="https://video.example.org"))
    assert made["urls"]["get"].startswith("https://video.example.org/api/v3/predictions/")


def test_a_finished_video_can_be_fetched_without_a_key(make_client: Callable[..., TestClient], stage: Stage) -> None:
    client = make_client(api_keys=("k",))
    path = f"/api/v3/predictions/{stage.succeeded().job_id}/result"
    data = client.get(path, headers={"Authorization": "Bearer k"}).json()["data"]
    assert (data["status"], client.get(data["outputs"][0]).content) == ("completed", CLIP)


def test_a_failed_job_is_a_good_answer_that_says_so(client: TestClient, stage: Stage) -> None:
    data = result(client, stage.failed("no memory").job_id)
    assert (data["status"], data["error"], data["code"], data["outputs"]) == ("failed", "no memory", 1403, [])


def test_no_verdict_on_contents_is_invented(client: TestClient, stage: Stage) -> None:
    assert result(client, stage.succeeded().job_id)["has_nsfw_contents"] == []


@pytest.mark.parametrize("path", ["/api/v3/wavespeed-ai/flux-dev", "/api/v3/x", "/api/v3", "/api/v3/predictions/a/b"])
def test_another_model_is_unknown_and_the_served_one_is_named(client: TestClient, path: str) -> None:
    answer = client.post(path, json=BODY)
    assert (answer.status_code, "wavespeed-ai/hunyuan-video/t2v" in answer.json()["message"]) == (404, True)


@pytest.mark.parametrize("fields", [{"size": "720*720"}, {"num_inference_steps": 50}, {"seed": 2**31}])
def test_the_ranges_of_the_page_hold(client: TestClient, fields: dict[str, Any]) -> None:
    assert client.post(PATH, json=BODY | fields).status_code == 400


@pytest.mark.parametrize("fields", [{"size": "720*720"}, {"num_inference_steps": 50}, {"seed": 2**31}])
def test_a_relaxed_server_takes_what_the_model_can_do(make_client: Callable[..., TestClient], fields: dict) -> None:
    assert make_client(relaxed=True).post(PATH, json=BODY | fields).status_code == 200


# Webhooks


def test_a_webhook_is_remembered(make_client: Callable[..., TestClient], stage: Stage) -> None:
    client = make_client(allow_private_webhooks=True)
    answer = client.post(f"{PATH}?webhook=http://127.0.0.1:9/hook", json=BODY)
    assert stage.store.get(answer.json()["data"]["id"]).webhook == "http://127.0.0.1:9/hook"


def test_a_webhook_into_the_private_network_is_refused(client: TestClient) -> None:
    answer = client.post(f"{PATH}?webhook=http://127.0.0.1:9/hook", json=BODY)
    assert (answer.status_code, "webhook" in answer.json()["message"]) == (400, True)


def test_the_secret_is_the_one_that_calls_are_signed_with(client: TestClient) -> None:
    assert client.get("/api/v3/webhook/secret").json()["data"] == {"secret": "whsec_secret"}


# Base64


def test_base64_stands_bare_in_the_outputs(client: TestClient, stage: Stage) -> None:
    job = stage.succeeded(inline=True)
    assert base64.b64decode(result(client, job.job_id)["outputs"][0], validate=True) == CLIP


def test_that_it_was_asked_for_is_remembered(client: TestClient, stage: Stage) -> None:
    made = submit(client, enable_base64_output=True)
    stage.finish(stage.running())
    assert base64.b64decode(result(client, made["id"])["outputs"][0], validate=True) == CLIP


def test_the_other_dialects_still_have_an_address(client: TestClient, stage: Stage) -> None:
    job = stage.succeeded(inline=True)
    videos = client.get(f"/v3/async/task-result?task_id={job.job_id}").json()["videos"]
    assert videos[0]["video_url"].startswith("http://testserver/files/")


# Sync mode


def finish_next(stage: Stage) -> None:
    while not stage.store.counts().get("queued"):
        time.sleep(0.01)
    stage.finish(stage.running())


def test_sync_mode_answers_with_the_video(client: TestClient, stage: Stage) -> None:
    with ThreadPoolExecutor(1) as worker:
        worker.submit(finish_next, stage)
        data = submit(client, enable_sync_mode=True)
    assert (data["status"], client.get(data["outputs"][0]).content) == ("completed", CLIP)


def test_sync_mode_can_answer_with_base64(client: TestClient, stage: Stage) -> None:
    with ThreadPoolExecutor(1) as worker:
        worker.submit(finish_next, stage)
        data = submit(client, enable_sync_mode=True, enable_base64_output=True)
    assert base64.b64decode(data["outputs"][0]) == CLIP


def test_after_the_time_limit_it_says_that_the_job_continues(make_client: Callable[..., TestClient]) -> None:
    data = submit(make_client(sync_timeout_s=0.05), enable_sync_mode=True)
    assert (data["status"], data["code"]) == ("processing", 5004)


def test_when_the_server_ends_it_says_so_too(client: TestClient) -> None:
    client.app.state.stopping.set()
    data = submit(client, enable_sync_mode=True)
    assert (data["status"], data["code"]) == ("processing", 5004)


def test_many_that_wait_keep_nobody_from_asking(client: TestClient, stage: Stage) -> None:
    # More than the framework has threads.
    with client, ThreadPoolExecutor(60) as callers:
        waiting = [callers.submit(submit, client, enable_sync_mode=True) for _ in range(60)]
        while stage.store.counts().get("queued", 0) < 60:
            time.sleep(0.01)
        assert client.get("/v1/videos").status_code == 200
        assert not any(call.done() for call in waiting)
        client.app.state.stopping.set()
        assert {call.result()["code"] for call in waiting} == {5004}


# Lists


def test_the_newest_is_listed_first(client: TestClient, stage: Stage) -> None:
    jobs = [stage.queued().job_id for _ in range(3)]
    assert listed(client) == jobs[::-1]


def test_lists_have_pages(client: TestClient, stage: Stage) -> None:
    jobs = [stage.queued().job_id for _ in range(5)]
    assert listed(client, page=2, page_size=2) == [jobs[2], jobs[1]]


def test_a_page_has_its_number(client: TestClient) -> None:
    assert client.post("/api/v3/predictions", json={"page": 7, "page_size": 3}).json()["data"]["page"] == 7


@pytest.mark.parametrize("fields", [{"page": 0}, {"page": 10**30}, {"page_size": 101}, {"page_size": 0}, {"x": 1}])
def test_other_pages_are_refused(client: TestClient, fields: dict[str, Any]) -> None:
    assert client.post("/api/v3/predictions", json=fields).status_code == 400


@pytest.mark.parametrize("status", ["created", "processing", "completed", "failed"])
def test_lists_are_filtered_by_status(client: TestClient, stage: Stage, status: str) -> None:
    completed, failed = stage.succeeded(), stage.failed()
    stage.queued()
    running, created = stage.running(), stage.queued()
    jobs = {"created": created, "processing": running, "completed": completed, "failed": failed}
    assert listed(client, status=status) == [jobs[status].job_id]


def test_an_unknown_status_is_refused(client: TestClient) -> None:
    answer = client.post("/api/v3/predictions", json={"status": "done"})
    assert (answer.status_code, "'created', 'processing'" in answer.json()["message"]) == (400, True)


def test_lists_are_filtered_by_time(client: TestClient, stage: Stage) -> None:
    job = stage.queued()
    assert listed(client, created_after="2020-01-01T00:00:00Z", created_before="2100-01-01T00:00:00") == [job.job_id]
    assert listed(client, created_before="2020-01-01T00:00:00+02:00") == []
    assert listed(client, created_after="2100-01-01T00:00:00Z") == []


@pytest.mark.parametrize("text", ["yesterday", "", "2020-13-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
def test_times_that_are_none_are_refused_or_harmless(client: TestClient, text: str) -> None:
    assert client.post("/api/v3/predictions", json={"created_after": text}).status_code in (200, 400)


def test_lists_are_filtered_by_model(client: TestClient, stage: Stage) -> None:
    job = stage.queued()
    assert listed(client, model="wavespeed-ai/hunyuan-video/t2v") == [job.job_id]
    assert listed(client, model="wavespeed-ai/flux-dev") == []


def test_lists_hold_no_files(client: TestClient, stage: Stage) -> None:
    stage.succeeded(inline=True)
    outputs = client.post("/api/v3/predictions", json={}).json()["data"]["items"][0]["outputs"]
    assert outputs[0].startswith("http://testserver/files/")


# Deletion


def delete(client: TestClient, *job_ids: str) -> int:
    return client.post("/api/v3/predictions/delete", json={"ids": list(job_ids)}).json()["data"]["deleted_count"]


def test_a_waiting_job_is_cancelled_and_stays(client: TestClient, stage: Stage) -> None:
    job_id = stage.queued().job_id
    assert (delete(client, job_id), result(client, job_id)["status"]) == (1, "failed")


def test_a_running_job_is_asked_to_stop(client: TestClient, stage: Stage) -> None:
    job = stage.running()
    assert (delete(client, job.job_id), stage.store.beat(job, 10)) == (1, False)


def test_a_finished_job_is_deleted_with_its_file(client: TestClient, stage: Stage) -> None:
    job = stage.succeeded()
    assert delete(client, job.job_id) == 1
    assert (stage.store.get(job.job_id), stage.folder.video(job).exists()) == (None, False)


def test_unknown_ids_are_left_out_of_the_count(client: TestClient, stage: Stage) -> None:
    job_id = stage.succeeded().job_id
    assert delete(client, "x", job_id, job_id, "") == 1


@pytest.mark.parametrize("body", [{}, {"ids": "x"}, {"ids": [1]}, {"ids": [[]] * 100_000}, []])
def test_ids_must_be_texts(client: TestClient, body: object) -> None:
    answer = client.post("/api/v3/predictions/delete", json=body)
    assert (answer.status_code, len(answer.content) < 2000) == (400, True)


# Account


def test_the_balance_is_a_number(client: TestClient) -> None:
    assert client.get("/api/v3/balance").json()["data"]["balance"] > 0
