"""Calls to the stand-in as on the services' API pages, for the tests of the stand-in."""

from __future__ import annotations

import itertools
import shlex
from typing import Any

import httpx
from standin import StandIn

MODEL = "wavespeed-ai/hunyuan-video/t2v"
PATHS = {"wavespeed": f"/api/v3/{MODEL}", "novita": "/v3/async/hunyuan-video-fast"}
BODIES: dict[str, dict[str, Any]] = {
    "wavespeed": {"prompt": "a cat"},
    "novita": {
        "model_name": "hunyuan-video-fast",
        "width": 1280,
        "height": 720,
        "seed": -1,
        "steps": 30,
        "prompt": "a cat",
    },
}
SERVICES = sorted(PATHS)
WORDS = {
    "wavespeed": ["created", "processing", "completed"],
    "novita": ["TASK_STATUS_QUEUED", "TASK_STATUS_PROCESSING", "TASK_STATUS_SUCCEED"],
}

# The requests as the services' API pages print them.
WAVESPEED_EXAMPLE = """
curl --location --request POST "https://api.wavespeed.ai/api/v3/wavespeed-ai/hunyuan-video/t2v" \\
--header "Content-Type: application/json" \\
--header "Authorization: Bearer ${WAVESPEED_API_KEY}" \\
--data-raw '{
    "size": "1280*720",
    "seed": -1,
    "num_inference_steps": 30
}'
"""
WAVESPEED_RESULT_EXAMPLE = """
curl --location --request GET "https://api.wavespeed.ai/api/v3/predictions/${requestId}/result" \\
--header "Authorization: Bearer ${WAVESPEED_API_KEY}"
"""
NOVITA_EXAMPLE = """
curl --location 'https://api.novita.ai/v3/async/hunyuan-video-fast' \\
--header 'Authorization: Bearer {{API Key}}' \\
--header 'Content-Type: application/json' \\
--data '{
    "model_name": "hunyuan-video-fast",
    "height": 720,
    "width": 1280,
    "seed": -1,
    "steps": 30,
    "prompt": "A close up view of a glass sphere that has a zen garden within it. There is a small dwarf in the \
sphere who is raking the zen garden and creating patterns in the sand.",
    "frames": 85
}'
"""
NOVITA_RESULT_EXAMPLE = """
curl --location --request GET 'https://api.novita.ai/v3/async/task-result?task_id={Returned Task ID}' \\
--header 'Authorization: Bearer {{API Key}}'
"""


def bearer(standin: StandIn, key: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key or standin.key}"}


def submit(http: httpx.Client, standin: StandIn, service: str, **changes: object) -> httpx.Response:
    body = {name: value for name, value in (BODIES[service] | changes).items() if value is not None}
    return http.post(standin.url + PATHS[service], json=body, headers=bearer(standin))


def poll(
    http: httpx.Client, standin: StandIn, service: str, task_id: str | None = None, key: str | None = None
) -> httpx.Response:
    """Query the given task, or the last one that was created."""
    task_id = task_id or standin.submissions[-1].task_id
    path = {"wavespeed": f"/api/v3/predictions/{task_id}/result", "novita": f"/v3/async/task-result?task_id={task_id}"}
    return http.get(standin.url + path[service], headers=bearer(standin, key))


def status_of(answer: httpx.Response) -> str:
    body = answer.json()
    return body["data"]["status"] if "data" in body else body["task"]["status"]


def finish(http: httpx.Client, standin: StandIn, service: str) -> dict[str, Any]:
    submit(http, standin, service)
    for _ in range(3):
        answer = poll(http, standin, service)
    return answer.json()


def finished_url(http: httpx.Client, standin: StandIn) -> str:
    return finish(http, standin, "wavespeed")["data"]["outputs"][0]


def run_example(http: httpx.Client, standin: StandIn, curl: str, task_id: str = "") -> httpx.Response:
    """Send what a page's curl command would send, with the stand-in's address, its key and a task id inserted."""
    for name, value in {"${WAVESPEED_API_KEY}": standin.key, "{{API Key}}": standin.key, "\\\n": ""}.items():
        curl = curl.replace(name, value)
    words = shlex.split(curl)
    given = list(itertools.pairwise(words))
    headers = dict(value.split(": ") for word, value in given if word == "--header")
    data = next((value for word, value in given if word.startswith("--data")), None)
    url = next(word for word in words if word.startswith("https://"))
    for name in ("https://api.wavespeed.ai", "https://api.novita.ai"):
        url = url.replace(name, standin.url)
    for name in ("${requestId}", "{Returned Task ID}"):
        url = url.replace(name, task_id)
    return http.request("POST" if data else "GET", url, headers=headers, content=data)
