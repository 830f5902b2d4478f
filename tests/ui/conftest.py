"""Fixtures for the page: a studio over a real store, its app, a real server with a worker, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from page_server import KEY, PageServer
from server_stage import MODEL, Stage

from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.server.app import create_app
from hunyuan_local.server.config import ServerConfig
from hunyuan_local.server.service import VideoService
from hunyuan_local.ui.actions import Studio

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

# Nothing of the browser's own goes out to the network.
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def make_studio(stage: Stage) -> Callable[..., Studio]:
    """Makes a studio; keyword arguments are the server's configuration."""

    def make(**config: object) -> Studio:
        given = {"model": MODEL, "min_free_bytes": 0} | config
        return Studio(VideoService(ServerConfig(**given), stage.folder, stage.store, "whsec_secret"))

    return make


@pytest.fixture
def studio(make_studio: Callable[..., Studio]) -> Studio:
    return make_studio(models=("hunyuan-video",))


@pytest.fixture(scope="session")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The jobs of all that :func:`make_visitor` makes: to build a page takes half a second."""
    folder = DataFolder(tmp_path_factory.mktemp("shared") / "data")
    return Stage(folder, folder.store())


@pytest.fixture(scope="session")
def make_visitor(shared_stage: Stage, one_loop: None) -> Callable[..., TestClient]:
    """Makes a new client of an app with the page; keyword arguments are the server's configuration."""
    pytest.importorskip("gradio", reason="the extra 'ui' is not installed")
    from hunyuan_local.ui.mount import install

    @cache
    def make_app(**config: object) -> FastAPI:
        given = {"model": MODEL, "min_free_bytes": 0} | config
        app = create_app(ServerConfig(**given), shared_stage.folder, shared_stage.store, "whsec_secret")
        install(app)
        return app

    def make(**config: object) -> TestClient:
        return TestClient(make_app(**config), base_url="http://127.0.0.1:8000", follow_redirects=False)

    return make


@pytest.fixture(scope="module")
def server(
    starts_process: None, tmp_path_factory: pytest.TempPathFactory, scribe: Path, classifier: Path
) -> Iterator[PageServer]:
    """A real server with keys, its page and one worker, which can rewrite prompts and looks for red in the videos."""
    pytest.importorskip("gradio", reason="the extra 'ui' is not installed")
    running = PageServer(
        tmp_path_factory.mktemp("page"), "--rewrite-model", str(scribe),
        "--safety", "flag", "--safety-model", str(classifier), "--safety-label", "red",
    )  # fmt: skip
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser(starts_process: None) -> Iterator[Browser]:
    """A real Chromium; the tests are skipped where there is none.

    It ends with its module: Playwright keeps an event loop running in this thread, in which others could start none.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium on the PATH (Debian, Ubuntu: sudo apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def visitor(browser: Browser, server: PageServer) -> Iterator[BrowserContext]:
    """A visitor who has shown the key; ``strangers`` on it are the addresses off this machine that were asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    context.strangers = []
    context.on("request", lambda request: _note(context.strangers, request.url))
    page = context.new_page()
    page.goto(server.page_url)
    page.get_by_label("API key of this server").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Generate").wait_for()
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(visitor: BrowserContext, server: PageServer) -> Iterator[Page]:
    """The page, as a visitor finds it who has typed nothing yet."""
    opened = _open(visitor, server)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def kept_page(visitor: BrowserContext, server: PageServer) -> Iterator[Page]:
    """The page, for tests that do not mind what those before have typed: to load it takes seconds."""
    opened = _open(visitor, server)
    yield opened
    opened.close()


def _open(visitor: BrowserContext, server: PageServer) -> Page:
    opened = visitor.new_page()
    opened.add_init_script(
        "if (!sessionStorage.length) { localStorage.clear(); sessionStorage.setItem('begun', '1'); }"
    )
    opened.goto(server.page_url)
    opened.locator("#hl-outlook .hl-outlook").wait_for()
    return opened


def _note(strangers: list[str], url: str) -> None:
    if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        strangers.append(url)
