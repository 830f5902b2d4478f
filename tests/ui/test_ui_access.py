"""Access to the page in the real app with Gradio mounted: keys, cookies, origins, and unknown paths."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable

import httpx
import pytest
from fastapi.testclient import TestClient
from manual_clock import ManualClock
from server_stage import Stage

from hunyuan_local.ui.access import Door
from hunyuan_local.ui.session_cookie import Passes

KEYS = ("first-key", "second-key")
SECRET = "s" * 64


@pytest.fixture
def stranger(make_visitor: Callable[..., TestClient]) -> TestClient:
    """A visitor without a key."""
    return make_visitor(api_keys=KEYS)


def log_in(client: TestClient, key: str = KEYS[0], **headers: str) -> httpx.Response:
    return client.post("/ui/login", data={"key": key}, headers=headers)


@pytest.fixture
def member(stranger: TestClient) -> TestClient:
    """A visitor with a key."""
    log_in(stranger)
    return stranger


# The form and the cookie


def test_without_a_pass_the_page_leads_to_the_form(stranger: TestClient) -> None:
    answer = stranger.get("/ui/")
    assert (answer.status_code, answer.headers["location"]) == (303, "login")
    assert "API key of this server" in stranger.get("/ui/login").text


@pytest.mark.parametrize("path", [
    "/ui/config", "/ui/alive", "/ui/gradio_api/info", "/ui/gradio_api/queue/data", "/ui/poster/x.jpg",
    "/ui/video/x.mp4", "/ui/assets/index.js", "/ui/theme.css", "/ui//", "/ui/%6cogin/", "/ui/login/x",
    "//ui/config", "/ui/../ui/config",
])  # fmt: skip
def test_without_a_pass_nothing_else_is_reported(stranger: TestClient, path: str) -> None:
    assert stranger.get(f"http://127.0.0.1:8000{path}").status_code in (401, 404)


def test_without_a_pass_nothing_is_done(stranger: TestClient, shared_stage: Stage) -> None:
    before = len(shared_stage.store.find())
    body = {"data": ["a fox"], "fn_index": 0, "session_hash": "x"}
    assert stranger.post("/ui/gradio_api/run/predict", json=body).status_code == 401
    assert len(shared_stage.store.find()) == before


def test_the_key_opens_the_page(member: TestClient) -> None:
    assert "<gradio-app" in member.get("/ui/").text


@pytest.mark.parametrize("key", ["wrong", "", "first-key second-key", "first-keyé"])
def test_a_wrong_key_is_refused_in_words(stranger: TestClient, key: str) -> None:
    answer = log_in(stranger, key)
    assert answer.status_code == 401 and "set-cookie" not in answer.headers
    assert 'role="alert"' in answer.text and "This key is wrong" in answer.text


def test_the_cookie_is_for_this_page_alone_and_not_for_scripts(stranger: TestClient) -> None:
    cookie = log_in(stranger).headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "max-age=" in cookie
    assert "path=" not in cookie  # the same for the form's own folder
    assert KEYS[0] not in cookie


def test_behind_https_the_cookie_never_goes_over_http(make_visitor: Callable[..., TestClient]) -> None:
    client = make_visitor(api_keys=KEYS, public_url="https://video.example.org")
    assert "secure" in log_in(client).headers["set-cookie"].lower()


def test_logging_out_ends_it(member: TestClient) -> None:
    member.post("/ui/logout")
    assert member.get("/ui/alive").status_code == 401


def test_the_cookie_opens_the_page_and_not_the_api(member: TestClient) -> None:
    assert member.get("/v1/videos").status_code == 401


def test_without_keys_nobody_is_asked(make_visitor: Callable[..., TestClient]) -> None:
    client = make_visitor()
    assert client.get("/ui/").status_code == 200
    assert "Log out" not in client.get("/ui/").text


# Session tokens alone


def test_a_pass_ends_with_its_time(clock: ManualClock) -> None:
    passes = Passes(KEYS, SECRET, ttl_s=100, clock=clock)
    value = passes.issue(KEYS[1])
    assert passes.accept(value)
    clock.now += 100
    assert not passes.accept(value)


def test_a_pass_ends_with_its_key() -> None:
    value = Passes(KEYS, SECRET).issue(KEYS[1])
    assert not Passes(KEYS[:1], SECRET).accept(value)


def test_a_pass_of_another_secret_is_none() -> None:
    assert not Passes(KEYS, SECRET).accept(Passes(KEYS, "t" * 64).issue(KEYS[0]))


@pytest.mark.parametrize("value", ["", ".", "9999999999.", "9999999999.0", "x.y", "é", "9999999999"])
def test_an_invented_pass_is_none(value: str) -> None:
    assert not Passes(KEYS, SECRET).accept(value)


def test_a_pass_whose_end_was_moved_is_none(clock: ManualClock) -> None:
    passes = Passes(KEYS, SECRET, clock=clock)
    expires, signature = passes.issue(KEYS[0]).split(".")
    assert not passes.accept(f"{int(expires) + 1}.{signature}")


# Other origins, other hosts


@pytest.mark.parametrize("origin", ["https://attacker.example", "http://127.0.0.1:9", "null", "http://localhost:8000"])
def test_a_page_of_another_origin_is_refused(member: TestClient, origin: str) -> None:
    headers = {"origin": origin}
    for answer in (
        member.get("/ui/alive", headers=headers),
        member.post("/ui/gradio_api/queue/join", json={}, headers=headers),
        log_in(member, origin=origin),
    ):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example"])
def test_without_keys_a_name_that_was_bent_to_this_machine_is_refused(
    make_visitor: Callable[..., TestClient], host: str
) -> None:
    assert make_visitor().get("/ui/", headers={"host": host}).status_code == 403


def test_the_page_may_load_and_call_nothing_but_this_server(member: TestClient) -> None:
    headers = member.get("/ui/").headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "http" not in policy and "*" not in policy
    assert "frame-ancestors 'none'" in policy and headers["x-frame-options"] == "DENY"


# Paths


@pytest.mark.parametrize("path", [
    "/ui/gradio_api/upload", "/ui/gradio_api/file=/etc/passwd", "/ui/gradio_api/proxy=http://127.0.0.1/",
    "/ui/gradio_api/stream/x/y/1/playlist.m3u8", "/ui/monitoring", "/ui/gradio_api/vibe-code", "/ui/gradio_api/runs",
    "/ui/gradio_api/component_server", "/ui/gradio_api/dev/reload", "/ui/x", "/ui/login", "/ui/logout",
])  # fmt: skip
def test_what_the_page_does_not_need_is_not_there(make_visitor: Callable[..., TestClient], path: str) -> None:
    client = make_visitor()
    for method in ("GET", "POST"):
        answer = client.request(method, path)
        assert answer.status_code == 404 and answer.json().keys() == {"error"}


def test_without_the_last_slash_one_is_led_to_the_page(make_visitor: Callable[..., TestClient]) -> None:
    answer = make_visitor().get("/ui")
    assert (answer.status_code, answer.headers["location"]) == (307, "ui/")


def test_a_video_is_played_in_parts(make_visitor: Callable[..., TestClient], shared_stage: Stage) -> None:
    job = shared_stage.succeeded()
    answer = make_visitor().get(f"/ui/video/{job.job_id}.mp4", headers={"range": "bytes=0-9"})
    assert (answer.status_code, len(answer.content), answer.headers["content-type"]) == (206, 10, "video/mp4")


@pytest.mark.usefixtures("starts_process")
def test_a_poster_is_a_small_picture(make_visitor: Callable[..., TestClient], shared_stage: Stage) -> None:
    answer = make_visitor().get(f"/ui/poster/{shared_stage.succeeded().job_id}.jpg")
    assert answer.content.startswith(b"\xff\xd8") and len(answer.content) < 50_000


def test_a_preview_is_whole_though_the_worker_replaces_it(
    make_visitor: Callable[..., TestClient], shared_stage: Stage
) -> None:
    job = shared_stage.running()
    path = shared_stage.folder.video(job).with_name(f"{job.job_id}.mp4.preview.png")
    pictures = [bytes([number]) * 1000 * (number + 1) for number in range(10)]
    ended = threading.Event()

    def replace_it() -> None:
        while not ended.is_set():
            for picture in pictures:
                path.with_suffix(".partial").write_bytes(picture)
                path.with_suffix(".partial").replace(path)

    worker = threading.Thread(target=replace_it)
    worker.start()
    try:
        client = make_visitor()
        while not path.exists():
            continue
        answers = [client.get(f"/ui/preview/{job.job_id}.png") for _ in range(30)]
    finally:
        ended.set()
        worker.join()
    assert all(answer.content in pictures for answer in answers)
    assert all(int(answer.headers["content-length"]) == len(answer.content) for answer in answers)


@pytest.mark.parametrize("kind", ["poster/{}.jpg", "video/{}.mp4", "preview/{}.png"])
def test_what_is_not_there_is_not_found(
    make_visitor: Callable[..., TestClient], shared_stage: Stage, kind: str
) -> None:
    client = make_visitor()
    for job_id in ("none", shared_stage.queued().job_id):
        answer = client.get(f"/ui/{kind.format(job_id)}")
        assert answer.status_code == 404 and job_id in answer.json()["error"]


@pytest.mark.parametrize(
    ("public_url", "host", "root"),
    [
        (None, "127.0.0.1:8000", "http://127.0.0.1:8000/ui"),
        (None, "localhost:8000", "http://localhost:8000/ui"),
        ("https://video.example.org", "video.example.org", "https://video.example.org/ui"),
        ("https://example.org/films", "127.0.0.1:8000", "https://example.org/films/ui"),
    ],
)
def test_the_page_knows_its_address(
    make_visitor: Callable[..., TestClient], public_url: str | None, host: str, root: str
) -> None:
    answer = make_visitor(public_url=public_url).get("/ui/", headers={"host": host})
    assert answer.status_code == 200
    assert f'"root":"{root}"' in re.sub(r"\s", "", answer.text)


# Server shutdown


def test_open_streams_end_when_the_server_is_to() -> None:
    stopping = threading.Event()
    heard = []

    async def stream(scope: dict, receive: Callable, send: Callable) -> None:
        heard.append(await receive())

    async def forever() -> dict:
        await asyncio.sleep(60)
        return {}

    async def visit() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/ui/gradio_api/heartbeat/x",
            "headers": [],
            "query_string": b"",
        }
        visiting = asyncio.ensure_future(Door(stream, None, None, stopping)(scope, forever, None))
        await asyncio.sleep(0)
        stopping.set()
        await asyncio.wait_for(visiting, 10)

    asyncio.run(visit())
    assert heard == [{"type": "http.disconnect"}]


@pytest.mark.parametrize("name", ["sleep_when_free", "progress_update_sleep_when_free"])
def test_the_queue_of_a_page_has_a_pause(make_visitor: Callable[..., TestClient], name: str) -> None:
    """Undocumented members of Gradio; here, because its import takes seconds (see ``test_private_members.py``)."""
    import gradio

    with gradio.Blocks(analytics_enabled=False) as page:
        pass
    assert isinstance(getattr(page._queue, name), float)
