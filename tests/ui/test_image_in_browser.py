"""The image field in a real Chromium, with a real server whose model makes videos from images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import image_models
import pytest
import yaml
from image_files import CLEAR, PICTURE, POISONED
from page_server import PageServer

from hunyuan_local.images import check_image

if TYPE_CHECKING:
    from playwright.sync_api import Page

DROP = """([name, content]) => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(content)], name));
  const zone = document.querySelector('.hl-drop');
  for (const kind of ['dragover', 'drop'])
    zone.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: files}));
}"""


@pytest.fixture(scope="module")
def server(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """A real server with a small image-to-video model."""
    pytest.importorskip("gradio", reason="the extra 'ui' is not installed")
    folder = tmp_path_factory.mktemp("page")
    config = image_models.make_checkpoint(folder / "toy", "token_replace")
    (folder / "toy.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    running = PageServer(folder, "--model", str(folder / "toy.yaml"))
    running.start()
    yield running
    running.stop()


def choose(page: Page, content: bytes) -> None:
    file = {"name": "cat.png", "mimeType": "image/png", "buffer": content}
    page.locator("#hl-image input[type=file]").set_input_files(file)


def choose_model(page: Page, name: str) -> None:
    page.get_by_label("Model").click()
    page.get_by_role("option", name=name, exact=True).click()


def test_an_uploaded_image_becomes_a_video_that_plays(page: Page, server: PageServer) -> None:
    page.get_by_label("Prompt", exact=True).fill("a red circle moving right")
    for label, value in {"Steps": 2, "Frames": 5, "Seed": 3}.items():
        page.get_by_label(label).first.fill(str(value))
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("alert").get_by_text("makes videos that begin with an image; give one").wait_for()

    content, words = POISONED["truncated"]
    choose(page, content)
    page.locator("#hl-image-said").get_by_text(words).wait_for()
    choose(page, PICTURE)
    page.wait_for_function("document.querySelector('#hl-image img')?.naturalWidth === 96")
    assert page.locator("#hl-image").get_by_text("96 x 64, PNG.").is_visible()
    assert page.locator("#hl-image-said").inner_text().strip() == ""
    page.get_by_role("radio", name="pad").check()
    page.get_by_role("button", name="Generate").click()

    video = page.locator("#hl-stage video")
    video.wait_for(timeout=120_000)
    video.evaluate("video => video.play()")
    page.wait_for_function("document.querySelector('#hl-stage video').currentTime > 0.1")
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [144, 80]
    request = server.newest().request
    assert (request.image, request.image_fit) == (check_image(PICTURE), "pad")
    assert page.locator("#hl-stage").get_by_text("Fit: pad.").is_visible()


def test_another_model_hides_the_image_and_loses_nothing(page: Page) -> None:
    page.get_by_label("Prompt", exact=True).fill("a red circle")
    page.evaluate(DROP, ["cat.png", list(CLEAR)])
    page.locator("#hl-image").get_by_text("64 x 96, PNG.").wait_for()
    page.get_by_role("radio", name="stretch").check()
    choose_model(page, "tiny")
    page.locator("#hl-image").wait_for(state="hidden")
    choose_model(page, "toy-token_replace")
    page.locator("#hl-image").get_by_text("64 x 96, PNG.").wait_for()
    assert page.get_by_role("radio", name="stretch").is_checked()
    assert page.get_by_label("Prompt", exact=True).input_value() == "a red circle"
    page.reload()
    page.locator("#hl-image").get_by_text("64 x 96, PNG.").wait_for()
    page.get_by_role("button", name="Remove").click()
    page.locator("#hl-image img").wait_for(state="detached")
