"""Faulty calls get an error in the dialect's format, and never a server error."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from server_stage import MODEL, SUBMISSIONS, Stage
from starlette.types import Message, Receive, Scope, Send

from hunyuan_local.schema import Progress
from hunyuan_local.server.app import create_app
from hunyuan_local.server.config import ServerConfig
from hunyuan_local.server.error_answers import BodyTooLargeError
from hunyuan_local.server.middleware import BodyLimit
from hunyuan_local.wires import novita, openai, wavespeed
from hunyuan_local.wires.novita_models import NovitaFault
from hunyuan_local.wires.openai_models import OpenAIFault
from hunyuan_local.wires.wavespeed_models import WaveSpeedFault

DIALECTS = sorted(SUBMISSIONS)
FAULTS = {"wavespeed": WaveSpeedFault, "novita": NovitaFault, "openai": OpenAIFault}
UNKNOWN_JOBS = {
    "wavespeed": "/api/v3/predictions/{}/result",
    "novita": "/v3/async/task-result?task_id={}",
    "openai": "/v1/videos/{}",
}
STRANGE_IDS = ["x", "%00", "%ff", "%ED%A0%80", "..", "%2e%2e", "*", "'", "é", "x" * 3000, "%F0%9F%A6%8A", "{}", "%0a"]
BAD_JSON = [
    b"", b"{", b"nul", b"\xff\xfe", b'{"prompt": "\xff"}', b'{"prompt": "a"} x', b'{"prompt": NaN}', b'{"a": 1e999}',
    b'{"seed": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"\xef\xbb\xbf{}",
    b'{"a": ' + b"[" * 33 + b"]" * 33 + b"}", b'{"prompt": "\\ud800"}', b'{"\\udfff": 1}', b"'a'", b"\x00",
]  # fmt: skip
STRANGE_VALUES = [
    None, True, 0, -1, 10**30, 1.5, "", " ", "1", "\x00", [], [1], {}, {"a": {}}, "x" * 6000, "1280*720\n", "٣*٣",
]  # fmt: skip


def check_shape(dialect: str, answer: Any) -> None:
    """A refusal is JSON in its dialect's format, with its HTTP status."""
    assert answer.headers["content-type"] == "application/json"
    body = FAULTS[dialect].model_validate(answer.json())
    assert getattr(body, "code", answer.status_code) == answer.status_code


def post(client: TestClient, dialect: str, **call: Any) -> Any:
    return client.post(SUBMISSIONS[dialect][0], **call)


@pytest.fixture
def boom(stage: Stage) -> TestClient:
    """An app with a bug below every prefix."""

    def fail() -> None:
        raise ZeroDivisionError("a secret")

    app = create_app(ServerConfig(model=MODEL, insecure=True), stage.folder, stage.store, "whsec_secret")
    for prefix in ("/api/v3", "/v3", "/v1", ""):
        app.add_api_route(f"{prefix}/boom", fail)
    return TestClient(app)


# Unknown routes, methods and jobs


@pytest.mark.parametrize(
    ("dialect", "path"), [("wavespeed", "/api/v3/x"), ("novita", "/v3/x"), ("novita", "/v3"), ("openai", "/v1/x/y")]
)
def test_an_unknown_route_is_not_found_and_the_model_is_named(client: TestClient, dialect: str, path: str) -> None:
    answer = client.get(path)
    check_shape(dialect, answer)
    assert (answer.status_code, SUBMISSIONS[dialect][0] in answer.text) == (404, True)


def test_below_no_prefix_the_answer_is_plain(client: TestClient) -> None:
    answer = client.get("/v2/x")
    assert (answer.status_code, answer.json().keys()) == (404, {"error"})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_another_method_is_refused_with_those_that_are_possible(client: TestClient, dialect: str) -> None:
    answer = client.patch(SUBMISSIONS[dialect][0])
    check_shape(dialect, answer)
    allowed = "GET, HEAD, POST" if dialect == "openai" else "POST"
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_unknown_job_is_not_found(client: TestClient, dialect: str) -> None:
    for job_id in STRANGE_IDS:
        answer = client.get(UNKNOWN_JOBS[dialect].format(job_id))
        assert answer.status_code in (404, 405), job_id
        check_shape(dialect, answer)


@pytest.mark.parametrize("path", ["/v1/videos/", "/api/v3/balance/"])
def test_there_are_no_redirects(client: TestClient, path: str) -> None:
    assert client.get(path, follow_redirects=False).status_code == 404


# Bodies


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_not_json_is_refused(client: TestClient, dialect: str) -> None:
    for body in BAD_JSON:
        answer = post(client, dialect, content=body, headers={"content-type": "application/json"})
        check_shape(dialect, answer)
        assert (answer.status_code, len(answer.content) < 2000) == (400, True), body[:100]


@pytest.mark.parametrize("body", [None, [], "x", 1, {}, [{}], {str(n): n for n in range(5_000)}])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_no_submission_is_refused(client: TestClient, dialect: str, body: object) -> None:
    answer = post(client, dialect, json=body)
    check_shape(dialect, answer)
    assert (answer.status_code, len(answer.content) < 8000) == (400, True)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_any_value_of_a_field_is_accepted_or_refused(client: TestClient, dialect: str) -> None:
    path, body = SUBMISSIONS[dialect]
    model = {"wavespeed": wavespeed, "novita": novita, "openai": openai}[dialect]
    for field in model.SubmissionBody.model_fields:
        for value in STRANGE_VALUES:
            answer = client.post(path, json=body | {field: value, "enable_sync_mode": False})
            assert answer.status_code in (200, 400), (field, value, answer.text)


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "multipart/mixed", "application/json-seq"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_another_content_type_is_refused_with_what_is_taken(client: TestClient, dialect: str, kind: str) -> None:
    answer = post(client, dialect, content=b'{"prompt": "a"}', headers={"content-type": kind})
    check_shape(dialect, answer)
    assert (answer.status_code, "send application/json" in answer.text) == (400, True)


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json", None]
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_json_is_taken_under_every_name_of_it(client: TestClient, dialect: str, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    content = json.dumps(SUBMISSIONS[dialect][1]).encode()
    assert post(client, dialect, content=content, headers=headers).status_code == 200


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_long_prompt_is_refused_with_the_limit(make_client: Callable[..., TestClient], dialect: str) -> None:
    client = make_client(max_prompt_characters=10)
    answer = post(client, dialect, json=SUBMISSIONS[dialect][1] | {"prompt": "x" * 11})
    check_shape(dialect, answer)
    assert "prompt='xxxxxxxxxxx': has 11 characters; the limit is 10" in answer.text


def test_so_is_a_long_negative_prompt(make_client: Callable[..., TestClient]) -> None:
    body = {"prompt": "a", "negative_prompt": "x" * 11}
    answer = make_client(max_prompt_characters=10).post("/v1/videos", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "negative_prompt")


# Bodies that are too large


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_large_body_is_refused_before_it_is_read(make_client: Callable[..., TestClient], dialect: str) -> None:
    answer = post(make_client(max_body_bytes=100), dialect, content=b"x" * 101)
    check_shape(dialect, answer)
    assert (answer.status_code, "100 bytes" in answer.text) == (413, True)


def raw_post(url: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("POST", path, body, headers, encode_chunked="Transfer-Encoding" in headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_body_of_unannounced_length_is_measured_as_it_comes(live: str, dialect: str) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    status, body = raw_post(live, SUBMISSIONS[dialect][0], iter([b" " * 4000] * 3), headers)
    FAULTS[dialect].model_validate_json(body)
    assert status == 413


def test_the_pieces_of_a_body_are_counted_together() -> None:
    pieces = iter([{"type": "http.request", "body": b" " * 40, "more_body": True}] * 3)

    async def receive() -> Message:
        return next(pieces)

    async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            await receive()

    limited = BodyLimit(read_all, 100)
    with pytest.raises(BodyTooLargeError, match="100 bytes"):
        asyncio.run(limited({"type": "http", "path": "/", "headers": []}, receive, None))


def test_a_multipart_body_of_unannounced_length_too(live: str) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "multipart/form-data; boundary=b"}
    begin = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'
    status, _ = raw_post(live, "/v1/videos", iter([begin, *[b"x" * 4000] * 3]), headers)
    assert status == 413


def test_a_body_within_the_limit_is_taken_in_chunks(live: str) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    status, _ = raw_post(live, "/v1/videos", iter([b'{"prompt":', b' "a fox"}']), headers)
    assert status == 200


def test_strange_hosts_are_no_server_error(live: str) -> None:
    for host in ("[::1", "a:b:c", "a:99999", "", "ä".encode("latin-1").decode("latin-1")):
        status, _ = raw_post(live, "/v1/videos", b'{"prompt": "a"}', {"Host": host})
        assert status < 500


# Queue, disk and store


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_full_queue_is_answered_with_429_and_a_time(make_client: Callable[..., TestClient], dialect: str) -> None:
    client = make_client(max_queue=1)
    post(client, dialect, json=SUBMISSIONS[dialect][1])
    answer = post(client, dialect, json=SUBMISSIONS[dialect][1])
    check_shape(dialect, answer)
    assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (429, True)


def test_the_time_is_when_the_running_job_ends(make_client: Callable[..., TestClient], stage: Stage) -> None:
    stage.running(Progress(stage="denoise", step=5, total=10, seconds_left=12.3))
    stage.queued()
    answer = make_client(max_queue=1).post("/v1/videos", json={"prompt": "a fox"})
    assert answer.headers["retry-after"] == "13"


def test_an_openai_client_may_repeat_what_found_no_place(make_client: Callable[..., TestClient], stage: Stage) -> None:
    stage.queued()
    assert "x-should-retry" not in make_client(max_queue=1).post("/v1/videos", json={"prompt": "a"}).headers


@pytest.mark.parametrize("dialect", DIALECTS)
def test_with_a_full_disk_nothing_is_taken(make_client: Callable[..., TestClient], stage: Stage, dialect: str) -> None:
    answer = post(make_client(min_free_bytes=10**18), dialect, json=SUBMISSIONS[dialect][1])
    check_shape(dialect, answer)
    assert (answer.status_code, stage.store.find()) == (503, [])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_without_its_store_the_server_says_so(client: TestClient, stage: Stage, dialect: str) -> None:
    stage.store.database.run("DROP TABLE jobs")
    answers = [post(client, dialect, json=SUBMISSIONS[dialect][1]), client.get(UNKNOWN_JOBS[dialect].format("x"))]
    for answer in answers:
        check_shape(dialect, answer)
        assert (answer.status_code, str(stage.folder.root) in answer.text) == (503, False)


# Unexpected errors


@pytest.mark.parametrize(
    ("dialect", "path"), list(zip(DIALECTS, ("/v3/boom", "/v1/boom", "/api/v3/boom"), strict=True))
)
def test_a_mistake_is_answered_without_its_details(boom: TestClient, dialect: str, path: str) -> None:
    answer = boom.get(path)
    check_shape(dialect, answer)
    assert (answer.status_code, "secret" in answer.text, "ZeroDivision" in answer.text) == (500, False, False)


def test_below_no_prefix_too(boom: TestClient) -> None:
    assert boom.get("/boom").json().keys() == {"error"}


def test_the_log_has_the_details(boom: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        boom.get("/v1/boom")
    assert "ZeroDivisionError: a secret" in caplog.text


def test_an_openai_client_does_not_repeat_it(boom: TestClient) -> None:
    assert boom.get("/v1/boom").headers["x-should-retry"] == "false"
