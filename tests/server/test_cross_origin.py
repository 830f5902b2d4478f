"""Calls from web pages of other origins: refused unless allowed, and then with everything that a browser needs."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from fastapi.testclient import TestClient
from server_stage import CLIP, Stage

from hunyuan_local.errors import ConfigError
from hunyuan_local.server.config import check_origins

PAGE = "https://app.example"
KEY = "first-key"
BEARER = {"Authorization": f"Bearer {KEY}", "Origin": PAGE}
ALLOWED = "access-control-allow-origin"

Make = Callable[..., TestClient]


def ask(client: TestClient, origin: str = PAGE, path: str = "/v1/videos", **more: str) -> httpx.Response:
    """A browser's preflight request before a page's call; it has no key."""
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return client.options(path, headers=headers | {name.replace("_", "-"): value for name, value in more.items()})


@pytest.fixture
def named(make_client: Make) -> TestClient:
    return make_client(api_keys=(KEY,), allow_origins=(PAGE, "http://localhost:3000"))


@pytest.fixture
def every(make_client: Make) -> TestClient:
    return make_client(api_keys=(KEY,), allow_origins=("*",))


# Off by default


@pytest.mark.parametrize("config", [{"api_keys": (KEY,)}, {"insecure": False}, {"insecure": True}])
def test_by_default_no_page_may_call(make_client: Make, config: dict[str, object]) -> None:
    answer = ask(make_client(**config))
    assert (answer.status_code, ALLOWED in answer.headers) == (403, False)
    assert f"start the server with --allow-origin {PAGE}" in answer.json()["error"]["message"]


def test_by_default_no_answer_is_for_pages(make_client: Make) -> None:
    answer = make_client(api_keys=(KEY,)).get("/v1/models", headers=BEARER)
    assert not any(name.startswith("access-control") for name in answer.headers)


# Listed origins


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
def test_a_named_page_may_call_with_its_key(named: TestClient, origin: str) -> None:
    answer = ask(named, origin, Access_Control_Request_Headers="authorization,content-type,x-stainless-lang")
    assert (answer.status_code, answer.headers[ALLOWED]) == (200, origin)
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-lang"
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST, DELETE"
    assert (answer.headers["access-control-max-age"], "Origin" in answer.headers["vary"]) == ("3600", True)


def test_a_named_page_may_reach_into_a_private_network(named: TestClient) -> None:
    answer = ask(named, Access_Control_Request_Private_Network="true")
    assert answer.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    "origin", ["https://other.example", f"{PAGE}.evil.example", "http://app.example", f"{PAGE}:8443", "null"]
)
def test_another_page_may_not(named: TestClient, origin: str) -> None:
    refused = ask(named, origin)
    assert (refused.status_code, ALLOWED in refused.headers) == (403, False)
    assert ALLOWED not in named.get("/v1/models", headers=BEARER | {"Origin": origin}).headers


def test_a_preflight_needs_no_key_but_the_call_does(named: TestClient) -> None:
    assert ask(named).status_code == 200
    assert named.get("/v1/models", headers={"Origin": PAGE}).status_code == 401


def test_pages_read_the_answer_and_its_headers(named: TestClient, stage: Stage) -> None:
    headers = BEARER | {"Range": "bytes=0-1"}
    answer = named.get(f"/v1/videos/{stage.succeeded().job_id}/content", headers=headers)
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert (answer.content, answer.headers[ALLOWED], answer.headers["vary"]) == (CLIP[:2], PAGE, "Origin")
    assert all(name in exposed for name in ("etag", "content-range", "retry-after", "openai-poll-after-ms"))


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/videos", {"Authorization": ""}, 401),
        ("/v1/videos/none", {}, 404),
        ("/v1/none", {}, 404),
        ("/api/v3/predictions", {}, 405),
        ("/readyz", {}, 503),
    ],
)
def test_pages_read_what_went_wrong(named: TestClient, path: str, headers: dict[str, str], status: int) -> None:
    answer = named.get(path, headers=BEARER | headers)
    assert (answer.status_code, answer.headers[ALLOWED]) == (status, PAGE)


def test_pages_read_that_something_failed_unforeseen(named: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named.app.state.service, "get", lambda job_id: 1 / 0)
    answer = named.get("/v1/videos/x", headers=BEARER)
    assert (answer.status_code, answer.headers[ALLOWED]) == (500, PAGE)


def test_pages_read_that_a_body_is_too_large(make_client: Make) -> None:
    client = make_client(allow_origins=(PAGE,), max_body_bytes=10)
    answer = client.post("/v1/videos", json={"prompt": "a fox"}, headers={"Origin": PAGE})
    assert (answer.status_code, answer.headers[ALLOWED]) == (413, PAGE)


def test_pages_read_that_they_have_it_already(named: TestClient) -> None:
    tag = named.get("/v1/models", headers=BEARER).headers["etag"]
    answer = named.get("/v1/models", headers=BEARER | {"If-None-Match": tag})
    assert (answer.status_code, answer.headers[ALLOWED]) == (304, PAGE)


def test_no_page_calls_with_cookies(named: TestClient, every: TestClient) -> None:
    answers = [ask(named), ask(every), named.get("/v1/models", headers=BEARER)]
    assert not any("access-control-allow-credentials" in answer.headers for answer in answers)


@pytest.mark.parametrize("path", ["/ui", "/ui/", "/ui/alive", "//ui/alive"])
def test_the_servers_own_page_is_for_itself_alone(every: TestClient, path: str) -> None:
    asked = ask(every, path=f"http://testserver{path}")
    got = every.get(f"http://testserver{path}", headers={"Origin": PAGE})
    assert not any(name.startswith("access-control") for answer in (asked, got) for name in answer.headers)


# Every origin


@pytest.mark.parametrize("origin", [PAGE, "null", "https://other.example"])
def test_a_star_is_every_page(every: TestClient, origin: str) -> None:
    assert ask(every, origin).headers[ALLOWED] == "*"
    assert every.get("/v1/models", headers=BEARER | {"Origin": origin}).headers[ALLOWED] == "*"


# Without keys


def test_without_keys_a_named_page_is_answered(make_client: Make) -> None:
    client = make_client(insecure=False, allow_origins=(PAGE,))
    here = {"host": "127.0.0.1:8000", "origin": PAGE}
    assert client.post("/v1/videos", data={"prompt": "a fox"}, headers=here).status_code == 200


def test_without_keys_another_page_is_still_refused(make_client: Make) -> None:
    client = make_client(insecure=False, allow_origins=(PAGE,))
    answer = client.post(
        "/v1/videos", data={"prompt": "a fox"}, headers={"host": "127.0.0.1:8000", "origin": "https://other.example"}
    )
    assert answer.status_code == 403
    assert "--allow-origin https://other.example" in answer.json()["error"]["message"]


def test_without_keys_a_name_that_was_bent_to_this_machine_stays_refused(make_client: Make) -> None:
    client = make_client(insecure=False, allow_origins=("*",))
    assert client.get("/v1/videos", headers={"host": "attacker.example", "origin": PAGE}).status_code == 403


# Allowed values


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example", "http://localhost:3000", "http://[::1]:5173", "http://192.168.1.7", "*",
        "chrome-extension://abcdefghijklmnop", "tauri://localhost", "https://xn--bcher-kva.example",
    ],
)  # fmt: skip
def test_origins_are_taken_as_browsers_send_them(origin: str) -> None:
    check_origins((origin,))


@pytest.mark.parametrize(
    ("origin", "remedy"),
    [
        ("https://app.example/", "give https://app.example, or"),
        ("https://app.example/studio", "give https://app.example, or"),
        ("https://App.Example", "give https://app.example, or"),
        ("HTTPS://app.example", "give https://app.example, or"),
        ("https://app.example:443", "give https://app.example, or"),
        ("http://app.example:80", "give http://app.example, or"),
        ("https://bücher.example", "give https://xn--bcher-kva.example, or"),
        ("app.example", "give https://app.example, or"),
        ("https://user@app.example", "give https://app.example, or"),
        ("https://*.example", "give one such as https://app.example"),
        ("https://app.example:99999", "give one such as https://app.example"),
        ("https://a.example,https://b.example", "give one such as https://app.example"),
        ("null", "serve the page from an address and give that"),
        ("", "give one such as https://app.example"),
        ("https://", "give one such as https://app.example"),
    ],
)
def test_what_no_browser_sends_is_refused(origin: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_origins((origin,))
    assert str(caught.value).startswith(f"allow_origin={origin!r}: ") and remedy in str(caught.value)


def test_a_star_stands_alone() -> None:
    with pytest.raises(ConfigError, match="give it alone"):
        check_origins(("https://app.example", "*"))
