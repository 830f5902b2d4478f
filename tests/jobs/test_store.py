"""The job store on real files, with threads and dying processes: nothing is lost or done twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from manual_clock import ManualClock

from hunyuan_local.errors import QueueFullError, StoreError
from hunyuan_local.jobs.migrations import MIGRATIONS
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.schema import GenerationRequest, Progress

REQUEST = GenerationRequest(prompt="a fox", seed=2**64 - 1)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> JobStore:
    return JobStore(tmp_path / "jobs.sqlite", clock)


def test_a_job_is_on_disk_when_its_id_is_known(store: JobStore, tmp_path: Path) -> None:
    job = store.enqueue(REQUEST, "tiny")
    assert JobStore(tmp_path / "jobs.sqlite").get(job.job_id) == job


def test_the_request_comes_back_whole(store: JobStore) -> None:
    assert store.get(store.enqueue(REQUEST, "tiny").job_id).request == REQUEST


def test_what_the_taker_wants_to_remember_comes_back(store: JobStore) -> None:
    assert store.enqueue(REQUEST, "tiny", {"webhook": "http://x"}).origin == {"webhook": "http://x"}


def test_an_unknown_job_is_none(store: JobStore) -> None:
    assert store.get("x") is None


def test_a_full_queue_takes_no_more(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny", max_queue=1)
    with pytest.raises(QueueFullError, match="1 jobs are waiting"):
        store.enqueue(REQUEST, "tiny", max_queue=1)


def test_a_claimed_job_leaves_room(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny", max_queue=1)
    store.claim("w", "tiny", 10)
    assert store.enqueue(REQUEST, "tiny", max_queue=1)


# Claims and leases


def test_the_oldest_job_is_claimed_first(store: JobStore) -> None:
    first = store.enqueue(REQUEST, "tiny")
    store.enqueue(REQUEST, "tiny")
    assert store.claim("w", "tiny", 10).job_id == first.job_id


def test_nothing_waits(store: JobStore) -> None:
    assert store.claim("w", "tiny", 10) is None


def test_many_threads_claim_each_job_once(store: JobStore) -> None:
    for _ in range(60):
        store.enqueue(REQUEST, "tiny")
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: store.claim(f"w{n}", "tiny", 10), range(80)))
    assert Counter(Counter(c.job_id for c in claims if c).values()) == {1: 60}


def test_a_beat_prolongs_the_lease(store: JobStore, clock: ManualClock) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    clock.now += 8
    store.beat(job, 10)
    clock.now += 8
    assert store.expire() == []


def test_a_beat_reports_progress(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    store.beat(job, 10, Progress(stage="denoise", step=2, total=8))
    assert store.get(job.job_id).progress == Progress(stage="denoise", step=2, total=8)


def test_a_job_of_a_dead_worker_waits_again(store: JobStore, clock: ManualClock) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    clock.now += 11
    store.expire()
    assert store.get(job.job_id).status == "queued"


def test_after_the_last_attempt_it_fails_with_the_reason(store: JobStore, clock: ManualClock) -> None:
    store.enqueue(REQUEST, "tiny", max_attempts=2)
    for _ in range(2):
        job = store.claim("w7", "tiny", 10)
        clock.now += 11
        store.expire()
    failed = store.get(job.job_id)
    assert (failed.status, failed.error) == ("failed", "the process that worked on it died (attempt 2 of 2)")


def test_a_worker_that_lost_its_lease_is_reported_to_stop(store: JobStore, clock: ManualClock) -> None:
    store.enqueue(REQUEST, "tiny")
    late = store.claim("w1", "tiny", 10)
    clock.now += 11
    store.expire()
    store.claim("w2", "tiny", 10)
    assert store.beat(late, 10) is False


def test_a_worker_that_lost_its_lease_cannot_finish(store: JobStore, clock: ManualClock) -> None:
    store.enqueue(REQUEST, "tiny")
    late = store.claim("w1", "tiny", 10)
    clock.now += 11
    store.expire()
    store.claim("w2", "tiny", 10)
    assert store.succeed(late, {"path": "/late"}) is False and store.get(late.job_id).status == "running"


def test_a_job_finishes_once(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    assert [store.succeed(job, {"path": "/a"}), store.succeed(job, {"path": "/b"})] == [True, False]


def test_the_result_comes_back(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    store.succeed(job, {"path": "/a"})
    assert store.get(job.job_id).result == {"path": "/a"}


def test_a_job_given_back_keeps_its_attempts(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    store.give_back(store.claim("w", "tiny", 10))
    assert store.claim("w", "tiny", 10).attempts == 1


def test_a_clock_that_jumps_ahead_costs_an_attempt_and_no_job(store: JobStore, clock: ManualClock) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w1", "tiny", 10)
    clock.now += 86400
    store.expire()
    assert (store.claim("w2", "tiny", 10).job_id, store.succeed(job, {})) == (job.job_id, False)


def test_a_clock_that_jumps_back_leaves_the_lease(store: JobStore, clock: ManualClock) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    clock.now -= 86400
    assert store.beat(job, 10) and store.expire() == []


# Cancelling, retrying, listing


def test_a_waiting_job_is_cancelled_at_once(store: JobStore) -> None:
    assert store.cancel(store.enqueue(REQUEST, "tiny").job_id).status == "canceled"


def test_a_running_job_is_asked_to_stop(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    store.cancel(job.job_id)
    assert store.beat(job, 10) is False


def test_a_cancelled_job_of_a_dead_worker_is_cancelled(store: JobStore, clock: ManualClock) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    store.cancel(job.job_id)
    clock.now += 11
    store.expire()
    assert store.get(job.job_id).status == "canceled"


def test_a_finished_job_is_not_cancelled(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    store.succeed(job, {})
    assert store.cancel(job.job_id).status == "succeeded"


def test_a_failed_job_can_be_tried_again(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    store.fail(job, "no memory")
    assert store.retry(job.job_id).status == "queued" and store.claim("w", "tiny", 10).attempts == 1


def test_a_running_job_is_not_retried(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    assert store.retry(store.claim("w", "tiny", 10).job_id) is None


def test_a_running_job_is_not_deleted(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    assert store.delete(store.claim("w", "tiny", 10).job_id) is False


def test_jobs_are_listed_page_by_page(store: JobStore) -> None:
    jobs = [store.enqueue(REQUEST, "tiny").job_id for _ in range(5)]
    page = store.find(limit=3)
    rest = store.find(after=page[-1].number)
    assert [job.job_id for job in page + rest] == jobs[::-1]


def test_jobs_are_listed_by_status(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    assert [found.job_id for found in store.find(statuses=["running"])] == [job.job_id]


def test_jobs_are_counted(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    store.enqueue(REQUEST, "tiny")
    store.claim("w", "tiny", 10)
    assert store.counts() == {"queued": 1, "running": 1}


def test_old_jobs_are_found_for_pruning(store: JobStore, clock: ManualClock) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    store.succeed(job, {})
    assert [found.job_id for found in store.find(finished_before=clock.now + 1)] == [job.job_id]


def test_a_clock_that_is_set_back_does_not_keep_a_dead_workers_job(store: JobStore, clock: ManualClock) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    clock.now -= 900
    store.expire()
    assert store.get(job.job_id).status == "queued"


def test_a_job_of_a_worker_known_to_be_dead_waits_again_at_once(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    store.expire("w")
    assert store.get(job.job_id).status == "queued"


def test_a_job_of_another_model_is_not_claimed(store: JobStore) -> None:
    store.enqueue(REQUEST, "hunyuan-video")
    assert store.claim("w", "tiny", 10) is None


def test_a_failure_that_may_pass_is_tried_again(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny", max_attempts=2)
    job = store.claim("w", "tiny", 10)
    store.release(job, "the disk is full")
    assert store.get(job.job_id).status == "queued"


def test_the_last_such_failure_is_reported(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny", max_attempts=1)
    job = store.claim("w", "tiny", 10)
    store.release(job, "the disk is full")
    assert store.get(job.job_id).error == "the disk is full (attempt 1 of 1)"


def test_a_job_that_is_given_back_when_it_was_to_be_cancelled_is_cancelled(store: JobStore) -> None:
    store.enqueue(REQUEST, "tiny")
    job = store.claim("w", "tiny", 10)
    store.cancel(job.job_id)
    store.give_back(job)
    assert store.get(job.job_id).status == "canceled"


# Files


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(StoreError, match="nothing was overwritten"):
        JobStore(path)
    assert path.read_bytes() == b"not a database, " * 100


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "jobs.sqlite") as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(StoreError, match="upgrade hunyuan-local"):
        JobStore(tmp_path / "jobs.sqlite")


def test_the_schema_has_the_newest_number(store: JobStore) -> None:
    with sqlite3.connect(store.database.path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="none"):
        JobStore(tmp_path / "none" / "jobs.sqlite")


# Processes that die


def _work(path: Path) -> None:
    store = JobStore(path)
    while (job := store.claim(f"w{os.getpid()}", "tiny", 0.5)) is not None:
        time.sleep(0.01)
        store.succeed(job, {"by": os.getpid()})


@pytest.mark.usefixtures("starts_process")
def test_jobs_survive_workers_that_are_killed(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    for _ in range(100):
        store.enqueue(REQUEST, "tiny", max_attempts=50)
    spawn = multiprocessing.get_context("spawn")
    deadline = time.monotonic() + 200
    while store.counts().get("succeeded", 0) < 100 and time.monotonic() < deadline:
        workers = [spawn.Process(target=_work, args=(store.database.path,)) for _ in range(2)]
        for worker in workers:
            worker.start()
        workers[0].join(1.5)
        os.kill(workers[1].pid, signal.SIGKILL)
        for worker in workers:
            worker.join()
        time.sleep(0.6)
        store.expire()
    assert store.counts() == {"succeeded": 100}


def test_no_id_holds_what_a_client_takes_for_a_status(store: JobStore) -> None:
    assert not any("429" in store.enqueue(REQUEST, "tiny").job_id for _ in range(1000))
