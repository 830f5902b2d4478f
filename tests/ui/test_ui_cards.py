"""Parts of the page: how they present a job, and that no visitor's text becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from server_stage import CLIP, REQUEST, TIMINGS, Stage

from hunyuan_local.jobs.job import Job
from hunyuan_local.schema import Progress
from hunyuan_local.ui import cards
from hunyuan_local.ui.actions import Studio
from hunyuan_local.ui.plan_summary import Outlook
from hunyuan_local.ui.snippets import Snippet

EVIL = "<img src=x onerror=\"alert('1')\">'&\"</textarea><script>alert(2)</script>"
VERDICT = {
    "flagged": True, "score": 0.934, "label": "nsfw", "frame": 12, "threshold": 0.5, "frames": 8, "model": "m",
}  # fmt: skip


class Tags(HTMLParser):
    """Counts elements, and collects the visible text."""

    def __init__(self, html: str):
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.append(tag)
        if tag not in ("img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def finish(stage: Stage, prompt: str = "a fox", **more: object) -> Job:
    stage.store.enqueue(REQUEST.replace(prompt=prompt), "assets/tiny", {"dialect": "openai", "base_url": ""})
    job = stage.running()
    stage.folder.video(job).write_bytes(CLIP)
    request = job.request.model_dump(mode="json") | more.pop("request", {})
    stage.store.succeed(job, {"seed": 7, "request": request, "timings": TIMINGS, **more})
    return stage.store.get(job.job_id)


def shown(studio: Studio, job: Job) -> Tags:
    return Tags(cards.stage(studio.show(job.job_id)))


def test_a_prompt_is_data_in_every_card(studio: Studio, stage: Stage) -> None:
    job = finish(stage, EVIL, request={"original_prompt": f"{EVIL}!", "rewrite": "normal", "negative_prompt": EVIL})
    page = Tags(
        cards.stage(studio.show(job.job_id))
        + cards.gallery([job], 0, False, None, job.created_at)
        + cards.snippets([Snippet(EVIL, EVIL, (EVIL,))])
        + cards.problems([EVIL])
        + cards.impossible([EVIL])
        + cards.outlook(Outlook("fits", (EVIL,), (EVIL,)))
        + cards.notes(Outlook("fits", (EVIL,), (EVIL,)))
    )
    assert page.open == []
    assert "script" not in page.seen and page.seen.count("img") == 1
    assert page.text.count(EVIL) >= 9


def test_a_prompt_that_was_left_as_it_is_does_not_stand_there_twice(studio: Studio, stage: Stage) -> None:
    page = shown(studio, finish(stage, "a fox", request={"original_prompt": "a fox", "rewrite": "normal"}))
    assert "Rewriting left the prompt unchanged" in page.text and "Rewritten from" not in page.text


def test_a_finished_job_has_its_video_and_its_download(studio: Studio, stage: Stage) -> None:
    html = cards.stage(studio.show(finish(stage, "A Fox, running!").job_id))
    assert re.search(r'<video controls loop muted playsinline [^>]*src="video/[-0-9a-f]+\.mp4"', html)
    assert 'download="a-fox-running-7.mp4"' in html


def test_a_finished_job_says_seed_and_settings(studio: Studio, stage: Stage) -> None:
    text = shown(studio, finish(stage)).text
    assert all(part in text for part in ("Seed7", "Steps10", "Size64 x 48", "Frames5 at 24 fps", "Modeltiny"))


def test_a_rewritten_prompt_stands_next_to_the_original(studio: Studio, stage: Stage) -> None:
    text = shown(
        studio, finish(stage, request={"prompt": "a red fox", "original_prompt": "fox", "rewrite": "master"})
    ).text
    assert "a red fox" in text and "Rewritten from: fox" in text


def test_a_running_job_says_step_and_percent_and_can_be_cancelled(studio: Studio, stage: Stage) -> None:
    job = stage.running(Progress(stage="denoise", step=5, total=10, seconds_left=12.0))
    html = cards.stage(studio.show(job.job_id))
    assert "Step 5 of 10." in html and 'aria-valuenow="48"' in html
    assert f'data-act="cancel" data-job="{job.job_id}">' in html


def test_a_running_job_says_what_is_left(studio: Studio, stage: Stage) -> None:
    job = stage.running(Progress(stage="denoise", step=5, total=10, seconds_left=12.0))
    assert re.search(r"About 1[12] s left\.", shown(studio, job).text)


def test_a_job_that_is_being_cancelled_says_so(studio: Studio, stage: Stage) -> None:
    job = stage.running(Progress(stage="denoise", step=5, total=10))
    studio.cancel(job.job_id)
    html = cards.stage(studio.show(job.job_id))
    assert "Cancelling after the current step" in html and "disabled" in html


def test_a_screen_reader_is_not_reported_of_every_step(studio: Studio, stage: Stage) -> None:
    job = stage.running()
    said = set()
    for step in range(1, 11):
        stage.store.beat(job, 30, Progress(stage="denoise", step=step, total=10))
        said.add(re.search(r'role="status">([^<]*)<', cards.stage(studio.show(job.job_id)))[1])
    assert said == {"Running.", "Running, 25 percent done.", "Running, 50 percent done.", "Running, 75 percent done."}


def test_a_waiting_job_says_how_many_come_first(studio: Studio, stage: Stage) -> None:
    stage.queued()
    assert "behind 1 other" in cards._place(studio.show(stage.queued().job_id))


def test_a_failed_job_says_why(studio: Studio, stage: Stage) -> None:
    html = cards.stage(studio.show(stage.failed("no memory").job_id))
    assert 'role="alert"><p>no memory.</p>' in html and "<video" not in html


def test_a_withheld_video_says_so_and_why(studio: Studio, stage: Stage) -> None:
    job = stage.running()
    stage.store.fail(job, "m found nsfw 0.93 at frame 12; the file is withheld", "moderation")
    text = shown(studio, job).text
    assert "Withheld" in text and "the file is withheld." in text


@pytest.mark.parametrize(
    ("flagged", "words"), [(True, "flagged: nsfw 0.93 at frame 12"), (False, "not flagged: at most")]
)
def test_a_verdict_of_the_safety_check_is_reported(studio: Studio, stage: Stage, flagged: bool, words: str) -> None:
    assert words in shown(studio, finish(stage, safety=VERDICT | {"flagged": flagged})).text


def test_an_unchecked_video_has_no_verdict(studio: Studio, stage: Stage) -> None:
    assert "Safety" not in shown(studio, finish(stage)).text


def test_buttons_of_a_state_are_not_those_of_the_next_in_the_same_place(studio: Studio, stage: Stage) -> None:
    """The page merges updates element by element: a button must not change while it is pressed."""
    job = stage.running()
    running = cards.stage(studio.show(job.job_id))
    finished = cards.stage(studio.show(stage.finish(job).job_id))
    assert '<div class="hl-actions">' in running and '<menu class="hl-actions">' in finished


def test_the_gallery_says_which_job_is_shown(stage: Stage) -> None:
    job, other = stage.queued(), stage.queued()
    html = cards.gallery([job, other], 0, False, job.job_id, job.created_at + 120)
    assert html.count('aria-current="true"') == 1 and "2 minutes ago" in html


def test_an_empty_gallery_says_so() -> None:
    assert "No videos yet" in cards.gallery([], 0, False, None, 0.0)


@pytest.mark.parametrize("prompt", ["../../etc/passwd", "", "日本", "a" * 500])
def test_a_download_has_a_harmless_name(prompt: str) -> None:
    name = cards.file_name(REQUEST.replace(prompt=prompt or "!"))
    assert re.fullmatch(r"[a-z0-9-]{1,70}-7\.mp4|video-7\.mp4", name)
