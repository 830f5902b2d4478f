"""The webhook queue of a store on a real file: each webhook is due until it is delivered or given up."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from manual_clock import ManualClock

from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.webhook_queue import LONGEST_WAIT_S, WebhookQueue
from hunyuan_local.schema import GenerationRequest

REQUEST = GenerationRequest(prompt="a fox")
URL = "https://me.example/hook"


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> JobStore:
    return JobStore(tmp_path / "jobs.sqlite", clock)


@pytest.fixture
def webhook_queue(store: JobStore) -> WebhookQueue:
    return WebhookQueue(store.database)


def finish(store: JobStore, webhook: str | None = URL) -> Job:
    """A job that has just succeeded."""
    store.enqueue(REQUEST, "tiny", webhook=webhook)
    job = store.claim("w", "tiny", 10)
    store.succeed(job, {})
    return job


def state(store: JobStore, job: Job) -> tuple:
    found = store.get(job.job_id)
    return found.webhook_state, found.webhook_error


def test_a_finished_job_owes_a_call(store: JobStore, webhook_queue: WebhookQueue) -> None:
    job = finish(store)
    assert webhook_queue.take(60).job_id == job.job_id


def test_a_job_without_an_address_owes_none(store: JobStore, webhook_queue: WebhookQueue) -> None:
    finish(store, webhook=None)
    assert webhook_queue.take(60) is None


def test_a_waiting_job_owes_none_yet(store: JobStore, webhook_queue: WebhookQueue) -> None:
    store.enqueue(REQUEST, "tiny", webhook=URL)
    assert webhook_queue.take(60) is None


def test_a_running_job_owes_none_yet(store: JobStore, webhook_queue: WebhookQueue) -> None:
    store.enqueue(REQUEST, "tiny", webhook=URL)
    store.claim("w", "tiny", 10)
    assert webhook_queue.take(60) is None


def test_a_failed_job_owes_a_call(store: JobStore, webhook_queue: WebhookQueue) -> None:
    store.enqueue(REQUEST, "tiny", webhook=URL)
    store.fail(store.claim("w", "tiny", 10), "no memory")
    assert webhook_queue.take(60).status == "failed"


def test_a_cancelled_job_owes_a_call(store: JobStore, webhook_queue: WebhookQueue) -> None:
    store.cancel(store.enqueue(REQUEST, "tiny", webhook=URL).job_id)
    assert webhook_queue.take(60).status == "canceled"


def test_a_job_of_a_worker_that_died_for_good_owes_a_call(
    store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock
) -> None:
    store.enqueue(REQUEST, "tiny", webhook=URL, max_attempts=1)
    store.claim("w", "tiny", 10)
    clock.now += 11
    store.expire()
    assert webhook_queue.take(60).status == "failed"


def test_a_taken_call_is_nobody_elses(store: JobStore, webhook_queue: WebhookQueue) -> None:
    finish(store)
    webhook_queue.take(60)
    assert webhook_queue.take(60) is None


def test_many_threads_take_each_call_once(store: JobStore, webhook_queue: WebhookQueue) -> None:
    for _ in range(40):
        finish(store)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: webhook_queue.take(60), range(60)))
    assert Counter(Counter(job.job_id for job in taken if job).values()) == {1: 40}


def test_a_call_whose_sender_died_is_owed_again(
    store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock
) -> None:
    finish(store)
    webhook_queue.take(60)
    clock.now += 60
    assert webhook_queue.take(60).webhook_attempts == 2


def test_a_delivered_call_is_owed_no_more(store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock) -> None:
    job = finish(store)
    webhook_queue.delivered(webhook_queue.take(60))
    clock.now += 61
    assert (webhook_queue.take(60), state(store, job)) == (None, ("delivered", ""))


def test_a_call_that_failed_waits(store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock) -> None:
    finish(store)
    webhook_queue.postpone(webhook_queue.take(60), 120, "HTTP 500")
    clock.now += 119
    assert webhook_queue.take(60) is None


def test_a_call_that_failed_is_due_again_after_its_wait(
    store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock
) -> None:
    finish(store)
    webhook_queue.postpone(webhook_queue.take(60), 120, "HTTP 500")
    clock.now += 120
    again = webhook_queue.take(60)
    assert (again.webhook_attempts, again.webhook_error) == (2, "HTTP 500")


def test_a_call_that_is_given_up_keeps_the_reason(
    store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock
) -> None:
    job = finish(store)
    webhook_queue.give_up(webhook_queue.take(60), "HTTP 410")
    clock.now += 10_000
    assert (webhook_queue.take(60), state(store, job)) == (None, ("given up", "HTTP 410"))


def test_first_calls_come_before_repeated_ones(
    store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock
) -> None:
    finish(store)
    webhook_queue.postpone(webhook_queue.take(60), 5, "HTTP 500")
    clock.now += 10
    fresh = finish(store)
    assert webhook_queue.take(60).job_id == fresh.job_id


def test_a_late_sender_changes_nothing(store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock) -> None:
    job = finish(store)
    late = webhook_queue.take(60)
    clock.now += 61
    webhook_queue.take(60)
    assert (webhook_queue.give_up(late, "too slow"), state(store, job)) == (False, ("waiting", ""))


def test_a_call_of_an_earlier_run_does_not_settle_that_of_the_next(
    store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock
) -> None:
    store.enqueue(REQUEST, "tiny", webhook=URL)
    store.fail(store.claim("w", "tiny", 10), "no memory")
    first = webhook_queue.take(60)
    store.retry(first.job_id)
    clock.now += 1
    store.succeed(store.claim("w", "tiny", 10), {})
    webhook_queue.take(60)
    assert (webhook_queue.delivered(first), state(store, first)) == (False, ("waiting", ""))


def test_a_deleted_job_owes_nothing(store: JobStore, webhook_queue: WebhookQueue) -> None:
    finish(store)
    job = webhook_queue.take(60)
    store.delete(job.job_id)
    assert webhook_queue.delivered(job) is False


def test_a_wait_is_never_longer_than_the_longest(
    store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock
) -> None:
    finish(store)
    webhook_queue.postpone(webhook_queue.take(60), 1e9, "HTTP 500")
    clock.now += LONGEST_WAIT_S
    assert webhook_queue.take(60) is not None


def test_a_clock_that_is_set_back_does_not_hold_a_call_up(
    store: JobStore, webhook_queue: WebhookQueue, clock: ManualClock
) -> None:
    finish(store)
    webhook_queue.postpone(webhook_queue.take(60), 5, "HTTP 500")
    clock.now -= 86400
    assert webhook_queue.take(60) is not None


def test_owed_calls_outlive_the_process(store: JobStore, clock: ManualClock) -> None:
    job = finish(store)
    reopened = JobStore(store.database.path, clock)
    assert WebhookQueue(reopened.database).take(60).job_id == job.job_id
