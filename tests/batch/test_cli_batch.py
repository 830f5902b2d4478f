"""The command: the file checked first, one summary, exit codes, and the same for a hosted service."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run_here
from standin import StandIn

SMALL = ["--size", "144x80", "--num-frames", "5", "--num-inference-steps", "2", "--min-free-gib", "0.1"]
LOCAL = ["--model", "tiny", "--profile", "cpu", *SMALL]
Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in an empty folder, with a text as its standard input."""

    def run(*arguments: str, text: str = "", **variables: str) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return run_here("batch", *arguments, cwd=tmp_path, **variables)

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess, Path]:
    """A batch of two prompts from standard input, with a page, and its folder."""
    folder = tmp_path_factory.mktemp("made")
    command = [sys.executable, "-m", "hunyuan_local", "batch", "-", "-o", "out", "--report", "out/report.html", *LOCAL]
    done = subprocess.run(
        [*command, "--seeds", "1,2", "--json"], cwd=folder, input="a red circle moves right\n", capture_output=True,
        text=True, timeout=200,
    )  # fmt: skip
    return done, folder / "out"


def test_each_seed_becomes_a_video(made: tuple) -> None:
    names = [path.name.rpartition("-")[0] for path in sorted(made[1].glob("*.mp4"))]
    assert names == ["0001-a-red-circle-moves-right-1", "0001-a-red-circle-moves-right-2"]


def test_all_made_is_exit_code_0(made: tuple) -> None:
    assert made[0].returncode == 0


def test_the_last_line_of_stdout_is_the_summary(made: tuple) -> None:
    summary = json.loads(made[0].stdout.splitlines()[-1])
    assert (summary["videos"], summary["done"], summary["failed"], len(summary["items"])) == (2, 2, 0, 2)


def test_the_page_shows_each_video(made: tuple) -> None:
    page = (made[1] / "report.html").read_text()
    assert all(path.name in page for path in made[1].glob("*.mp4"))


def test_the_terminal_says_what_was_made(made: tuple) -> None:
    assert "2 videos in out, 2 of them to be made" in made[0].stderr and "done     2, 2 of them now" in made[0].stderr


BAD = '{"prompt": "a cat"}\n{"prompt": "a dog", "width": 100}\n{"promt": "x"}\n'


def test_every_bad_line_is_listed_with_its_number(batch: Command) -> None:
    done = batch("-", "-o", "out", *LOCAL, text=BAD)
    assert "line 2: width=100: must be a multiple of 16" in done.stderr and "line 3: " in done.stderr


def test_with_a_bad_line_nothing_is_begun(batch: Command, tmp_path: Path) -> None:
    done = batch("-", "-o", "out", *LOCAL, text=BAD)
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)


def test_bad_lines_can_be_skipped(batch: Command, tmp_path: Path) -> None:
    done = batch("-", "-o", "out", "--skip-invalid", *LOCAL, text=BAD)
    assert (done.returncode, len(list((tmp_path / "out").glob("*.mp4")))) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nosuch.txt", "-o", "out"), "there is no such file"),
        (("-", "-o", "out", "--max-cost", "5"), "--max-cost: no option of the backend local"),
        (("-", "-o", "out", "--allow-loss"), "--allow-loss: no option of the backend local"),
        (("-", "-o", "out", "--backend", "wavespeed", "--workers", "2"), "--workers: no option of the backend"),
        (("-", "-o", "out", "--seeds", "1,x"), "whole numbers with commas"),
        (("-", "-o", "out", "--report", "no/report.html"), "does not exist"),
        (("-", "-o", "nosuch://out"), "give a folder, or a URL of one of"),
    ],
)
def test_what_is_of_no_use_is_one_clear_message(batch: Command, arguments: tuple, words: str) -> None:
    done = batch(*arguments, text="a cat\n")
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_a_size_that_fits_no_mode_is_a_bad_line(batch: Command) -> None:
    text = '{"prompt": "a cat", "width": 16384, "height": 16384, "num_frames": 4097}\n'
    done = batch("-", "-o", "out", "--model", "hunyuan-video", text=text)
    assert done.returncode == 2 and "line 1: 16384x16384, 4097 frames: no mode of hunyuan-video fits" in done.stderr


def test_ctrl_c_keeps_what_was_made_and_the_same_command_goes_on(batch: Command, tmp_path: Path) -> None:
    text = "".join(f"a red circle moves right, number {number}\n" for number in range(6))
    (tmp_path / "prompts.txt").write_text(text)
    arguments = ["prompts.txt", "-o", "out", *LOCAL]
    running = subprocess.Popen([sys.executable, "-m", "hunyuan_local", "batch", *arguments], cwd=tmp_path,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    deadline = time.monotonic() + 150
    while not list((tmp_path / "out").glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=100)[1]
    assert running.returncode == 130 and "the same command goes on" in said and "videos   6" in said
    assert batch(*arguments).returncode == 0 and len(list((tmp_path / "out").glob("*.mp4"))) == 6


@pytest.fixture
def hosted(batch: Command, standin: StandIn, tmp_path: Path) -> Command:
    """The command at the stand-in of a hosted service."""
    variables = {
        "WAVESPEED_API_KEY": standin.key,
        "WAVESPEED_BASE_URL": standin.url,
        "HUNYUAN_LOCAL_STATE_DIR": str(tmp_path / "state"),
    }
    return lambda *arguments, text: batch(
        "-", "-o", "out", "--backend", "wavespeed", *arguments, text=text, **variables
    )


def test_a_service_makes_the_batch(hosted: Command, tmp_path: Path) -> None:
    done = hosted("--concurrency", "2", "--seeds", "1,2,3", text="a cat\n")
    assert (done.returncode, len(list((tmp_path / "out").glob("*.mp4")))) == (0, 3), done.stderr


def test_no_more_is_submitted_than_may_be_spent(hosted: Command, tmp_path: Path, standin: StandIn) -> None:
    done = hosted("--concurrency", "2", "--seeds", "1,2,3", "--max-cost", "0.8", text="a cat\n")
    assert (done.returncode, len(list((tmp_path / "out").glob("*.mp4")))) == (18, 2), done.stderr
    assert "max_cost=0.8" in done.stderr


def test_a_missing_key_ends_the_batch_and_fails_no_line(
    batch: Command, standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WAVESPEED_API_KEY", raising=False)
    variables = {"WAVESPEED_BASE_URL": standin.url, "HUNYUAN_LOCAL_STATE_DIR": str(tmp_path / "state")}
    done = batch("-", "-o", "out", "--backend", "wavespeed", text="a cat\n", **variables)
    assert (done.returncode, "WAVESPEED_API_KEY" in done.stderr, standin.submissions) == (7, True, [])


def test_the_same_batch_at_a_service_submits_nothing_twice(hosted: Command, standin: StandIn) -> None:
    hosted("--seeds", "1,2", text="a cat\n")
    before = len(standin.submissions)
    assert (hosted("--seeds", "1,2", text="a cat\n").returncode, len(standin.submissions)) == (0, before)
