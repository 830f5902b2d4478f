"""Calls from another origin in a real browser: everything that an app does, and nothing unless allowed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from server_stage import CLIP, MODEL, Stage
from server_thread import ServerThread

from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.server.app import create_app
from hunyuan_local.server.config import ServerConfig

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

KEY = "a-key"
# What an app does: a submission, its state, a second poll, a part of the file, an error, and a deletion.
_APP = """async ([url, key, job]) => {
    const headers = {Authorization: `Bearer ${key}`}
    const form = new FormData()
    form.set("prompt", "a fox")
    form.set("seed", "")
    form.set("input_reference", new File([], ""))
    const made = await fetch(`${url}/v1/videos`, {method: "POST", body: form, headers})
    const id = (await made.json()).id
    const state = await fetch(`${url}/v1/videos/${job}`, {headers})
    const etag = state.headers.get("etag")
    const known = {headers: {...headers, "If-None-Match": etag}, cache: "no-store"}
    const again = await fetch(`${url}/v1/videos/${job}`, known)
    const content = `${url}/v1/videos/${job}/content`
    const part = await fetch(content, {headers: {...headers, Range: "bytes=2-5"}})
    const head = await fetch(content, {method: "HEAD", headers})
    const missing = await fetch(`${url}/v1/videos/none`, {headers})
    const deleted = await fetch(`${url}/v1/videos/${id}`, {method: "DELETE", headers})
    return {
        made: made.status, pause: state.headers.get("openai-poll-after-ms"), etag: etag, again: again.status,
        part: [...new Uint8Array(await part.arrayBuffer())], range: part.headers.get("content-range"),
        length: head.headers.get("content-length"), missing: (await missing.json()).error.message,
        deleted: (await deleted.json()).deleted,
    }
}"""
_CALL = """([url, key]) => fetch(`${url}/v1/models`, {headers: {Authorization: `Bearer ${key}`}})
    .then(answer => answer.status, error => `${error}`)"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    folder = DataFolder(tmp_path_factory.mktemp("origin") / "data")
    return Stage(folder, folder.store())


@pytest.fixture(scope="module")
def app_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a page on another server."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "index.html").write_text("<!doctype html><title>an app</title>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def page(browser: Browser, app_url: str) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(app_url)
    yield page
    page.close()


def serve(stage: Stage, *origins: str) -> ServerThread:
    config = ServerConfig(model=MODEL, min_free_bytes=0, api_keys=(KEY,), allow_origins=origins)
    return ServerThread(uvicorn.Config(create_app(config, stage.folder, stage.store), log_config=None))


def test_an_app_of_a_named_origin_does_all_it_needs(stage: Stage, page: Page, app_url: str, tmp_path: Path) -> None:
    job = stage.succeeded()
    server = serve(stage, app_url)
    found = page.evaluate(_APP, [server.url, KEY, job.job_id])
    server.close()
    assert (found["made"], found["again"], found["deleted"], found["pause"]) == (200, 304, True, "1000")
    assert (bytes(found["part"]), found["range"]) == (CLIP[2:6], f"bytes 2-5/{len(CLIP)}")
    assert int(found["length"]) == len(CLIP)
    assert found["missing"].startswith("there is no job 'none'")


@pytest.mark.parametrize(("origins", "status"), [(("*",), 200), ((), None), (("https://app.example",), None)])
def test_a_page_calls_only_where_it_may(stage: Stage, page: Page, origins: tuple[str, ...], status: int | None) -> None:
    server = serve(stage, *origins)
    found = page.evaluate(_CALL, [server.url, KEY])
    server.close()
    assert found == (status or "TypeError: Failed to fetch")
