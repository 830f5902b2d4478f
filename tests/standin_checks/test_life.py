"""The life of a task at the stand-in, and the stand-in's records."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import httpx
import imageio_ffmpeg
import pytest
import standin as standin_package
from standin import StandIn, sample_video
from standin_calls import (
    BODIES,
    SERVICES,
    WORDS,
    bearer,
    finished_url,
    poll,
    status_of,
    submit,
)


@pytest.mark.parametrize(("polls", "words"), [(0, [2]), (1, [1, 2]), (2, [0, 1, 2]), (3, [0, 1, 1, 2])])
@pytest.mark.parametrize("service", SERVICES)
def test_polls_bring_a_task_forward(http: httpx.Client, service: str, polls: int, words: list[int]) -> None:
    with StandIn(b"", polls_until_done=polls) as standin:
        submit(http, standin, service)
        seen = [status_of(poll(http, standin, service)) for _ in words]
    assert seen == [WORDS[service][word] for word in words]


def test_a_task_is_not_done_before_its_time(http: httpx.Client) -> None:
    with StandIn(b"", polls_until_done=0, task_s=3600) as standin:
        submit(http, standin, "wavespeed")
        assert {status_of(poll(http, standin, "wavespeed")) for _ in range(5)} == {"processing"}


def test_a_task_is_done_after_its_time(http: httpx.Client) -> None:
    with StandIn(b"", polls_until_done=0, task_s=0.2) as standin:
        submit(http, standin, "wavespeed")
        time.sleep(0.25)
        assert status_of(poll(http, standin, "wavespeed")) == "completed"


def test_a_submission_is_recorded_with_its_body_and_headers(standin: StandIn, http: httpx.Client) -> None:
    submit(http, standin, "novita", frames=85)
    (made,) = standin.submissions
    assert (made.service, made.body) == ("novita", BODIES["novita"] | {"frames": 85})
    assert made.headers["authorization"] == f"Bearer {standin.key}"


def test_a_refused_poll_is_recorded_too(standin: StandIn, http: httpx.Client) -> None:
    before = time.monotonic()
    poll(http, standin, "wavespeed", "no-such-task")
    assert len(standin.polls) == 1 and before <= standin.polls[0] <= time.monotonic()


def test_requests_are_recorded_with_their_query(standin: StandIn, http: httpx.Client) -> None:
    poll(http, standin, "novita", "no-such-task")
    method, path, headers = standin.requests[-1]
    assert (method, path) == ("GET", "/v3/async/task-result?task_id=no-such-task")
    assert headers["authorization"] == f"Bearer {standin.key}"


def test_a_file_is_recorded_with_the_key_that_was_needlessly_sent(standin: StandIn, http: httpx.Client) -> None:
    http.get(finished_url(http, standin), headers=bearer(standin))
    assert "authorization" in standin.requests[-1][2]


def test_a_file_needs_no_key(standin: StandIn, http: httpx.Client) -> None:
    answer = http.get(finished_url(http, standin))
    assert (answer.content, "authorization" in standin.requests[-1][2]) == (sample_video(), False)


def test_an_unknown_file_is_not_found(strict: StandIn, http: httpx.Client) -> None:
    assert http.get(f"{strict.url}/files/guess.mp4").status_code == 404


KEPT = sorted(path.stem for path in (Path(standin_package.__file__).parent / "clips").glob("*.mp4"))


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize("name", [*KEPT, "32x16x3"])  # the last one is newly generated
def test_a_sample_is_a_video_of_the_size_length_and_rate_that_it_is_taken_for(name: str) -> None:
    width, height, frames = map(int, name.split("x"))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", "-", "-f", "null", "-"]
    sample = sample_video(width, height, frames)
    said = subprocess.run(command, input=sample, capture_output=True, check=True).stderr.decode()
    assert re.search(rf"Video: h264 .* {width}x{height}[ ,].* 24 fps,", said)
    assert re.findall(r"frame= *(\d+)", said)[-1] == str(frames)


def test_the_usual_samples_are_kept() -> None:
    assert {"1280x720x5", "64x48x2"} <= set(KEPT)
