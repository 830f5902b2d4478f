"""Jobs of a server whose worker checks frames: flagged, withheld and accepted, in each dialect."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from server_stage import MODEL

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import SafetyConfig
from hunyuan_local.errors import ModelLoadError
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.worker import Worker
from hunyuan_local.jobs.worker_config import WorkerConfig
from hunyuan_local.schema import GenerationRequest
from hunyuan_local.server.app import create_app
from hunyuan_local.server.config import ServerConfig
from hunyuan_local.wires import novita, openai, wavespeed

pytestmark = pytest.mark.usefixtures("starts_process")  # frames are encoded

Check = Callable[..., SafetyConfig]
RED, BLUE = (f"a {colour} circle moving right on a black background" for colour in ("red", "blue"))


def submit(client: TestClient, dialect: str, prompt: str) -> str:
    """Submit a small job in this dialect; returns its id."""
    if dialect == "novita":
        sides = {"width": 144, "height": 80, "frames": 5}
        body = {"model_name": novita.MODEL, "prompt": prompt, "seed": 7, "steps": 2} | sides
        return client.post(novita.SUBMIT_PATH, json=body).json()["task_id"]
    common = {"prompt": prompt, "seed": 7, "num_inference_steps": 2}
    if dialect == "openai":
        return client.post(openai.SUBMIT_PATH, json=common | {"size": "144x80", "num_frames": 5}).json()["id"]
    return client.post(wavespeed.SUBMIT_PATH, json=common | {"size": "144*80"}).json()["data"]["id"]


def work(folder: DataFolder, store: JobStore, backend: LocalBackend, safety: SafetyConfig) -> None:
    """Run a worker in the test's thread until no job is open."""
    worker = Worker(
        folder, store, backend, WorkerConfig(name="w", safety=safety, beat_s=0.05, poll_s=0.05, pause_s=0.05)
    )
    ended, pause = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.is_set() and store.open_ids():
            pause.wait(0.05)
        if not ended.is_set():
            worker.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        worker.run()
    finally:
        ended.set()
        watcher.join()


@dataclass(frozen=True)
class Outcome:
    """The jobs that one worker finished, by dialect and prompt, and the server that shows them."""

    client: TestClient
    folder: DataFolder
    store: JobStore
    ids: dict[tuple[str, str], str]

    def job(self, dialect: str, prompt: str = RED) -> Job:
        return self.store.get(self.ids[dialect, prompt])

    def answer(self, dialect: str, prompt: str = RED) -> dict[str, Any]:
        """The job as a client of this dialect sees it."""
        job_id = self.ids[dialect, prompt]
        if dialect == "novita":
            return self.client.get(novita.RESULT_PATH, params={"task_id": job_id}).json()
        if dialect == "openai":
            return self.client.get(openai.result_path(job_id)).json()
        return self.client.get(wavespeed.result_path(job_id)).json()["data"]


@pytest.fixture(scope="module")
def make(tiny: LocalBackend, check: Check, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """Submits jobs for prompts in each dialect and runs a worker with this check until they are finished."""

    def make(mode: str, *wanted: tuple[str, str]) -> Outcome:
        folder = DataFolder(tmp_path_factory.mktemp(mode))
        store = folder.store()
        config = ServerConfig(model=MODEL, min_free_bytes=0, insecure=True, relaxed=True)
        client = TestClient(create_app(config, folder, store, "whsec_secret"))
        ids = {(dialect, prompt): submit(client, dialect, prompt) for dialect, prompt in wanted}
        work(folder, store, tiny, check(mode))
        return Outcome(client, folder, store, ids)

    return make


@pytest.fixture(scope="module")
def flagged(make: Callable[..., Outcome]) -> Outcome:
    return make("flag", ("wavespeed", RED), ("wavespeed", BLUE), ("novita", RED), ("openai", RED), ("openai", BLUE))


@pytest.fixture(scope="module")
def blocked(make: Callable[..., Outcome]) -> Outcome:
    return make("block", ("wavespeed", RED), ("wavespeed", BLUE), ("novita", RED), ("openai", RED))


@pytest.fixture(scope="module")
def unchecked(make: Callable[..., Outcome]) -> Outcome:
    return make("off", ("novita", RED))


# Flagged


def test_wavespeed_delivers_a_flagged_video_and_marks_it(flagged: Outcome) -> None:
    data = flagged.answer("wavespeed")
    assert (data["status"], len(data["outputs"]), data["has_nsfw_contents"]) == ("completed", 1, [True])


def test_wavespeed_says_of_another_that_it_is_not_flagged(flagged: Outcome) -> None:
    assert flagged.answer("wavespeed", BLUE)["has_nsfw_contents"] == [False]


def test_novita_delivers_a_flagged_video_and_marks_it(flagged: Outcome) -> None:
    answer = flagged.answer("novita")
    assert (answer["task"]["status"], answer["task"]["reason"], len(answer["videos"]), answer["extra"]) == (
        "TASK_STATUS_SUCCEED", "", 1, {"seed": "7", "nsfw": True},
    )  # fmt: skip


@pytest.mark.parametrize("outcome", ["flagged", "blocked"])
def test_novitas_own_client_reads_a_marked_answer(outcome: str, request: pytest.FixtureRequest) -> None:
    from novita_client.proto import V3TaskResponse

    answer = request.getfixturevalue(outcome).answer("novita")
    assert V3TaskResponse.from_dict(answer).task.task_id == answer["task"]["task_id"]


def test_openai_delivers_a_flagged_video_and_marks_it(flagged: Outcome) -> None:
    video = flagged.answer("openai")
    file = flagged.client.get(openai.CONTENT_PATH.format(job_id=video["id"]))
    assert (video["status"], video["error"], video["nsfw"], file.status_code) == ("completed", None, True, 200)


def test_openai_says_of_another_that_it_is_not_flagged(flagged: Outcome) -> None:
    assert flagged.answer("openai", BLUE)["nsfw"] is False


# Withheld


def test_wavespeed_withholds_a_video_with_code_and_reason(blocked: Outcome) -> None:
    data = blocked.answer("wavespeed")
    assert (data["status"], data["code"], data["outputs"], data["has_nsfw_contents"]) == ("failed", 1200, [], [True])
    assert "safety check blocked this video" in data["error"]


def test_novita_withholds_a_video_and_says_why_in_the_reason(blocked: Outcome) -> None:
    answer = blocked.answer("novita")
    assert (answer["task"]["status"], answer["videos"], answer["extra"]["nsfw"]) == ("TASK_STATUS_FAILED", [], True)
    assert "safety check blocked this video" in answer["task"]["reason"]


def test_openai_withholds_a_video_with_code_and_message(blocked: Outcome) -> None:
    video = blocked.answer("openai")
    assert (video["status"], video["error"]["code"], video["nsfw"]) == ("failed", "moderation_blocked", True)
    assert "safety check blocked this video" in video["error"]["message"]


def test_openai_has_no_file_of_it(blocked: Outcome) -> None:
    answer = blocked.client.get(openai.CONTENT_PATH.format(job_id=blocked.ids["openai", RED]))
    assert (answer.status_code, "blocked this video" in answer.text) == (404, True)


def test_what_is_not_flagged_is_delivered_where_others_are_withheld(blocked: Outcome) -> None:
    data = blocked.answer("wavespeed", BLUE)
    assert (data["status"], data["has_nsfw_contents"]) == ("completed", [False])


def test_no_file_of_a_withheld_video_is_left(blocked: Outcome) -> None:
    kept = {path.name for path in (blocked.folder.root / "videos").iterdir()}
    assert kept == {f"{blocked.ids['wavespeed', BLUE]}.mp4"}


def test_no_saved_state_of_it_is_left(blocked: Outcome) -> None:
    assert list((blocked.folder.root / "unfinished").iterdir()) == []


def test_it_is_not_made_a_second_time(blocked: Outcome) -> None:
    job = blocked.job("wavespeed")
    assert (job.attempts, job.max_attempts, job.failure) == (1, 3, "moderation")


# Not checked


def test_without_a_check_the_answer_is_as_ever(unchecked: Outcome) -> None:
    answer = unchecked.answer("novita")
    assert (answer["task"]["status"], answer["extra"]) == ("TASK_STATUS_SUCCEED", {"seed": "7"})


def test_without_a_check_the_verdict_is_empty(unchecked: Outcome) -> None:
    data = unchecked.client.get(wavespeed.result_path(unchecked.ids["novita", RED])).json()["data"]
    assert (data["status"], data["has_nsfw_contents"]) == ("completed", [])


# What a worker finds and needs


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


@pytest.fixture
def found(folder: DataFolder, tiny: LocalBackend, check: Check, request: pytest.FixtureRequest) -> Job:
    """A job whose worker died after it had finished a red video with the check in this mode."""
    made = tiny.resolve(
        GenerationRequest(prompt=RED, width=144, height=80, num_frames=5, num_inference_steps=2, seed=7)
    )
    job = folder.store().enqueue(made, tiny.identity)
    tiny.generate(made, GenerationContext(folder.video(job), safety=check(request.param)))
    return job


@pytest.mark.parametrize("found", ["flag"], indirect=True)
def test_a_verdict_outlives_the_worker_that_came_to_it(
    found: Job, folder: DataFolder, tiny: LocalBackend, check: Check
) -> None:
    work(folder, folder.store(), tiny, check("off"))
    assert folder.store().get(found.job_id).result["safety"]["flagged"]


@pytest.mark.parametrize("found", ["off"], indirect=True)
def test_what_an_attempt_without_the_check_has_left_is_checked_and_not_made_again(
    found: Job, folder: DataFolder, tiny: LocalBackend, check: Check
) -> None:
    made_at = folder.video(found).stat().st_mtime_ns
    work(folder, folder.store(), tiny, check("flag"))
    result = folder.store().get(found.job_id).result
    assert (result["safety"]["flagged"], folder.video(found).stat().st_mtime_ns) == (True, made_at)


@pytest.mark.parametrize("found", ["off", "flag"], indirect=True)
def test_what_an_attempt_that_delivered_has_left_is_withheld(
    found: Job, folder: DataFolder, tiny: LocalBackend, check: Check
) -> None:
    work(folder, folder.store(), tiny, check("block"))
    assert (folder.store().get(found.job_id).failure, folder.video(found).exists()) == ("moderation", False)


def test_a_missing_classifier_ends_the_worker_and_not_the_jobs(
    folder: DataFolder, tiny: LocalBackend, check: Check
) -> None:
    store = folder.store()
    job = store.enqueue(GenerationRequest(prompt=RED), tiny.identity)
    with pytest.raises(ModelLoadError, match="none"):
        work(folder, store, tiny, check(model_id=f"{folder.root}/none"))
    assert (store.get(job.job_id).status, store.get(job.job_id).attempts) == ("queued", 0)
