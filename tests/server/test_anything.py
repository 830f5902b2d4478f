"""Any request to any path of a dialect gets a JSON response, and never a server error."""

from __future__ import annotations

import json
import string
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hunyuan_local.config import load_model_config
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.server.app import create_app
from hunyuan_local.server.config import ServerConfig

PATHS = {
    "wavespeed": ["/api/v3/wavespeed-ai/hunyuan-video/t2v", "/api/v3/predictions", "/api/v3/predictions/delete"],
    "novita": ["/v3/async/hunyuan-video-fast", "//v3/async/hunyuan-video-fast", "/v3/async/task-result"],
    "openai": ["/v1/videos", "/v1/videos/x", "/v1/videos/x/content"],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TYPES = st.sampled_from(
    ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""]
)
METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
RELAXED = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """A server that accepts everything possible, and responds immediately to clients that wait."""
    folder = DataFolder(tmp_path_factory.mktemp("data"))
    model = load_model_config("tiny")
    config = ServerConfig(model=model, insecure=True, min_free_bytes=0, max_queue=10**6, relaxed=True, sync_timeout_s=0)
    return TestClient(create_app(config, folder, folder.store()), raise_server_exceptions=False)


def test_a_number_beyond_all_bounds_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/videos", json={"prompt": "a fox", "num_frames": 4 * 10**400 + 1})
    assert answer.status_code == 400


def judge(answer: httpx.Response) -> None:
    """Check for no server error and no traceback, and for JSON if there is a body."""
    assert answer.status_code < 500
    assert "Traceback" not in answer.text
    assert not answer.content or isinstance(answer.json(), dict)


@pytest.mark.parametrize("dialect", PATHS)
@RELAXED
@given(data=st.data(), body=st.binary(max_size=200), kind=TYPES, method=METHODS)
def test_any_bytes(client: TestClient, dialect: str, data: st.DataObject, body: bytes, kind: str, method: str) -> None:
    path = data.draw(st.sampled_from(PATHS[dialect]))
    judge(client.request(method, path, content=body, headers={"content-type": kind} if kind else {}))


@pytest.mark.parametrize("dialect", PATHS)
@RELAXED
@given(data=st.data(), value=JSON)
def test_any_json(client: TestClient, dialect: str, data: st.DataObject, value: object) -> None:
    path = data.draw(st.sampled_from(PATHS[dialect]))
    judge(client.post(path, content=json.dumps(value), headers={"content-type": "application/json"}))


@pytest.mark.parametrize("dialect", PATHS)
@RELAXED
@given(data=st.data())
def test_any_value_in_a_known_field(client: TestClient, dialect: str, data: st.DataObject) -> None:
    names = ["prompt", "size", "seed", "num_inference_steps", "steps", "width", "height", "frames", "seconds", "extra",
             "enable_sync_mode", "extra_body", "extra_params", "ids", "page", "page_size", "model_name"]  # fmt: skip
    body = {"prompt": "a fox"} | data.draw(st.dictionaries(st.sampled_from(names), JSON, max_size=6))
    judge(client.post(data.draw(st.sampled_from(PATHS[dialect])), json=body))


@pytest.mark.parametrize("dialect", PATHS)
@RELAXED
@given(data=st.data(), tail=st.text(string.printable, max_size=40), query=st.text(max_size=40))
def test_any_path_and_query(client: TestClient, dialect: str, data: st.DataObject, tail: str, query: str) -> None:
    prefix = data.draw(st.sampled_from(PATHS[dialect]))
    judge(client.get(f"{prefix}/{quote(tail, safe='/')}", params={"webhook": query, "task_id": tail}))


def test_the_folder_holds_nothing_but_its_own_files(client: TestClient) -> None:
    root: Path = client.app.state.service.folder.root
    assert [path.name for path in (root / "videos").iterdir()] == []
