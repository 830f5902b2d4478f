"""Worker processes: started, killed, restarted, and ended with their parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import load_model_config
from hunyuan_local.errors import ConfigError
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.pool import WorkerPool, worker_environments
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.worker_config import WorkerOptions
from hunyuan_local.jobs.worker_reports import WorkerReport, WorkerReports
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest
from hunyuan_local.supervision import Restarts

TINY = load_model_config("tiny").identity
LONG = GenerationRequest(
    prompt="a red circle moving right", width=144, height=80, num_frames=5, num_inference_steps=100, seed=7
)


def wait_until(pool: WorkerPool, is_so: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "timed out"
        pool.tick()
        time.sleep(0.05)


def workers(store: JobStore) -> list[WorkerReport]:
    return WorkerReports(store.database).recent()


@dataclass(frozen=True)
class Course:
    """A job whose worker was killed, and one that was running when the pool was stopped."""

    killed: Job
    video: Path
    stopped: Job
    exit_code: int  # of the last worker


@pytest.fixture(scope="module")
def course(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The outcome of both, with one worker after the other."""
    folder = DataFolder(tmp_path_factory.mktemp("data"))
    store = folder.store()
    options = WorkerOptions(data_dir=folder.root, model="tiny", profile="cpu")
    pool = WorkerPool(store, options, worker_environments(1, 0))

    def is_at_step(job: Job, step: int) -> bool:
        progress = store.get(job.job_id).progress
        return progress is not None and progress.step >= step

    try:
        killed = store.enqueue(LONG, TINY)
        wait_until(pool, lambda: is_at_step(killed, 10))
        os.kill(workers(store)[0].pid, signal.SIGKILL)
        wait_until(pool, lambda: store.get(killed.job_id).is_finished)
        stopped = store.enqueue(LONG, TINY)
        wait_until(pool, lambda: is_at_step(stopped, 1))
        child = pool._slots[0].child
    finally:
        pool.stop(grace_s=60)
    killed, stopped = store.get(killed.job_id), store.get(stopped.job_id)
    return Course(killed, folder.video(killed), stopped, child.exit_code)


def test_a_killed_worker_is_replaced_and_its_job_done_with_the_same_frames(
    course: Course, tiny: LocalBackend, tmp_path: Path
) -> None:
    whole = tiny.generate(LONG, GenerationContext(tmp_path / "whole.mp4"))
    same = read_provenance(course.video).frames_sha256 == whole.provenance["frames_sha256"]
    assert (course.killed.status, course.killed.attempts, same) == ("succeeded", 2, True)


def test_stopping_gives_the_running_job_back(course: Course) -> None:
    assert (course.stopped.status, course.stopped.attempts) == ("queued", 0)


def test_a_worker_that_is_stopped_ends_well(course: Course) -> None:
    assert course.exit_code == 0


@pytest.mark.usefixtures("starts_process")
def test_a_worker_that_must_be_killed_costs_its_job_no_attempt(folder: DataFolder, store: JobStore) -> None:
    pool = WorkerPool(store, WorkerOptions(data_dir=folder.root), worker_environments(1, 0))
    pool.tick()
    os.kill(pool._slots[0].child.pid, signal.SIGSTOP)  # it hangs
    job = store.enqueue(LONG, TINY)
    store.claim(pool._slots[0].name, TINY, lease_s=60)
    pool.stop(grace_s=0.1)
    assert (store.get(job.job_id).status, store.get(job.job_id).attempts) == ("queued", 0)


@pytest.mark.usefixtures("starts_process")
def test_workers_end_when_their_parent_is_killed(folder: DataFolder, store: JobStore) -> None:
    code = (
        "import sys, time; from hunyuan_local.jobs.folder import DataFolder; from hunyuan_local.jobs.pool import *\n"
        "options = WorkerOptions(data_dir=sys.argv[1], model='tiny', profile='cpu')\n"
        "pool = WorkerPool(DataFolder(sys.argv[1]).store(), options, worker_environments(1, 0))\n"
        "pool.tick(); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(folder.root)])
    deadline = time.monotonic() + 120
    while not (found := workers(store)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = psutil.Process(found[0].pid)
    parent.kill()
    parent.wait()
    worker.wait(60)
    assert not worker.is_running()


class _Mayfly:
    """A worker that exits immediately."""

    exit_code = 2

    def __init__(self, *arguments: str, **options: object):
        self.connection, other = socket.socketpair()
        other.close()

    def last_words(self) -> str:
        return "error: /root: is not writable; set HUNYUAN_LOCAL_DATA_DIR"


@pytest.fixture
def mayflies(folder: DataFolder, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> WorkerPool:
    """Two workers that repeatedly exit with the same error, without pauses between restarts."""
    monkeypatch.setattr("hunyuan_local.jobs.pool.Child", _Mayfly)
    monkeypatch.setattr(Restarts, "is_due", True)
    return WorkerPool(store, WorkerOptions(data_dir=folder.root), [{}, {}])


def test_workers_that_end_again_and_again_with_an_error_end_the_pool_and_say_why(mayflies: WorkerPool) -> None:
    for _ in range(12):
        mayflies.tick()
    assert mayflies.has_ended and isinstance(mayflies.error, ConfigError)
    assert "5 in a row ended soon after their start" in str(mayflies.error)
    assert "HUNYUAN_LOCAL_DATA_DIR" in str(mayflies.error)


def test_afterwards_no_worker_is_started(mayflies: WorkerPool) -> None:
    for _ in range(12):
        mayflies.tick()
    deaths = mayflies.deaths
    mayflies.tick()
    assert mayflies.deaths == deaths


def test_workers_that_are_killed_are_replaced_for_ever(mayflies: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Mayfly, "exit_code", -9)
    for _ in range(12):
        mayflies.tick()
    assert not mayflies.has_ended


def test_each_worker_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert worker_environments(2, 3) == [{"CUDA_VISIBLE_DEVICES": n} for n in "01"]


def test_workers_that_share_a_video_over_gpus_have_several_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    assert worker_environments(2, 4, each=2) == [{"CUDA_VISIBLE_DEVICES": n} for n in ("3,5", "6,7")]


def test_the_cores_are_shared_by_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert worker_environments(2, 0, each=2) == [{"OMP_NUM_THREADS": "2"}] * 2


def test_too_few_gpus_for_what_each_worker_needs_are_refused() -> None:
    with pytest.raises(ConfigError, match="give --workers 1 or fewer"):
        worker_environments(2, 3, each=2)


def test_fewer_gpus_than_one_video_is_to_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="context_parallel=4: this machine has 3 visible GPUs"):
        worker_environments(1, 3, each=4)


@pytest.mark.usefixtures("starts_process")
def test_what_a_worker_says_goes_to_its_log(folder: DataFolder, store: JobStore, tmp_path: Path) -> None:
    options = WorkerOptions(data_dir=folder.root, model=str(tmp_path / "no-such-model"))
    pool = WorkerPool(store, options, worker_environments(1, 0), tmp_path / "logs")
    wait_until(pool, lambda: pool.deaths)
    pool.stop(grace_s=20)
    assert "no-such-model" in pool.last_words and "no-such-model" in (tmp_path / "logs" / "worker0.log").read_text()


def test_more_workers_than_gpus_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 visible GPUs"):
        worker_environments(3, 2)


def test_what_cuda_does_not_see_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,-1,1")
    assert worker_environments(1, 1) == [{"CUDA_VISIBLE_DEVICES": "0"}]


def test_only_visible_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    assert worker_environments(2, 2) == [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "GPU-7"}]


def test_a_lone_worker_on_the_cpu_has_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert worker_environments(1, 0) == [{}]
