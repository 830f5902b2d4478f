"""The lists of models, which many clients request first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

MODEL = {"id": "tiny", "object": "model", "created": 1733184000, "owned_by": "hunyuan-local"}


def test_openai_lists_the_one_model(client: TestClient) -> None:
    assert client.get("/v1/models").json() == {"object": "list", "data": [MODEL]}


def test_openai_shows_it_by_its_id(client: TestClient) -> None:
    assert client.get("/v1/models/tiny").json() == MODEL


def test_videos_name_the_model_that_is_listed(client: TestClient) -> None:
    video = client.post("/v1/videos", json={"prompt": "a fox"}).json()
    assert video["model"] == MODEL["id"]


@pytest.mark.parametrize("name", ["sora-2", "hunyuan-video", "tencent/HunyuanVideo", "tencent%2FHunyuanVideo"])
def test_openai_knows_no_other(client: TestClient, name: str) -> None:
    answer = client.get(f"/v1/models/{name}")
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (404, "invalid_request_error", "model")
    assert error["message"].endswith("not a model of this server; use tiny")


@pytest.fixture
def listed(client: TestClient) -> dict[str, Any]:
    answer = client.get("/api/v3/models").json()
    assert (answer["code"], answer["message"], len(answer["data"])) == (200, "success", 1)
    return answer["data"][0]


def test_wavespeed_lists_the_model_of_its_path(client: TestClient, listed: dict[str, Any]) -> None:
    assert (listed["model_id"], listed["type"], listed["base_price"]) == (
        "wavespeed-ai/hunyuan-video/t2v", "text-to-video", 0,
    )  # fmt: skip
    assert client.post(f"/api/v3/{listed['model_id']}", json={"prompt": "a fox"}).status_code == 200


def test_wavespeed_lists_its_fields_with_their_ranges(listed: dict[str, Any]) -> None:
    call = listed["api_schema"]["api_schemas"][0]
    assert (call["type"], call["request_schema"]["properties"]["size"]["enum"]) == (
        "model_run", ["1280*720", "720*1280"],
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/api/v3/models"])
def test_they_need_a_key_as_everything_does(make_client: Callable[..., TestClient], path: str) -> None:
    guarded = make_client(api_keys=("k",))
    assert guarded.get(path).status_code == 401
    assert guarded.get(path, headers={"Authorization": "Bearer k"}).status_code == 200
