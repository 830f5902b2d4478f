"""The ``batch`` command: the file is checked first, one summary, exit codes; also with a hosted service."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import run_here
from standin import StandIn, sample_video

from hunyuan_local.backends.local import profile_choice
from hunyuan_local.batch import report
from hunyuan_local.cli.commands import batch as command
from hunyuan_local.config import GIB
from hunyuan_local.planner import machine

SMALL = ["--size", "144x80", "--num-frames", "5", "--num-inference-steps", "2", "--min-free-gib", "0.1"]
LOCAL = ["--model", "tiny", "--profile", "cpu", *SMALL]
Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in an empty folder, with a text as standard input."""

    def run(*arguments: str, text: str = "", **variables: str) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return run_here("batch", *arguments, cwd=tmp_path, **variables)

    return run


@dataclass(frozen=True)
class Made:
    """A batch of two videos and a bad line, stopped by Ctrl-C after the first video; then the same command again."""

    first: subprocess.CompletedProcess
    videos: list[str]  # names after the first command
    again: subprocess.CompletedProcess
    out: Path


@pytest.fixture(scope="module")
def made(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The worker is a separate process; its second video takes much longer than the time until Ctrl-C."""
    folder = tmp_path_factory.mktemp("made")
    text = '{"prompt": "a red circle moves right", "num_inference_steps": 100}\n{"promt": "x"}\n'
    arguments = ["-", "-o", "out", "--report", "out/report.html", "--skip-invalid", "--seeds", "1,2", "--json", *LOCAL]

    def run() -> subprocess.CompletedProcess:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return run_here("batch", *arguments, "--size", "96x64", cwd=folder)

    def press() -> None:
        deadline = time.monotonic() + 200
        while not ended.is_set() and time.monotonic() < deadline:
            if list((folder / "out").glob("*.mp4")):
                os.kill(os.getpid(), signal.SIGINT)
                break
            time.sleep(0.02)

    ended, presser = threading.Event(), threading.Thread(target=press)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    try:
        with pytest.MonkeyPatch.context() as patch:
            presser.start()
            first = run()
            ended.set()
            presser.join()
            videos = sorted(path.name for path in (folder / "out").glob("*.mp4"))
            yield Made(first, videos, run(), folder / "out")
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_what_was_made(made: Made) -> None:
    assert (made.first.returncode, len(made.videos)) == (130, 1)
    assert "the same command resumes the batch" in made.first.stderr and "videos   2" in made.first.stderr


def test_the_same_command_continues(made: Made) -> None:
    summary = json.loads(made.again.stdout.splitlines()[-1])
    assert (summary["made"], summary["done"], set(made.videos) < {path.name for path in made.out.iterdir()}) == (
        1, 2, True,
    )  # fmt: skip


def test_each_seed_becomes_a_video(made: Made) -> None:
    names = [path.name.rpartition("-")[0] for path in sorted(made.out.glob("*.mp4"))]
    assert names == ["0001-a-red-circle-moves-right-1", "0001-a-red-circle-moves-right-2"]


def test_all_made_is_exit_code_0(made: Made) -> None:
    assert made.again.returncode == 0


def test_bad_lines_can_be_skipped(made: Made) -> None:
    assert "line 2: " in made.again.stderr and "note: skipping 1 bad line" in made.again.stderr


def test_the_last_line_of_stdout_is_the_summary(made: Made) -> None:
    summary = json.loads(made.again.stdout.splitlines()[-1])
    assert (summary["videos"], summary["done"], summary["failed"], len(summary["items"])) == (2, 2, 0, 2)


def test_the_page_shows_each_video(made: Made) -> None:
    page = (made.out / "report.html").read_text()
    assert all(path.name in page for path in made.out.glob("*.mp4"))


def test_the_terminal_says_what_was_made(made: Made) -> None:
    assert "2 videos in out, 2 to generate" in made.first.stderr
    assert "done     2, 1 in this run" in made.again.stderr


BAD = '{"prompt": "a cat"}\n{"prompt": "a dog", "width": 100}\n{"promt": "x"}\n'


def test_every_bad_line_is_listed_with_its_number(batch: Command) -> None:
    done = batch("-", "-o", "out", *LOCAL, text=BAD)
    assert "line 2: width=100: must be a multiple of 16" in done.stderr and "line 3: " in done.stderr


def test_with_a_bad_line_nothing_is_begun(batch: Command, tmp_path: Path) -> None:
    done = batch("-", "-o", "out", *LOCAL, text=BAD)
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nosuch.txt", "-o", "out"), "file not found"),
        (("-", "-o", "out", "--max-cost", "5"), "--max-cost: not an option of the backend local"),
        (("-", "-o", "out", "--allow-loss"), "--allow-loss: not an option of the backend local"),
        (("-", "-o", "out", "--backend", "wavespeed", "--workers", "2"), "--workers: not an option of the backend"),
        (("-", "-o", "out", "--seeds", "1,x"), "comma-separated integers"),
        (("-", "-o", "out", "--report", "no/report.html"), "does not exist"),
        (("-", "-o", "nosuch://out"), "give a folder, or a URL of one of"),
    ],
)
def test_what_is_of_no_use_is_one_clear_message(batch: Command, arguments: tuple, words: str) -> None:
    done = batch(*arguments, text="a cat\n")
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_a_size_that_fits_no_mode_is_a_bad_line(batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_cuda_driver", lambda: False)
    monkeypatch.setattr(profile_choice, "available_machine", lambda: machine.Machine(None, 8 * GIB))
    text = '{"prompt": "a cat", "width": 1280, "height": 720, "num_frames": 129}\n'
    done = batch("-", "-o", "out", "--model", "hunyuan-video", text=text)
    assert done.returncode == 2 and "line 1: 1280x720, 129 frames: no mode of hunyuan-video fits" in done.stderr


@pytest.fixture
def service() -> Iterator[StandIn]:
    """A stand-in whose tasks are done at the first poll."""
    with StandIn(sample_video(64, 48, 2), polls_until_done=0) as service:
        yield service


@pytest.fixture
def hosted(starts_process: None, batch: Command, service: StandIn, tmp_path: Path) -> Command:
    """The command at the stand-in of a hosted service, whose videos are probed."""
    variables = {
        "WAVESPEED_API_KEY": service.key,
        "WAVESPEED_BASE_URL": service.url,
        "HUNYUAN_LOCAL_STATE_DIR": str(tmp_path / "state"),
    }
    return lambda *arguments, text: batch(
        "-", "-o", "out", "--backend", "wavespeed", *arguments, text=text, **variables
    )


def test_a_service_makes_the_batch(hosted: Command, tmp_path: Path) -> None:
    done = hosted("--concurrency", "2", "--seeds", "1,2,3", text="a cat\n")
    assert (done.returncode, len(list((tmp_path / "out").glob("*.mp4")))) == (0, 3), done.stderr


def test_a_comment_is_not_paid_for(hosted: Command, service: StandIn) -> None:
    done = hosted(text="# my list\na cat\n")
    said = "note: the batch on standard input: skipped 1 comment: line 1; to begin a prompt with #, write \\#"
    assert (done.returncode, len(service.submissions), said in " ".join(done.stderr.split())) == (0, 1, True)


def test_no_more_is_submitted_than_may_be_spent(hosted: Command, tmp_path: Path, service: StandIn) -> None:
    done = hosted("--concurrency", "2", "--seeds", "1,2,3", "--max-cost", "0.8", text="a cat\n")
    assert (done.returncode, len(list((tmp_path / "out").glob("*.mp4")))) == (18, 2), done.stderr
    assert "max_cost=0.8" in done.stderr


def test_a_missing_key_ends_the_batch_and_fails_no_line(
    batch: Command, service: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WAVESPEED_API_KEY", raising=False)
    variables = {"WAVESPEED_BASE_URL": service.url, "HUNYUAN_LOCAL_STATE_DIR": str(tmp_path / "state")}
    done = batch("-", "-o", "out", "--backend", "wavespeed", text="a cat\n", **variables)
    assert (done.returncode, "WAVESPEED_API_KEY" in done.stderr, service.submissions) == (7, True, [])


def test_the_same_batch_at_a_service_submits_nothing_twice(hosted: Command, service: StandIn) -> None:
    hosted("--seeds", "1,2", text="a cat\n")
    before = len(service.submissions)
    assert (hosted("--seeds", "1,2", text="a cat\n").returncode, len(service.submissions)) == (0, before)


def test_a_page_that_cannot_be_written_hides_nothing_of_what_was_made(
    hosted: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command, "write_report", refuse)
    done = hosted("--seeds", "1", "--report", "page.html", "--json", text="a cat\n")
    assert done.returncode == 24
    assert "No space left on device; the videos are in out" in done.stderr.replace("\n", " ")
    assert json.loads(done.stdout.splitlines()[-1])["done"] == 1


def test_a_page_in_a_folder_that_may_not_be_written_is_refused_before_the_work(
    batch: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report.os, "access", lambda path, mode: False)
    done = batch("-", "-o", "out", "--report", "page.html", *LOCAL, text="a cat\n")
    assert done.returncode == 2 and "is not writable" in done.stderr


def test_a_log_that_cannot_be_written_ends_no_batch(hosted: Command, tmp_path: Path) -> None:
    (tmp_path / "out" / ".hunyuan-local").mkdir(parents=True)
    (tmp_path / "out" / ".hunyuan-local" / "logs").touch()
    assert hosted("--seeds", "1", text="a cat\n").returncode == 0


def test_a_batch_that_has_ended_does_not_say_that_its_workers_begin(hosted: Command) -> None:
    done = hosted("--seeds", "1", text="a cat\n")
    assert "workers are starting" not in done.stderr.split("line 1:")[1]
