"""What the two services accept and return: keys, request fields, status words, error and result formats.

Knows nothing about sockets, faults or the passing of time; server.py does.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from starlette.responses import JSONResponse

FAILURE = "The video could not be made: the sampler ended without frames."

# The kinds of refusal, each with the service's HTTP status, which is all that WaveSpeed's pages document.
WAVESPEED_STATUSES = {
    "body": 400,
    "no-key": 401,
    "bad-key": 401,
    "key-401": 401,
    "unknown-task": 404,
    "unknown-path": 404,
    "rate": 429,
    "submit-failure": 500,
    "read-failure": 500,
}
NOVITA_REASONS = {
    "body": (400, "INVALID_REQUEST_BODY"),
    "no-key": (400, "MISSING_API_KEY"),
    "bad-key": (403, "INVALID_API_KEY"),
    "key-401": (401, "INVALID_API_KEY"),  # the service's pages disagree about the status
    "unknown-task": (404, "TASK_NOT_FOUND"),
    "unknown-path": (404, "NOT_FOUND"),
    "rate": (429, "RATE_LIMIT_EXCEEDED"),
    "submit-failure": (500, "CREATE_TASK_FAILED"),
    "read-failure": (500, "INTERNAL_ERROR"),  # no page documents the reason of a failed read
}

# The phases of a task in each service's words, and a word that no page documents.
WAVESPEED_WORDS = {
    "queued": "created",
    "running": "processing",
    "succeeded": "completed",
    "failed": "failed",
    "undocumented": "archiving",
}
NOVITA_WORDS = {
    "queued": "TASK_STATUS_QUEUED",
    "running": "TASK_STATUS_PROCESSING",
    "succeeded": "TASK_STATUS_SUCCEED",
    "failed": "TASK_STATUS_FAILED",
    "undocumented": "TASK_STATUS_ARCHIVING",
}
NOVITA_PROGRESS = {"queued": 0, "running": 50, "succeeded": 100, "failed": 50, "undocumented": 50}


@dataclass
class Task:
    """One job; `phase` is queued, running, succeeded or failed."""

    service: str
    task_id: str
    seed: int
    video_url: str
    phase: str = "queued"
    polls: int = 0
    made_at: float = field(default_factory=time.monotonic)
    ended_at: float | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Service(Protocol):
    """What server.py needs to know about a service."""

    name: str
    largest_seed: int

    def new_id(self) -> str: ...
    def key_problem(self, authorization: str | None, key: str) -> JSONResponse | None: ...
    def body_problem(self, body: Any, content_type: str) -> str | None: ...
    def refuse(self, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse: ...
    def accepted(self, task: Task, base_url: str) -> dict[str, Any]: ...
    def result(self, task: Task, phase: str, base_url: str) -> dict[str, Any]: ...


class WaveSpeed:
    """WaveSpeedAI's hunyuan-video/t2v, or its i2v."""

    name = "wavespeed"
    largest_seed = 2**31 - 1

    def __init__(self, kind: str = "t2v"):
        self.model = f"wavespeed-ai/hunyuan-video/{kind}"
        self._takes_image = kind == "i2v"

    def new_id(self) -> str:
        return uuid.uuid4().hex

    def key_problem(self, authorization: str | None, key: str) -> JSONResponse | None:
        if authorization == f"Bearer {key}":
            return None
        return self.refuse("bad-key", "Invalid or missing API key.")

    def body_problem(self, body: Any, content_type: str) -> str | None:
        if not isinstance(body, dict):
            return "the request body must be a JSON object"
        return (
            _text_problem(body, "prompt", None)
            or _choice_problem(body, "size", ("1280*720", "720*1280"), required=False)
            or _integer_problem(body, "seed", -1, self.largest_seed, required=False)
            or _integer_problem(body, "num_inference_steps", 2, 30, required=False)
            or (self._image_problem(body) if self._takes_image else None)
        )

    def _image_problem(self, body: dict[str, Any]) -> str | None:
        """The two fields that the other model has in addition."""
        if body.get("duration", 5) not in (5, 10):
            return "duration must be one of 5, 10"
        return _text_problem(body, "image", None)

    def ticket(self, url: str) -> dict[str, Any]:
        """The answer to the announcement of an upload, as the published clients read it."""
        upload = {"method": "PUT", "url": url, "headers": {"x-upload": "yes"}}
        return {"code": 200, "message": "success", "data": {"upload": upload, "download_url": f"{url}?download"}}

    def refuse(self, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        status = WAVESPEED_STATUSES[kind]
        return JSONResponse({"code": status, "message": message, "error": message}, status, headers)

    def accepted(self, task: Task, base_url: str) -> dict[str, Any]:
        return self.result(task, task.phase, base_url)

    def result(self, task: Task, phase: str, base_url: str) -> dict[str, Any]:
        done = phase == "succeeded"
        spent = (task.ended_at or task.made_at) - task.made_at
        data = {
            "id": task.task_id,
            "model": self.model,
            "outputs": [task.video_url] if done else [],
            "urls": {"get": f"{base_url}/api/v3/predictions/{task.task_id}/result"},
            "has_nsfw_contents": [False] if done else [],
            "status": WAVESPEED_WORDS[phase],
            "created_at": task.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "error": FAILURE if phase == "failed" else "",
            "timings": {"inference": round(spent * 1000)},
        }
        if phase == "failed":
            data["code"] = 1403  # the service's number for a failed execution
        return {"code": 200, "message": "success", "data": data}


class Novita:
    """Novita's hunyuan-video-fast."""

    name = "novita"
    largest_seed = 9_999_999_999

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def key_problem(self, authorization: str | None, key: str) -> JSONResponse | None:
        if not authorization:
            return self.refuse("no-key", "The Authorization header is missing.")
        if authorization != f"Bearer {key}":
            return self.refuse("bad-key", "The API key is invalid.")
        return None

    def body_problem(self, body: Any, content_type: str) -> str | None:
        if content_type.partition(";")[0].strip().lower() != "application/json":
            return "Content-Type must be application/json"
        if not isinstance(body, dict):
            return "the request body must be a JSON object"
        return (
            _choice_problem(body, "model_name", ("hunyuan-video-fast",), required=True)
            or _integer_problem(body, "width", 1, 2**31, required=True)
            or _integer_problem(body, "height", 1, 2**31, required=True)
            or _pair_problem(body)
            or _integer_problem(body, "seed", -1, self.largest_seed, required=True)
            or _integer_problem(body, "steps", 2, 30, required=True)
            or _text_problem(body, "prompt", 2000)
            # In the page's example but not in its list; an older version of the page documents the range.
            or _integer_problem(body, "frames", 85, 129, required=False)
        )

    def refuse(self, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        status, reason = NOVITA_REASONS[kind]
        body = {"code": status, "reason": reason, "message": message, "metadata": {}}
        return JSONResponse(body, status, headers)

    def accepted(self, task: Task, base_url: str) -> dict[str, Any]:
        return {"task_id": task.task_id}

    def result(self, task: Task, phase: str, base_url: str) -> dict[str, Any]:
        video = {"video_url": task.video_url, "video_url_ttl": "3600", "video_type": "mp4"}
        return {
            "task": {
                "task_id": task.task_id,
                "task_type": "HUNYUAN_VIDEO_FAST",
                "status": NOVITA_WORDS[phase],
                "reason": FAILURE if phase == "failed" else "",
                "eta": 0,
                "progress_percent": NOVITA_PROGRESS[phase],
            },
            "images": [],
            "videos": [video] if phase == "succeeded" else [],
            "extra": {"seed": str(task.seed)},
        }


def _integer_problem(body: dict[str, Any], name: str, low: int, high: int, *, required: bool) -> str | None:
    if name not in body:
        return f"{name} is required" if required else None
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int):
        return f"{name} must be an integer"
    return None if low <= value <= high else f"{name} must be between {low} and {high}"


def _choice_problem(body: dict[str, Any], name: str, choices: tuple[str, ...], *, required: bool) -> str | None:
    if name not in body:
        return f"{name} is required" if required else None
    return None if body[name] in choices else f"{name} must be one of {', '.join(choices)}"


def _text_problem(body: dict[str, Any], name: str, longest: int | None) -> str | None:
    if name not in body:
        return f"{name} is required"
    value = body[name]
    if not isinstance(value, str):
        return f"{name} must be a string"
    if not value or (longest is not None and len(value) > longest):
        return f"{name} must have 1 to {longest} characters" if longest else f"{name} must not be empty"
    return None


def _pair_problem(body: dict[str, Any]) -> str | None:
    if (body["width"], body["height"]) in ((1280, 720), (720, 1280)):
        return None
    return "width and height must be 1280 and 720, or 720 and 1280"
