"""The stand-in with the services' published clients, which would reveal a misread API page."""

from __future__ import annotations

import httpx
import novita_client
import pytest
import wavespeed
from novita_client import settings as novita_settings
from standin import StandIn, sample_video
from standin_calls import (
    BODIES,
    MODEL,
    PATHS,
    WORDS,
)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novita_settings, "DEFAULT_POLL_INTERVAL", 0.01)


def wavespeed_client(standin: StandIn, key: str | None = None) -> wavespeed.Client:
    return wavespeed.Client(api_key=key or standin.key, base_url=standin.url, retry_interval=0.01)


def test_wavespeeds_client_gets_the_video(standin: StandIn, http: httpx.Client) -> None:
    outputs = wavespeed_client(standin).run(MODEL, {"prompt": "a cat"}, poll_interval=0.01)["outputs"]
    assert [http.get(url).content for url in outputs] == [sample_video()]


def test_wavespeeds_client_reports_a_failed_task(standin: StandIn) -> None:
    standin.inject("task-failed")
    with pytest.raises(RuntimeError, match=r"^Prediction failed \(task_id: \w+\): The video could not be made"):
        wavespeed_client(standin).run(MODEL, {"prompt": "a cat"}, poll_interval=0.01)


def test_wavespeeds_client_does_not_run_a_failed_task_again(standin: StandIn) -> None:
    standin.inject("task-failed")
    with pytest.raises(RuntimeError):
        wavespeed_client(standin).run(MODEL, {"prompt": "a cat"}, poll_interval=0.01, max_retries=2)
    assert len(standin.submissions) == 1


def test_wavespeeds_client_reports_a_bad_key(standin: StandIn) -> None:
    with pytest.raises(RuntimeError, match="Failed to submit prediction: HTTP 401: "):
        wavespeed_client(standin, key="wrong").run(MODEL, {"prompt": "a cat"})


def test_wavespeeds_client_reports_a_dropped_submission(standin: StandIn) -> None:
    standin.inject("submit-drop")
    with pytest.raises(RuntimeError, match="did not return a response"):
        wavespeed_client(standin).run(MODEL, {"prompt": "a cat"})


@pytest.mark.parametrize("fault", ["poll-429", "poll-500", "poll-drop"])
def test_wavespeeds_client_outlives_a_spoilt_poll(standin: StandIn, fault: str) -> None:
    standin.inject(fault)
    assert wavespeed_client(standin).run(MODEL, {"prompt": "a cat"}, poll_interval=0.01)["outputs"]


# The published client of Novita has no method for this model, but all parts of its other methods.


def novita_run(standin: StandIn, key: str | None = None, **changes: object) -> novita_client.V3TaskResponse:
    client = novita_client.NovitaClient(key or standin.key, standin.url)
    answer = client._post(PATHS["novita"], BODIES["novita"] | changes)
    task_id = novita_client.V3AsyncSubmitResponse.from_dict(answer).task_id
    seen: list[str] = []
    result = client.wait_for_task_v3(task_id, callback=lambda progress: seen.append(progress.task.status.value))
    result.seen = seen
    return result


def test_novitas_client_gets_the_video(standin: StandIn) -> None:
    result = novita_run(standin)
    result.download_videos()
    assert result.video_bytes == [sample_video()]


def test_novitas_client_sees_every_status(standin: StandIn) -> None:
    assert novita_run(standin).seen == WORDS["novita"]


def test_novitas_client_reads_the_seed_that_was_used(standin: StandIn) -> None:
    assert novita_run(standin, seed=9_999_999_999).extra.seed == 9_999_999_999


def test_novitas_client_reads_the_fields_of_the_task(standin: StandIn) -> None:
    task = novita_run(standin).task
    assert (task.task_type, task.reason, task.eta, task.progress_percent) == ("HUNYUAN_VIDEO_FAST", "", 0, 100)


def test_novitas_client_reports_a_failed_task(standin: StandIn) -> None:
    standin.inject("task-failed")
    result = novita_run(standin)
    assert (result.task.status.value, result.videos) == ("TASK_STATUS_FAILED", [])
    assert "could not be made" in result.task.reason


def test_novitas_client_reports_a_bad_key(standin: StandIn) -> None:
    with pytest.raises(novita_client.NovitaResponseError, match=r"status 403.*INVALID_API_KEY"):
        novita_run(standin, key="wrong")


def test_novitas_client_reports_an_unknown_task(standin: StandIn) -> None:
    with pytest.raises(novita_client.NovitaResponseError, match="status 404"):
        novita_client.NovitaClient(standin.key, standin.url).async_task_result("no-such-task")
