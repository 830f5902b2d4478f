"""The commands on the services' API pages, run unchanged except for host and key."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
from running_server import RunningServer, own_environment
from standin_calls import NOVITA_EXAMPLE, NOVITA_RESULT_EXAMPLE, WAVESPEED_EXAMPLE, WAVESPEED_RESULT_EXAMPLE

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the commands are for curl")


def run_command(server: RunningServer, command: str, job_id: str = "") -> dict[str, Any]:
    """The body of the response to a page's command, run by a shell."""
    for name, value in {"{{API Key}}": server.key, "{Returned Task ID}": job_id}.items():
        command = command.replace(name, value)
    for host in ("https://api.wavespeed.ai", "https://api.novita.ai"):
        command = command.replace(host, server.url)
    variables = {"WAVESPEED_API_KEY": server.key, "requestId": job_id}
    result = subprocess.run(["bash", "-c", command], env=own_environment() | variables, capture_output=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_wavespeeds_command_lacks_the_prompt_that_its_page_requires(idle_server: RunningServer) -> None:
    answer = run_command(idle_server, WAVESPEED_EXAMPLE)
    assert answer["code"] == 400
    assert "prompt" in answer["message"]


@pytest.fixture(scope="module")
def prediction(idle_server: RunningServer) -> dict[str, Any]:
    """The response to WaveSpeed's command with a prompt added."""
    return run_command(idle_server, WAVESPEED_EXAMPLE.replace('"size"', '"prompt": "a cat",\n    "size"'))


def test_wavespeeds_command_with_a_prompt_makes_a_task(prediction: dict[str, Any]) -> None:
    assert (prediction["code"], prediction["message"], prediction["data"]["status"]) == (200, "success", "created")


def test_wavespeeds_command_asks_for_what_it_says(idle_server: RunningServer, prediction: dict[str, Any]) -> None:
    request = idle_server.store.get(prediction["data"]["id"]).request
    assert (request.width, request.height, request.num_inference_steps) == (1280, 720, 30)


def test_wavespeeds_command_for_the_result_gets_it(idle_server: RunningServer, prediction: dict[str, Any]) -> None:
    found = run_command(idle_server, WAVESPEED_RESULT_EXAMPLE, prediction["data"]["id"])
    assert found == prediction


def test_wavespeeds_answer_has_all_fields_of_the_page(prediction: dict[str, Any]) -> None:
    fields = {"id", "model", "outputs", "urls", "has_nsfw_contents", "status", "created_at", "error", "timings"}
    assert set(prediction["data"]) == fields


def test_novitas_command_makes_a_task(idle_server: RunningServer) -> None:
    answer = run_command(idle_server, NOVITA_EXAMPLE)
    assert list(answer) == ["task_id"]
    request = idle_server.store.get(answer["task_id"]).request
    assert (request.width, request.height, request.num_inference_steps, request.num_frames) == (1280, 720, 30, 85)


def test_novitas_command_for_the_result_gets_a_video_as_on_the_page(server: RunningServer) -> None:
    # Submitted in another dialect, which allows shorter videos; a job has the same id in all dialects.
    task_id = server.submit_job(size="320x176", num_frames=5, num_inference_steps=2)
    server.wait_for(task_id, "succeeded")
    answer = run_command(server, NOVITA_RESULT_EXAMPLE, task_id)
    assert answer["task"] == {
        "task_id": task_id,
        "task_type": "HUNYUAN_VIDEO_FAST",
        "status": "TASK_STATUS_SUCCEED",
        "reason": "",
        "eta": 0,
        "progress_percent": 100,
    }
    (video,) = answer["videos"]
    assert (set(video), video["video_type"]) == ({"video_url", "video_url_ttl", "video_type"}, "mp4")
    assert answer["images"] == []
