"""Operations of the dialects on jobs that need more than one call of the store."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from server_stage import CLIP, Stage

from hunyuan_local.errors import InvalidRequestError
from hunyuan_local.schema import GenerationRequest
from hunyuan_local.server.error_answers import UnknownJobError
from hunyuan_local.server.service import VideoService
from hunyuan_local.wires.base import Submission


@pytest.fixture
def service(client: TestClient) -> VideoService:
    return client.app.state.service


async def is_there() -> bool:
    return False


async def is_gone() -> bool:
    return True


def wait(service: VideoService, job_id: str, is_disconnected: Callable = is_there) -> str:
    """Wait up to a minute for a job; returns its status."""
    return asyncio.run(service.wait(job_id, 60, threading.Event(), is_disconnected)).status


def test_a_wait_ends_with_the_job(service: VideoService, stage: Stage) -> None:
    assert wait(service, stage.succeeded().job_id) == "succeeded"


def test_a_wait_ends_when_nobody_waits_any_more(service: VideoService, stage: Stage) -> None:
    assert wait(service, stage.queued().job_id, is_gone) == "queued"


def test_a_wait_ends_when_the_job_is_deleted(service: VideoService, stage: Stage) -> None:
    job = stage.queued()
    stage.store.cancel(job.job_id)
    stage.store.delete(job.job_id)
    with pytest.raises(UnknownJobError):
        wait(service, job.job_id)


def test_cancelling_twice_deletes_the_record(service: VideoService, stage: Stage) -> None:
    job = stage.queued()
    service.cancel_or_delete(job.job_id)
    service.cancel_or_delete(job.job_id)
    assert stage.store.get(job.job_id) is None


def test_the_webhook_of_a_finished_job_has_its_address(service: VideoService, stage: Stage, client: TestClient) -> None:
    call = service.webhook_call(stage.succeeded(base_url="http://seen.by.the.caller"))
    url = json.loads(call.body)["outputs"][0]
    assert url.startswith("http://seen.by.the.caller/files/")
    assert client.get(url.replace("http://seen.by.the.caller", "")).content == CLIP


def test_what_was_asked_for_and_how_is_remembered(service: VideoService, stage: Stage) -> None:
    submission = Submission(GenerationRequest(prompt="a fox"), inline=True)
    job = service.submit("wavespeed", submission, "http://host")
    assert job.origin == {"dialect": "wavespeed", "base_url": "http://host", "inline": True, "model": "tiny"}


def test_clients_do_not_see_file_paths(service: VideoService, stage: Stage) -> None:
    job = stage.failed(f"it is kept aside as {stage.folder.root.absolute()}/videos/a.mp4.unchecked; look at it")
    assert service.view(job, "http://host").error == "it is kept aside as videos/a.mp4.unchecked; look at it"


def test_a_given_seed_is_kept(service: VideoService) -> None:
    submission = Submission(GenerationRequest(prompt="a fox", seed=2**64 - 1))
    assert service.submit("openai", submission, "http://host").request.seed == 2**64 - 1


def test_a_refused_webhook_makes_no_job(service: VideoService, stage: Stage) -> None:
    with pytest.raises(InvalidRequestError, match="webhook"):
        service.submit(
            "openai", Submission(GenerationRequest(prompt="a fox"), webhook="file:///etc/passwd"), "http://h"
        )
    assert stage.store.find() == []
