"""Files at signed URLs, and the routes for operators."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest
from fastapi.testclient import TestClient
from server_stage import CLIP, MODEL, Stage

from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.worker_reports import WorkerReport, WorkerReports
from hunyuan_local.server.metrics import Metrics


def report(stage: Stage, state: str, name: str = "w", model: str = MODEL.identity) -> None:
    given = {"memory_bytes": 3, "memory_total_bytes": 8}
    WorkerReports(stage.store.database).report(
        WorkerReport(name=name, pid=1, model=model, device="GPU", state=state, **given)
    )


def address(client: TestClient, job: Job) -> str:
    return client.app.state.service.links.sign("http://testserver", job.job_id)


# Files


@pytest.fixture
def url(client: TestClient, stage: Stage) -> str:
    return address(client, stage.succeeded())


def test_a_file_is_given_at_its_address(client: TestClient, url: str) -> None:
    answer = client.get(url)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "video/mp4", CLIP)


def test_its_head_says_how_long_it_is(client: TestClient, url: str) -> None:
    answer = client.head(url)
    assert (answer.status_code, int(answer.headers["content-length"]), answer.content) == (200, len(CLIP), b"")


@pytest.mark.parametrize(
    ("header", "part"), [("bytes=2-5", CLIP[2:6]), ("bytes=-4", CLIP[-4:]), ("bytes=9-", CLIP[9:])]
)
def test_a_range_of_it_can_be_had(client: TestClient, url: str, header: str, part: bytes) -> None:
    answer = client.get(url, headers={"Range": header})
    assert (answer.status_code, answer.content) == (206, part)


@pytest.mark.parametrize(
    "header",
    [
        "bytes=5-2",
        "bytes=-",
        "lines=1-2",
        "bytes=1-2,5-4",
        "bytes=1-2,x",
        "bytes=",
        "bytes",
        "x",
        "bytes=" + "9" * 5000,
    ],
)
def test_a_range_that_makes_no_sense_is_as_good_as_none(client: TestClient, url: str, header: str) -> None:
    answer = client.get(url, headers={"Range": header})
    assert (answer.status_code, answer.content) == (200, CLIP)


def test_a_range_behind_the_end_cannot_be_had(client: TestClient, url: str) -> None:
    answer = client.get(url, headers={"Range": f"bytes={len(CLIP)}-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(CLIP)}")


def test_a_real_server_gives_ranges_too(live: str, stage: Stage) -> None:
    job = stage.succeeded()
    url = httpx.get(f"{live}/api/v3/predictions/{job.job_id}").json()["data"]["outputs"][0]
    assert httpx.get(url, headers={"Range": "bytes=2-5"}).content == CLIP[2:6]
    assert httpx.head(url).headers["content-length"] == str(len(CLIP))


@pytest.mark.parametrize("change", [("signature=", "signature=0"), ("expires=", "expires=9"), (r"\?.*", "")])
def test_another_address_is_refused(client: TestClient, url: str, change: tuple[str, str]) -> None:
    answer = client.get(re.sub(*change, url))
    assert (answer.status_code, answer.json().keys()) == (403, {"error"})


def test_of_jobs_that_are_unknown_no_more_is_reported(client: TestClient, url: str) -> None:
    assert client.get(re.sub("files/[^.]*", "files/x", url)).status_code == 403


def test_a_deleted_video_is_gone(client: TestClient, stage: Stage) -> None:
    job = stage.succeeded()
    url = address(client, job)
    client.delete(f"/v1/videos/{job.job_id}")
    answer = client.get(url)
    assert (answer.status_code, answer.json().keys()) == (404, {"error"})


@pytest.mark.parametrize(
    "name", ["..%2Fjobs.sqlite3", "%2e%2e/jobs.sqlite3", "jobs.sqlite3", "%00.mp4", ".mp4", "a/b.mp4"]
)
def test_names_lead_nowhere_else(client: TestClient, name: str) -> None:
    assert client.get(f"/files/{name}?expires=9999999999&signature=x").status_code in (403, 404)


# Health


def test_an_answer_is_a_sign_of_life(client: TestClient) -> None:
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("state", ["idle", "working", "waiting"])
def test_with_a_loaded_worker_the_server_is_ready(client: TestClient, stage: Stage, state: str) -> None:
    report(stage, state)
    assert client.get("/readyz").status_code == 200


def not_ready(client: TestClient) -> str:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    return answer.json()["error"]


def test_without_a_worker_it_is_not(client: TestClient) -> None:
    assert not_ready(client) == "no worker for tiny has reported"


def test_while_the_model_is_loaded_it_is_not(client: TestClient, stage: Stage) -> None:
    report(stage, "loading")
    assert not_ready(client) == "a worker is loading tiny"


def test_a_worker_of_another_model_is_of_no_use(client: TestClient, stage: Stage) -> None:
    report(stage, "idle", model="another")
    assert not_ready(client) == "no worker for tiny has reported"


def test_one_loaded_worker_is_enough(client: TestClient, stage: Stage) -> None:
    report(stage, "loading", "w1")
    report(stage, "idle", "w2")
    assert client.get("/readyz").status_code == 200


def test_with_a_full_disk_it_is_not_ready(make_client: Callable[..., TestClient], stage: Stage) -> None:
    report(stage, "idle")
    assert f"{10**18} are required" in not_ready(make_client(min_free_bytes=10**18))


def test_without_its_store_it_is_not_ready_but_alive(client: TestClient, stage: Stage) -> None:
    stage.store.database.run("DROP TABLE jobs")
    assert "the job store cannot be used" in not_ready(client)
    assert client.get("/healthz").status_code == 200


# Metrics


def figures(client: TestClient) -> dict[str, float]:
    answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_jobs_are_counted_by_status(client: TestClient, stage: Stage) -> None:
    stage.failed()
    stage.queued()
    found = figures(client)
    assert found["hunyuan_local_queue_depth"] == 1
    assert [found[f'hunyuan_local_jobs{{status="{s}"}}'] for s in ("queued", "failed", "succeeded")] == [1, 1, 0]


def test_stages_and_steps_of_finished_jobs_are_measured_once(client: TestClient, stage: Stage) -> None:
    stage.succeeded()
    figures(client)
    stage.succeeded()
    found = figures(client)
    assert found['hunyuan_local_stage_seconds_count{stage="denoise"}'] == 2
    assert found['hunyuan_local_stage_seconds_sum{stage="denoise"}'] == 40
    assert found["hunyuan_local_step_seconds_sum"] == 4


def test_jobs_from_before_the_start_are_not_measured(stage: Stage, make_client: Callable[..., TestClient]) -> None:
    stage.succeeded()
    assert figures(make_client()).get('hunyuan_local_stage_seconds_count{stage="denoise"}') is None


def test_more_jobs_than_a_page_are_measured(stage: Stage) -> None:
    metrics = Metrics(stage.folder, stage.store, page=2)
    for _ in range(5):
        stage.succeeded()
    assert b'hunyuan_local_stage_seconds_count{stage="total"} 5.0' in metrics.render()


def test_workers_show_state_and_memory(client: TestClient, stage: Stage) -> None:
    report(stage, "working")
    found = figures(client)
    assert found['hunyuan_local_worker_state{state="working",worker="w"}'] == 1
    assert found['hunyuan_local_worker_state{state="idle",worker="w"}'] == 0
    assert found['hunyuan_local_worker_memory_peak_bytes{worker="w"}'] == 3


def test_two_apps_do_not_share_their_figures(make_client: Callable[..., TestClient], stage: Stage) -> None:
    first, second = make_client(), make_client()
    stage.succeeded()
    counts = [figures(client)["hunyuan_local_step_seconds_count"] for client in (first, second)]
    assert counts == [1, 1]
