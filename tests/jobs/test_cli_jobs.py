"""``hunyuan-local jobs`` and ``worker`` on real stores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run_here

from hunyuan_local.config import load_model_config
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.worker_reports import WorkerReports
from hunyuan_local.schema import GenerationRequest

TINY = load_model_config("tiny").identity
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def job(store: JobStore, small_request: GenerationRequest) -> Job:
    return store.enqueue(small_request, TINY)


@pytest.fixture
def run(folder: DataFolder, tmp_path: Path) -> Run:
    """Runs ``jobs`` on the folder, which an environment variable names."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return run_here("jobs", *arguments, cwd=tmp_path, HUNYUAN_LOCAL_DATA_DIR=str(folder.root))

    return run


def finish(store: JobStore, job: Job) -> None:
    assert store.succeed(store.claim("w", job.model, 60), {})


def test_jobs_are_listed(run: Run, job: Job) -> None:
    assert job.job_id in run("list").stdout


def test_only_those_of_a_status_are_listed(run: Run, job: Job) -> None:
    assert run("list", "--status", "failed").stdout == "no jobs\n"


def test_a_list_for_programs_is_one_job_a_line(run: Run, job: Job) -> None:
    assert [json.loads(line)["job_id"] for line in run("list", "--json").stdout.splitlines()] == [job.job_id]


def test_a_job_is_shown_whole(run: Run, job: Job) -> None:
    assert json.loads(run("show", job.job_id).stdout)["request"]["prompt"] == job.request.prompt


def test_the_video_of_a_job_is_named(run: Run, job: Job, store: JobStore, folder: DataFolder) -> None:
    finish(store, job)
    folder.video(job).write_bytes(b"video")
    assert json.loads(run("show", job.job_id).stdout)["path"] == str(folder.video(job))


def test_a_job_is_cancelled(run: Run, job: Job, store: JobStore) -> None:
    run("cancel", job.job_id)
    assert store.get(job.job_id).status == "canceled"


def test_a_cancelled_job_is_retried(run: Run, job: Job, store: JobStore) -> None:
    store.cancel(job.job_id)
    run("retry", job.job_id)
    assert store.get(job.job_id).status == "queued"


def test_a_finished_job_is_deleted(run: Run, job: Job, store: JobStore) -> None:
    finish(store, job)
    run("delete", job.job_id)
    assert store.get(job.job_id) is None


def test_old_jobs_are_pruned(run: Run, job: Job, store: JobStore) -> None:
    finish(store, job)
    time.sleep(0.01)
    assert run("prune", "--older-than", "0s").stdout == "1 jobs deleted\n"


@pytest.mark.parametrize("what", ["show", "cancel", "retry", "delete"])
def test_an_unknown_job_is_named(run: Run, job: Job, what: str) -> None:
    done = run(what, "none")
    assert (done.returncode, done.stderr) == (
        2, "error: job 'none': not found; see 'hunyuan-local jobs list'\n"
    )  # fmt: skip


@pytest.mark.parametrize("what", ["retry", "delete"])
def test_a_waiting_job_is_neither_retried_nor_deleted(run: Run, job: Job, what: str) -> None:
    done = run(what, job.job_id)
    assert (done.returncode, f"job {job.job_id}: is queued" in done.stderr) == (2, True)


def test_a_finished_job_is_not_cancelled(run: Run, job: Job, store: JobStore) -> None:
    finish(store, job)
    assert "is already succeeded" in run("cancel", job.job_id).stderr


def test_a_folder_without_jobs_is_refused(run: Run, tmp_path: Path) -> None:
    assert "contains no jobs" in run("list", "--data-dir", str(tmp_path)).stderr


def test_looking_makes_no_folder(run: Run, tmp_path: Path) -> None:
    run("list", "--data-dir", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_damaged_store_is_left_as_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite3").write_bytes(b"damaged " * 1000)
    done = run("list", "--data-dir", str(tmp_path))
    assert (done.returncode, (tmp_path / "jobs.sqlite3").read_bytes()) == (16, b"damaged " * 1000)


def test_a_time_that_is_none_is_refused(run: Run, job: Job) -> None:
    assert "7d" in run("prune", "--older-than", "soon").stderr


@pytest.mark.parametrize(("age", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604_800)])
def test_the_age_of_jobs_may_be_given_in_any_unit(run: Run, job: Job, store: JobStore, age: str, seconds: int) -> None:
    finish(store, job)
    for of_ended, words in ((seconds - 30, "0 jobs deleted\n"), (seconds + 30, "1 jobs deleted\n")):
        store.database.run("UPDATE jobs SET finished_at = ?", (time.time() - of_ended,))
        assert run("prune", "--older-than", age).stdout == words


def test_a_lone_worker_makes_the_videos_of_a_store_and_ends_well(
    loads_model: None, job: Job, store: JobStore, folder: DataFolder, tmp_path: Path
) -> None:
    def end_it() -> None:
        deadline = time.monotonic() + 200
        while not has_ended.is_set() and time.monotonic() < deadline:
            if store.get(job.job_id).is_finished:
                os.kill(os.getpid(), signal.SIGTERM)
                break
            time.sleep(0.05)

    options = ["--model", "tiny", "--profile", "cpu", "--data-dir", folder.root, "--min-free-gib", 0]
    has_ended, ender = threading.Event(), threading.Thread(target=end_it)
    on_interrupt = signal.getsignal(signal.SIGINT)
    ender.start()
    try:
        worker = run_here("worker", *options, cwd=tmp_path)
    finally:
        has_ended.set()
        ender.join()
        signal.signal(signal.SIGINT, on_interrupt)
    assert (store.get(job.job_id).status, worker.returncode) == ("succeeded", 0)


@pytest.mark.usefixtures("starts_process")
def test_a_worker_that_is_ended_while_it_loads_ends_well(store: JobStore, folder: DataFolder) -> None:
    options = ["--model", "tiny", "--profile", "cpu", "--data-dir", str(folder.root)]
    worker = subprocess.Popen([sys.executable, "-m", "hunyuan_local", "worker", *options])
    deadline = time.monotonic() + 100
    while not WorkerReports(store.database).recent() and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
