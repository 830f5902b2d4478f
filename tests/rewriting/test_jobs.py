"""Rewriting as part of a job: requested in every dialect, and done once by a worker."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from chat_server import ChatServer
from scribe import ANSWERS, PROMPT
from server_stage import MODEL, SUBMISSIONS

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import RewriteConfig
from hunyuan_local.errors import InvalidRequestError
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.worker import Worker
from hunyuan_local.jobs.worker_config import WorkerConfig
from hunyuan_local.schema import GenerationRequest, JobView
from hunyuan_local.server.config import ServerConfig
from hunyuan_local.server.service import VideoService
from hunyuan_local.wires import novita, openai, wavespeed

WIRES = {wire.NAME: wire for wire in (wavespeed, novita, openai)}


def asking(dialect: str, mode: str) -> dict[str, object]:
    """A submission in this dialect with its field for rewriting."""
    body = SUBMISSIONS[dialect][1]
    return body | ({"extra": {"rewrite": mode}} if dialect == novita.NAME else {"rewrite": mode})


def job_of(folder: DataFolder, store: JobStore, dialect: str, body: object, **config: object) -> Job:
    """The request that a server parses from a submission."""
    service = VideoService(ServerConfig(model=MODEL, min_free_bytes=0, **config), folder, store, "whsec_MA==")
    return service.submit(dialect, WIRES[dialect].request_from_wire(body, relaxed=True), "http://testserver")


def make(folder: DataFolder, store: JobStore, backend: LocalBackend, job: Job, rewriting: RewriteConfig) -> Job:
    """The job after a worker ran it."""
    config = WorkerConfig(name="w", beat_s=0.05, poll_s=0.05, pause_s=0.05, rewriting=rewriting)
    worker = Worker(folder, store, backend, config)
    watcher = threading.Thread(target=lambda: _stop_after(store, job, worker))
    watcher.start()
    worker.run()
    watcher.join()
    return store.get(job.job_id)


def _stop_after(store: JobStore, job: Job, worker: Worker) -> None:
    while not store.get(job.job_id).is_finished:
        time.sleep(0.05)
    worker.stop()


@pytest.mark.parametrize("dialect", WIRES)
@pytest.mark.parametrize("mode", ["normal", "master", "off"])
def test_every_dialect_has_a_field_for_it(folder, store, dialect: str, mode: str) -> None:
    assert job_of(folder, store, dialect, asking(dialect, mode)).request.rewrite == mode


@pytest.mark.parametrize("dialect", WIRES)
def test_another_word_is_refused_by_name(dialect: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"rewrite.*'off', 'normal' or 'master'"):
        WIRES[dialect].request_from_wire(asking(dialect, "more"))


@pytest.mark.parametrize("dialect", WIRES)
def test_the_servers_own_mode_fills_what_a_submission_leaves_open(folder, store, dialect: str) -> None:
    assert job_of(folder, store, dialect, SUBMISSIONS[dialect][1], rewrite="normal").request.rewrite == "normal"


@pytest.mark.parametrize("dialect", WIRES)
def test_a_submission_may_refuse_the_servers_own_mode(folder, store, dialect: str) -> None:
    job = job_of(folder, store, dialect, asking(dialect, "off"), rewrite="normal")
    assert not job.request.awaits_rewriting


@pytest.mark.parametrize("dialect", WIRES)
def test_a_request_that_awaits_it_says_so_on_the_wire(dialect: str) -> None:
    request = GenerationRequest(prompt="a fox", rewrite="master")
    body = WIRES[dialect].request_to_wire(request).body
    assert WIRES[dialect].request_from_wire(body).request.rewrite == "master"


@pytest.mark.parametrize("dialect", WIRES)
def test_a_rewritten_request_is_sent_with_its_new_prompt_alone(dialect: str) -> None:
    request = GenerationRequest(prompt="a red fox", rewrite="master", original_prompt="a fox")
    sent = WIRES[dialect].request_from_wire(WIRES[dialect].request_to_wire(request).body).request
    assert (sent.prompt, sent.rewrite, sent.original_prompt) == ("a red fox", None, None)


@pytest.fixture
def job(store: JobStore, small_request: GenerationRequest) -> Job:
    return store.enqueue(small_request.replace(prompt=PROMPT, rewrite="normal"), MODEL.identity)


@pytest.mark.usefixtures("starts_process")
def test_a_worker_rewrites_and_the_job_says_both_prompts(folder, store, tiny, job: Job, scribe: Path) -> None:
    done = make(folder, store, tiny, job, RewriteConfig(model_id=str(scribe)))
    assert (done.request.original_prompt, done.request.prompt) == (PROMPT, ANSWERS["normal", PROMPT])
    assert done.result["request"]["original_prompt"] == PROMPT
    assert done.result["timings"]["rewrite_s"] > 0


@pytest.mark.usefixtures("starts_process")
def test_what_was_rewritten_is_not_rewritten_again(folder, store, tiny, job: Job, chat: ChatServer) -> None:
    held = store.claim("another", tiny.config.identity, 30)
    store.rewritten(held, held.request.replace(prompt="a red ball", original_prompt=PROMPT))
    store.give_back(held)
    done = make(folder, store, tiny, job, RewriteConfig(endpoint=chat.url))
    assert (done.request.prompt, chat.calls) == ("a red ball", [])


def test_only_the_holder_of_a_job_may_change_its_prompt(store: JobStore, job: Job) -> None:
    held = store.claim("another", MODEL.identity, 30)
    store.give_back(held)
    assert not store.rewritten(held, held.request.replace(prompt="a red ball", original_prompt=PROMPT))
    assert store.get(job.job_id).request == job.request


def test_the_openai_style_job_shows_the_prompt_that_was_given_and_the_revised_one() -> None:
    request = GenerationRequest(prompt="a red fox", rewrite="master", original_prompt="a fox")
    shown = openai.job_to_wire(JobView(job_id="j", status="queued", request=request), "http://testserver")
    assert (shown.prompt, shown.revised_prompt) == ("a fox", "a red fox")


def test_a_refusal_of_the_language_model_is_final(folder, store, tiny, small_request, scribe: Path) -> None:
    job = store.enqueue(small_request.replace(prompt="a blue square", rewrite="normal"), tiny.config.identity)
    failed = make(folder, store, tiny, job, RewriteConfig(model_id=str(scribe)))
    assert (failed.status, failed.attempts) == ("failed", 1)
    assert "declined" in failed.error


def test_an_endpoint_that_is_down_is_asked_again(folder, store, tiny, job: Job) -> None:
    failed = make(folder, store, tiny, job, RewriteConfig(endpoint="http://127.0.0.1:9/v1"))
    assert (failed.status, failed.attempts) == ("failed", job.max_attempts)


def test_a_server_that_rewrites_nothing_says_so(folder, store) -> None:
    with pytest.raises(InvalidRequestError, match="rewrite='normal': this server cannot rewrite prompts; omit it"):
        job_of(folder, store, openai.NAME, asking(openai.NAME, "normal"), can_rewrite=False)


def test_the_webhook_of_wavespeed_says_what_was_asked_for() -> None:
    request = GenerationRequest(prompt="a red fox", rewrite="master", original_prompt="a fox")
    job = JobView(job_id="j", status="failed", request=request)
    asked = wavespeed.webhook_to_wire(job, "http://testserver").input
    assert (asked["prompt"], asked["rewrite"]) == ("a fox", "master")
