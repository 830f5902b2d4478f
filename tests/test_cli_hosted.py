"""The command line with hosted backends: shapes, exit codes, crashes of a process, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import PROGRAM, run_here, signalled
from standin import StandIn, sample_video

makes_videos = pytest.mark.usefixtures("starts_process")  # ffmpeg examines the download
PROMPT = "a red circle moving right on a black background"
Start = Callable[..., subprocess.Popen]
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def standin() -> Iterator[StandIn]:
    """A stand-in whose tasks are finished at the first poll."""
    with StandIn(sample_video(), polls_until_done=0) as service:
        yield service


@pytest.fixture
def slow() -> Iterator[StandIn]:
    """A stand-in whose tasks end after an hour."""
    with StandIn(sample_video(), task_s=3600) as service:
        yield service


def variables(service: StandIn, folder: Path) -> dict[str, str]:
    """An environment with the stand-in's addresses and keys, and the open jobs in a folder."""
    return {
        "WAVESPEED_API_KEY": service.key,
        "NOVITA_API_KEY": service.key,
        "WAVESPEED_BASE_URL": service.url,
        "NOVITA_BASE_URL": service.url,
        "HUNYUAN_LOCAL_STATE_DIR": str(folder / "state"),
        "COLUMNS": "80",
    }


@pytest.fixture
def start(starts_process: None, tmp_path: Path) -> Iterator[Start]:
    """Starts the program as a process with a stand-in, in a separate folder."""
    started: list[subprocess.Popen] = []

    def start(service: StandIn, *arguments: str) -> subprocess.Popen:
        environment = os.environ | variables(service, tmp_path)
        started.append(subprocess.Popen([*PROGRAM, *arguments], cwd=tmp_path, env=environment, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the program to its end in this process, with the folder and environment of ``start``."""

    def run(service: StandIn, *arguments: str) -> subprocess.CompletedProcess:
        return run_here(*arguments, cwd=tmp_path, **variables(service, tmp_path))

    return run


def kill_once_submitted(process: subprocess.Popen, service: StandIn) -> None:
    """Kill -9 it after the first poll of its task."""
    while not service.polls:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.wait()


# One command, three backends


@makes_videos
def test_three_commands_that_differ_in_the_backend_give_one_shape(run: Run, standin: StandIn) -> None:
    shapes = []
    for backend in ("local", "wavespeed", "novita"):
        command = ["generate", PROMPT, "--backend", backend, "--seed", "7", "--num-inference-steps", "2", "--json"]
        document = json.loads(run(standin, *command).stdout.splitlines()[-1])
        shapes.append({name: sorted(value) if isinstance(value, dict) else type(value).__name__
                       for name, value in document.items()})  # fmt: skip
    assert shapes[0] == shapes[1] == shapes[2]


@makes_videos
def test_the_video_of_a_service_says_how_it_was_made(run: Run, standin: StandIn) -> None:
    run(standin, "generate", PROMPT, "--backend", "novita", "-o", "a.mp4")
    assert json.loads(run(standin, "show", "a.mp4").stdout)["remote"]["remote_id"] == standin.submissions[0].task_id


@makes_videos
def test_a_hosted_video_is_not_replayed_here_unasked(run: Run, standin: StandIn) -> None:
    run(standin, "generate", PROMPT, "--backend", "novita", "-o", "a.mp4")
    replay = run(standin, "replay", "a.mp4")
    assert replay.returncode == 2 and "--backend novita" in replay.stderr


def test_backends_are_listed(run: Run, standin: StandIn) -> None:
    assert run(standin, "generate", "--list-backends").stdout.split() == ["local", "novita", "wavespeed"]


# Crashes


def test_after_kill_9_the_open_job_is_listed_and_resume_fetches_the_video_of_the_one_submission(
    start: Start, run: Run, slow: StandIn
) -> None:
    kill_once_submitted(start(slow, "generate", PROMPT, "--backend", "wavespeed", "-o", "a.mp4"), slow)
    task = slow.submissions[0].task_id
    assert task in run(slow, "resume").stdout
    slow.finish_tasks()
    resumed = run(slow, "resume", task)
    assert (resumed.returncode, len(slow.submissions)) == (0, 1), resumed.stderr


def test_after_kill_9_the_same_command_continues(start: Start, run: Run, slow: StandIn) -> None:
    command = ["generate", PROMPT, "--backend", "novita", "-o", "a.mp4"]
    kill_once_submitted(start(slow, *command), slow)
    slow.finish_tasks()
    again = run(slow, *command)
    assert (again.returncode, len(slow.submissions)) == (0, 1), again.stderr


def test_a_job_can_be_forgotten(start: Start, run: Run, standin: StandIn) -> None:
    standin.inject("submit-drop")
    run(standin, "generate", PROMPT, "--backend", "novita")
    job = run(standin, "resume").stdout.split()[0]
    run(standin, "resume", "--forget", job)
    assert run(standin, "resume").stdout == "no open jobs\n"


def test_a_lost_answer_has_its_exit_code(run: Run, standin: StandIn) -> None:
    standin.inject("submit-drop")
    assert run(standin, "generate", PROMPT, "--backend", "novita").returncode == 15


# Ctrl-C


def test_ctrl_c_cancels_the_task_where_the_service_can(run: Run, slow: StandIn) -> None:
    with signalled(signal.SIGINT, when=lambda: bool(slow.polls)):
        stopped = run(slow, "generate", PROMPT, "--backend", "wavespeed")
    assert (stopped.returncode, slow.deleted) == (130, [slow.submissions[0].task_id])


def test_ctrl_c_ends_a_process(start: Start, slow: StandIn) -> None:
    process = start(slow, "generate", PROMPT, "--backend", "wavespeed")
    while not slow.polls:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130


@makes_videos
def test_sigterm_leaves_the_task_to_be_resumed(run: Run, slow: StandIn) -> None:
    with signalled(signal.SIGTERM, when=lambda: bool(slow.polls)):
        stopped = run(slow, "generate", PROMPT, "--backend", "wavespeed", "-o", "a.mp4")
    assert (stopped.returncode, slow.deleted) == (130, [])
    slow.finish_tasks()
    assert run(slow, "resume", slow.submissions[0].task_id).returncode == 0


def test_ctrl_c_says_how_to_continue_where_it_cannot(run: Run, slow: StandIn) -> None:
    with signalled(signal.SIGINT, when=lambda: bool(slow.polls)):
        stopped = run(slow, "generate", PROMPT, "--backend", "novita")
    assert "hunyuan-local resume" in stopped.stderr.splitlines()[-1]


# Errors


@pytest.mark.parametrize(
    ("fault", "code"),
    [("submit-401", 7), ("submit-429", 8), ("poll-404", 9), ("task-failed", 10), ("poll-html", 13)],
)
def test_every_failure_has_its_exit_code(run: Run, standin: StandIn, fault: str, code: int) -> None:
    standin.inject(fault)
    failed = run(standin, "generate", PROMPT, "--backend", "wavespeed")
    assert (failed.returncode, "Traceback" in failed.stderr) == (code, False)


@makes_videos
def test_the_key_is_not_printed(run: Run, standin: StandIn) -> None:
    done = run(standin, "generate", PROMPT, "--backend", "wavespeed", "--api-key", standin.key, "--json")
    assert done.returncode == 0 and standin.key not in done.stdout + done.stderr


# explain

MIXED = ["explain", PROMPT, "--seed", "5000000000", "--num-frames", "85", "--backend", "all", "--model", "tiny"]


def test_explain_tells_the_services_apart(run: Run, standin: StandIn) -> None:
    explained = json.loads(run(standin, *MIXED, "--json").stdout)
    verdicts = {item["backend"]: item["verdict"] for item in explained}
    assert verdicts == {"local": "accepted", "novita": "accepted", "wavespeed": "adjusted"}


def test_explain_names_each_loss(run: Run, standin: StandIn) -> None:
    explained = json.loads(run(standin, *MIXED, "--json").stdout)
    assert [loss["field"] for loss in explained[2]["losses"]] == ["num_frames", "seed"]


@pytest.mark.parametrize(
    ("flags", "why"), [((), "no seed"), (("--seed", "9007199254740993"), "the given seed is not sent")]
)
def test_explain_tells_a_missing_seed_from_a_dropped_one(
    run: Run, standin: StandIn, flags: tuple[str, ...], why: str
) -> None:
    done = run(standin, "explain", "a cat", "--backend", "novita", *flags, "--json")
    assert json.loads(done.stdout)[0]["notes"] == [f"{why}: each video gets a random one; the seed shown is an example"]


@makes_videos
def test_explain_shows_the_body_that_is_sent(run: Run, standin: StandIn) -> None:
    flags = [PROMPT, "--seed", "5", "--backend", "novita"]
    body = json.loads(run(standin, "explain", *flags, "--json").stdout)[0]["body"]
    run(standin, "generate", *flags)
    assert standin.submissions[0].body == body


def test_explain_sends_nothing(run: Run, standin: StandIn) -> None:
    run(standin, *MIXED)
    assert standin.requests == []


def test_explain_refuses_where_no_permission_helps(run: Run, standin: StandIn) -> None:
    explained = json.loads(run(standin, "explain", "x" * 2001, "--backend", "novita", "--json").stdout)
    assert (explained[0]["verdict"], explained[0]["body"]) == ("refused", None)


def test_the_table_fits_80_columns(run: Run, standin: StandIn) -> None:
    table = run(standin, *MIXED).stdout.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
