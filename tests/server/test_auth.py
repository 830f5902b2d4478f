"""API keys: where they are required, how they are sent, and the response without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from hunyuan_local.errors import ConfigError
from hunyuan_local.server.config import read_api_keys

KEYS = ("first-key", "second-key")
RESULTS = {
    "wavespeed": "/api/v3/predictions/x/result",
    "novita": "/v3/async/task-result?task_id=x",
    "openai": "/v1/videos/x",
}
GUARDED = (*RESULTS.values(), "/api/v3/webhook/secret", "/api/v3/none", "/v1/none", "/metrics", "/none", "/files")


@pytest.fixture
def guarded(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client(api_keys=KEYS)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", GUARDED)
def test_without_a_key_nothing_is_reported(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == (400 if path.startswith("/v3/") else 401)


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json"])
def test_what_tells_nothing_of_jobs_is_open(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("path", RESULTS.values())
def test_each_key_opens_every_dialect(guarded: TestClient, path: str, key: str) -> None:
    assert guarded.get(path, headers=bearer(key)).status_code == 404


@pytest.mark.parametrize(("path", "status"), list(zip(RESULTS.values(), (401, 403, 401), strict=True)))
def test_a_wrong_key_is_refused(guarded: TestClient, path: str, status: int) -> None:
    assert guarded.get(path, headers=bearer("third-key")).status_code == status


def test_wavespeed_clients_get_the_error_in_their_format(guarded: TestClient) -> None:
    body = guarded.get(RESULTS["wavespeed"]).json()
    assert (body["code"], body["message"]) == (401, body["error"])


@pytest.mark.parametrize(("headers", "reason"), [({}, "MISSING_API_KEY"), (bearer("third-key"), "INVALID_API_KEY")])
def test_novita_is_reported_the_reason(guarded: TestClient, headers: dict[str, str], reason: str) -> None:
    assert guarded.get(RESULTS["novita"], headers=headers).json()["reason"] == reason


def test_openai_clients_get_a_wrong_key_error(guarded: TestClient) -> None:
    assert guarded.get(RESULTS["openai"], headers=bearer("third-key")).json()["error"]["code"] == "invalid_api_key"


def test_below_no_prefix_the_answer_is_plain(guarded: TestClient) -> None:
    assert guarded.get("/metrics").json().keys() == {"error"}


def test_a_401_names_the_scheme(guarded: TestClient) -> None:
    assert guarded.get(RESULTS["openai"]).headers["www-authenticate"] == "Bearer"


def test_novita_takes_the_bare_key(guarded: TestClient) -> None:
    assert guarded.get(RESULTS["novita"], headers={"Authorization": KEYS[0]}).status_code == 404


def test_a_doubled_slash_is_no_way_around(guarded: TestClient) -> None:
    assert guarded.get("http://testserver//v3/async/task-result?task_id=x").status_code == 400


@pytest.mark.parametrize("path", [RESULTS["wavespeed"], RESULTS["openai"], "/metrics"])
def test_the_others_do_not(guarded: TestClient, path: str) -> None:
    assert guarded.get(path, headers={"Authorization": KEYS[0]}).status_code == 401


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Basic first-key", "Bearer first-key second-key", "Bearer FIRST-KEY", "é"]
)
def test_other_headers_are_refused(guarded: TestClient, header: str) -> None:
    headers = {"Authorization": header.encode()}
    assert guarded.get(RESULTS["openai"], headers=headers).status_code == 401


def test_the_word_bearer_may_be_written_in_small_letters(guarded: TestClient) -> None:
    headers = {"Authorization": f"bearer {KEYS[0]}"}
    assert guarded.get(RESULTS["openai"], headers=headers).status_code == 404


def test_a_refused_submission_makes_no_job(guarded: TestClient) -> None:
    guarded.post("/v1/videos", json={"prompt": "a fox"})
    assert guarded.get("/v1/videos", headers=bearer(KEYS[0])).json()["data"] == []


def test_without_keys_nobody_is_asked(client: TestClient) -> None:
    assert client.get("/v1/videos").status_code == 200


@pytest.fixture
def keyless(make_client: Callable[..., TestClient]) -> TestClient:
    """A server without keys, as on a user's own machine."""
    return make_client(insecure=False)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000"])
def test_without_keys_programs_of_this_machine_are_answered(keyless: TestClient, host: str) -> None:
    assert keyless.get("/v1/videos", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example", "[", ""])
def test_without_keys_a_name_that_was_bent_to_this_machine_is_refused(keyless: TestClient, host: str) -> None:
    assert keyless.get("/v1/videos", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["https://attacker.example", "http://127.0.0.1:9", "null"])
def test_without_keys_a_page_of_another_origin_is_refused(keyless: TestClient, origin: str) -> None:
    headers = {"host": "127.0.0.1:8000", "origin": origin}
    assert keyless.post("/v1/videos", data={"prompt": "a fox"}, headers=headers).status_code == 403


def test_without_keys_its_own_page_is_answered(keyless: TestClient) -> None:
    headers = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}
    assert keyless.get("/v1/videos", headers=headers).status_code == 200


def test_without_keys_the_public_name_is_answered(make_client: Callable[..., TestClient]) -> None:
    client = make_client(insecure=False, public_url="https://video.example.org")
    assert client.get("/v1/videos", headers={"host": "video.example.org"}).status_code == 200


@pytest.mark.parametrize("content", [b"first-key\r\nsecond-key\r\n", b"# mine\r\nfirst-key\nsecond-key"])
def test_a_file_of_keys_may_begin_with_a_byte_order_mark(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbf" + content)
    assert read_api_keys(tmp_path / "keys") == KEYS


def test_a_file_of_keys_in_another_encoding_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes("first-key".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"^api_keys_file='.*/keys': cannot be read: .*; save it as text in UTF-8$"):
        read_api_keys(tmp_path / "keys")
