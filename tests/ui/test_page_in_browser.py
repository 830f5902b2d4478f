"""The page in a real Chromium, with a real server and worker: typing, viewing, playing, cancelling.

The tests share one server, and each begins with the jobs of those before it; the last one kills the server.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from page_server import PageServer
from scribe import ANSWERS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

PROMPT = "a red circle moving right on a black background"
# Any part that is treated as markup or as a template would be run, or be missing.
EVIL = '<img src=x onerror="window.caught=1"> ${window.caught=2} {{window.caught=3}} `\\'
WATCH = """() => {
  window.percents = []; window.previews = new Set();
  const stage = document.querySelector('#hl-stage');
  const look = () => {
    const bar = stage.querySelector('[role=progressbar]');
    if (bar) window.percents.push(Number(bar.getAttribute('aria-valuenow')));
    const preview = stage.querySelector('img.hl-preview');
    if (preview && preview.naturalWidth) window.previews.add(preview.src);
  };
  new MutationObserver(look).observe(stage, {subtree: true, childList: true, attributes: true});
}"""
# The contrast of each visible text with its background, by WCAG 2.2; the lowest ones.
CONTRAST = """() => {
  const numbers = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll('.gradio-container *')) {
    const text = [...element.childNodes].filter((n) => n.nodeType === 3 && n.textContent.trim()).length;
    if (!text || element.disabled || !element.checkVisibility({opacityProperty: true})) continue;
    if (element.closest('.hl-unseen')) continue;
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(1)}: ${element.textContent.trim().slice(0, 40)}`);
  }
  return found;
}"""


def ask_for(page: Page, prompt: str = PROMPT, **fields: object) -> None:
    """Fill the form, with a size that is encoded quickly."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    write_size(page, "512x320")
    for label, value in fields.items():
        page.get_by_label(label).first.fill(str(value))  # the second match for "Frames" is "Frames per second"


def write_size(page: Page, size: str) -> None:
    field = page.get_by_label("Size")
    field.fill(size)
    field.press("Tab")


def open_settings(page: Page) -> None:
    if not page.get_by_role("radio", name="normal").is_visible():
        page.get_by_role("button", name="More settings").click()


def ask_to_rewrite(page: Page, mode: str) -> None:
    open_settings(page)
    page.get_by_role("radio", name=mode).check()


def generate(page: Page) -> None:
    page.get_by_role("button", name="Generate").click()


def outlook(page: Page, text: str) -> Locator:
    return page.locator("#hl-outlook").get_by_text(text)


def badge(page: Page, word: str) -> Locator:
    return page.locator("#hl-stage .hl-badge", has_text=word)


@pytest.fixture(scope="module")
def made(visitor: BrowserContext, server: PageServer) -> str:
    """The id of a job with a finished video."""
    succeeded = server.store.find(statuses=["succeeded"], limit=1)
    assert succeeded, "the first test of this module makes one; run them together"
    return succeeded[0].job_id


def test_a_typed_prompt_becomes_a_video_that_plays(
    page: Page, visitor: BrowserContext, server: PageServer, tmp_path: Path
) -> None:
    page.evaluate(WATCH)
    ask_for(page, Steps=60, Frames=17, Seed=7)
    generate(page)
    video = page.locator("#hl-stage video")
    video.wait_for()

    percents = page.evaluate("window.percents")
    assert len(set(percents)) > 2 and percents == sorted(percents)
    assert page.evaluate("window.previews.size") > 0
    assert badge(page, "Done").is_visible()
    assert page.locator("#hl-stage dl").get_by_text("7", exact=True).is_visible()

    video.evaluate("video => video.play()")
    page.wait_for_function("document.querySelector('#hl-stage video').currentTime > 0.2")
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [512, 320]

    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "a-red-circle-moving-right-on-a-black-background-7.mp4"
    download.value.save_as(tmp_path / "got.mp4")
    assert (tmp_path / "got.mp4").read_bytes() == server.video_of(server.newest()).read_bytes()
    assert visitor.strangers == []


def test_what_the_safety_check_has_found_stands_among_the_settings(kept_page: Page, made: str) -> None:
    kept_page.get_by_role("tab", name="Past videos").click()
    kept_page.locator(f"#hl-past [data-job='{made}']").click()
    row = kept_page.locator("#hl-stage dl div", has_text=re.compile("^Safety check"))
    row.wait_for()  # the text of a hidden one has no lines
    assert re.match(r"flagged: red (0\.9\d|1\.00) at frame \d+", row.inner_text().split("\n")[-1])


def test_the_outlook_changes_with_the_form_before_anything_runs(kept_page: Page, server: PageServer, made: str) -> None:
    before = len(server.store.find())
    kept_page.get_by_label("Frames").fill("121")
    outlook(kept_page, "10 s of video").wait_for()
    write_size(kept_page, "960x544")
    kept_page.locator("#hl-notes").get_by_text("the encoder scales up to 960x544").wait_for()
    assert outlook(kept_page, "Fits on the CPU").is_visible()
    assert len(server.store.find()) == before


@pytest.mark.parametrize(
    ("label", "value", "sentence"),
    [
        ("Size", "1281x720", "Width 1281 must be a multiple of 16; the nearest are 1280 and 1296."),
        ("Steps", "ten", "Steps ten must be an integer; leave empty for the default."),
    ],
)
def test_a_wrong_value_is_reported_in_a_sentence_and_makes_nothing(
    kept_page: Page, server: PageServer, made: str, label: str, value: str, sentence: str
) -> None:
    before = len(server.store.find())
    ask_for(kept_page)
    write_size(kept_page, value) if label == "Size" else kept_page.get_by_label(label).fill(value)
    outlook(kept_page, sentence).wait_for()
    generate(kept_page)
    kept_page.get_by_role("alert").get_by_text(sentence).wait_for()
    assert len(server.store.find()) == before


def test_the_form_stands_there_as_code(kept_page: Page, server: PageServer, made: str) -> None:
    kept_page.get_by_role("tab", name="As code").click()
    ask_for(kept_page, "it's a fox", Seed=11, Steps="", Frames="")
    code = kept_page.locator("#hl-as-code")
    code.locator("pre", has_text="GenerationRequest").get_by_text("seed=11").wait_for()
    titles = code.get_by_role("heading").all_inner_texts()
    assert {"curl, WaveSpeed's format", "curl, Novita's format", "Python", "Command line"} <= set(titles)
    first = code.locator("pre").first.inner_text()
    assert server.url in first and "$API_KEY" in first and "it'\"'\"'s a fox" in first
    assert code.get_by_text("size='512x320' is changed to 1280x720").first.is_visible()


def test_a_prompt_is_rewritten_and_stands_there_with_the_one_that_was_typed(
    kept_page: Page, server: PageServer, made: str
) -> None:
    ask_for(kept_page, Steps=8, Frames=5)
    ask_to_rewrite(kept_page, "master")
    generate(kept_page)
    kept_page.locator("#hl-stage blockquote").get_by_text(f"Rewritten from: {PROMPT}").wait_for()
    badge(kept_page, "Done").wait_for()
    assert kept_page.locator("#hl-stage blockquote p").first.inner_text() == ANSWERS["master", PROMPT]


def test_a_prompt_that_the_language_model_declines_says_so_and_makes_nothing(
    kept_page: Page, server: PageServer, made: str
) -> None:
    ask_for(kept_page, "a blue square", Steps=8, Frames=5)
    ask_to_rewrite(kept_page, "normal")
    generate(kept_page)
    badge(kept_page, "Failed").wait_for()
    assert kept_page.locator("#hl-stage").get_by_text("declined").is_visible()


def test_on_a_phone_nothing_is_wider_than_the_screen(kept_page: Page, made: str) -> None:
    kept_page.set_viewport_size({"width": 390, "height": 844})
    open_settings(kept_page)
    for tab in ("As code", "Past videos", "Video"):
        kept_page.get_by_role("tab", name=tab, exact=True).click()
        kept_page.wait_for_function("document.documentElement.scrollWidth <= 390")
        wide = "[...document.querySelectorAll('.gradio-container *')].filter((e) => e.checkVisibility() && "
        wide += "!e.closest('.hl-unseen, pre, ul[role=listbox]') && e.getBoundingClientRect().right > 391).length"
        assert kept_page.evaluate(wide) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_background(kept_page: Page, made: str, scheme: str) -> None:
    kept_page.set_viewport_size({"width": 1280, "height": 900})
    kept_page.emulate_media(color_scheme=scheme)
    kept_page.reload()
    kept_page.locator("#hl-outlook p").first.wait_for()
    open_settings(kept_page)
    faint = kept_page.evaluate(CONTRAST)
    for tab in ("Past videos", "As code"):
        kept_page.get_by_role("tab", name=tab).click()
        faint += kept_page.evaluate(CONTRAST)
    assert kept_page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    assert faint == []


def test_another_video_is_cancelled_while_it_runs(page: Page, server: PageServer, made: str) -> None:
    ask_for(page, EVIL, Steps=100, Frames=129)
    generate(page)
    page.locator("#hl-progress-text", has_text="Step").wait_for()
    assert page.locator("#hl-stage blockquote").inner_text() == EVIL
    page.get_by_role("button", name="Cancel").click()
    badge(page, "Cancelled").wait_for()
    job = server.newest()
    assert job.status == "canceled" and job.progress.stage == "denoise" and job.progress.step < 100
    assert page.evaluate("window.caught") is None


def test_a_reload_keeps_the_form_and_the_job(page: Page, made: str) -> None:
    kept = page.evaluate("localStorage.getItem('hunyuan-local-form')")
    page.get_by_label("Prompt", exact=True).fill("half a sentence")
    page.wait_for_function("kept => localStorage.getItem('hunyuan-local-form') !== kept", arg=kept)
    page.reload()
    page.wait_for_function("document.querySelector('#hl-prompt textarea')?.value === 'half a sentence'")
    badge(page, "Cancelled").wait_for()


def test_an_old_video_is_opened_and_its_settings_are_used_again(page: Page, server: PageServer, made: str) -> None:
    page.get_by_role("tab", name="Past videos").click()
    page.locator(f"[data-job='{made}']").click()
    page.locator(f"#hl-stage video[src='video/{made}.mp4']").wait_for()
    page.get_by_role("button", name="Reuse settings").click()
    page.wait_for_function("document.querySelector('#hl-prompt textarea').value !== ''")
    assert page.get_by_label("Prompt", exact=True).input_value() == PROMPT
    values = {
        label: page.get_by_label(label).input_value() for label in ("Size", "Frames", "Steps", "Seed", "Flow shift")
    }
    assert values == {"Size": "512x320", "Frames": "17", "Steps": "60", "Seed": "7", "Flow shift": "3"}


def test_everything_can_be_done_with_the_keyboard(page: Page, server: PageServer, made: str) -> None:
    def go_to(what: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("what => document.activeElement.matches(what)", what):
                break
        else:
            pytest.fail(f"the Tab key never comes to {what}")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", what

    page.get_by_label("Steps").fill("2")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Control+Home")
    go_to("#hl-prompt textarea")
    page.keyboard.type("a white square moving up")
    go_to("#hl-make")
    page.keyboard.press("Enter")
    badge(page, "Done").or_(page.get_by_role("button", name="Cancel")).first.wait_for()
    assert server.newest().request.prompt == "a white square moving up"
    go_to("[role=tab][aria-selected=false]")
    page.keyboard.press("Enter")
    go_to(f"#hl-past [data-job='{made}']")
    page.keyboard.press("Enter")
    page.locator(f"#hl-stage video[src='video/{made}.mp4']").wait_for()


def test_a_pass_that_has_ended_leads_back_to_the_form_for_the_key(
    browser: Browser, visitor: BrowserContext, server: PageServer, made: str
) -> None:
    context = browser.new_context(storage_state=visitor.storage_state())
    page = context.new_page()
    page.goto(server.page_url)
    page.get_by_role("button", name="Generate").wait_for()
    context.clear_cookies()
    page.get_by_label("API key of this server").wait_for()
    context.close()


def test_the_page_comes_back_with_a_server_that_was_killed_in_mid_job(
    page: Page, server: PageServer, made: str
) -> None:
    ask_for(page, "a blue square moving left on a grey background", Steps=60, Frames=17, Seed=5)
    generate(page)
    page.locator("#hl-progress-text", has_text="Step").wait_for()
    job_id = server.newest().job_id
    server.kill()
    page.get_by_text("The server does not respond").wait_for()
    server.start(wait_for_worker=False)
    page.locator(f"#hl-stage video[src='video/{job_id}.mp4']").wait_for(timeout=200_000)
    job = server.store.get(job_id)
    assert (job.status, job.result["seed"]) == ("succeeded", 5)
    assert page.get_by_label("Prompt", exact=True).input_value() == job.request.prompt
