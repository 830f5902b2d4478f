"""Old jobs are pruned with their files, and chores continue after one fails."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from hunyuan_local import durable
from hunyuan_local.errors import ConfigError
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.housekeeping import Chore, Housekeeper, discard, prune, sweep
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.schema import GenerationRequest


def finished(folder: DataFolder, store: JobStore) -> Job:
    store.enqueue(GenerationRequest(prompt="a fox"), "tiny")
    job = store.claim("w", "tiny", 10)
    folder.video(job).write_bytes(b"video")
    store.succeed(job, {})
    return store.get(job.job_id)


def test_old_jobs_are_deleted(folder: DataFolder, store: JobStore) -> None:
    jobs = [finished(folder, store) for _ in range(3)]
    prune(folder, store, jobs[-1].finished_at + 1)
    assert store.find() == []


def test_their_videos_are_deleted(folder: DataFolder, store: JobStore) -> None:
    job = finished(folder, store)
    prune(folder, store, job.finished_at + 1)
    assert not folder.video(job).exists()


def test_it_says_how_many(folder: DataFolder, store: JobStore) -> None:
    last = [finished(folder, store) for _ in range(3)][-1]
    assert prune(folder, store, last.finished_at + 1) == 3


def test_younger_jobs_stay(folder: DataFolder, store: JobStore) -> None:
    job = finished(folder, store)
    prune(folder, store, job.finished_at - 1)
    assert folder.video(job).exists() and store.get(job.job_id)


def test_waiting_jobs_stay(folder: DataFolder, store: JobStore) -> None:
    job = store.enqueue(GenerationRequest(prompt="a fox"), "tiny")
    prune(folder, store, job.created_at + 1000)
    assert store.get(job.job_id)


def test_a_job_that_waits_again_keeps_its_files(folder: DataFolder, store: JobStore) -> None:
    store.enqueue(GenerationRequest(prompt="a fox"), "tiny")
    job = store.claim("w", "tiny", 10)
    store.fail(job, "no memory")
    failed = store.get(job.job_id)
    folder.unfinished(job).mkdir()
    store.retry(job.job_id)
    discard(folder, store, failed)
    assert folder.unfinished(job).exists()


def left(folder: DataFolder, name: str) -> Path:
    """A file that looks like a job's or an encoder's."""
    path = folder.root / "videos" / name
    path.write_bytes(b"half")
    return path


LATER = time.time() + 10 * 3600


def test_what_was_left_half_written_is_swept_away(folder: DataFolder, store: JobStore) -> None:
    path = left(folder, f".a.mp4.{2**22 + 1}-0.partial")
    sweep(folder, store, time.time())
    assert not path.exists()


def test_what_is_still_written_is_left(folder: DataFolder, store: JobStore) -> None:
    path = durable.begin_partial(folder.root / "videos" / "a.mp4")
    sweep(folder, store, time.time())
    assert path.exists()
    durable.discard(path)


def test_what_was_left_where_nothing_can_be_locked_is_swept_away_later(folder: DataFolder, store: JobStore) -> None:
    path = left(folder, ".a.mp4.partial")
    sweep(folder, store, time.time())
    assert path.exists()
    sweep(folder, store, LATER)
    assert not path.exists()


def test_a_video_without_a_job_is_swept_away(folder: DataFolder, store: JobStore) -> None:
    path = left(folder, "gone.mp4")
    sweep(folder, store, LATER)
    assert not path.exists()


def test_a_state_without_a_job_is_swept_away(folder: DataFolder, store: JobStore) -> None:
    (folder.root / "unfinished" / "gone").mkdir()
    sweep(folder, store, LATER)
    assert list((folder.root / "unfinished").iterdir()) == []


def test_the_video_of_a_job_is_left(folder: DataFolder, store: JobStore) -> None:
    job = finished(folder, store)
    sweep(folder, store, LATER)
    assert folder.video(job).exists()


@pytest.mark.parametrize("error", [ConfigError("the disk is full"), ZeroDivisionError()])
def test_a_chore_that_fails_is_done_again(error: Exception) -> None:
    done, calls = threading.Event(), []

    def chore() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise error
        done.set()

    housekeeper = Housekeeper([Chore("a chore", 0, chore)])
    housekeeper.start()
    again = done.wait(30)
    housekeeper.stop()
    assert again
