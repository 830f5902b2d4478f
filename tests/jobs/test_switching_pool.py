"""One set of workers at a time: which one, and when it switches, with simulated workers and a real store."""

from __future__ import annotations

import pytest

from hunyuan_local.errors import ConfigError
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.switching_pool import ModelWorkers, SwitchingPool
from hunyuan_local.schema import GenerationRequest

OWN = ModelWorkers("tiny", "cpu", "tiny weights")
OTHER = ModelWorkers("large", None, "large weights")
REQUEST = GenerationRequest(prompt="a fox", width=64, height=48, num_frames=5, num_inference_steps=2, seed=1)


class Workers:
    """A pool that records the calls that it receives."""

    size, last_words, has_ended, error = 1, "", False, None

    def __init__(self, model_workers: ModelWorkers):
        self.model_workers, self.reported, self.deaths = model_workers, [], 0

    def tick(self) -> None:
        self.reported.append("tick")

    def ask_to_end(self) -> None:
        self.reported.append("ask")

    def stop(self, grace_s: float) -> None:
        self.reported.append("stop")


class Stage:
    """A switching pool, and the pools that it has created so far."""

    def __init__(self, store: JobStore):
        self.store, self.made, self.refused, self.now = store, [], "", 0.0
        self.pool = SwitchingPool(store, self._make, OWN, lambda: self.now)

    def _make(self, model_workers: ModelWorkers) -> Workers:
        if self.refused:
            raise ConfigError(self.refused)
        self.made.append(Workers(model_workers))
        return self.made[-1]

    def queue(self, model_workers: ModelWorkers) -> Job:
        origin = (
            {} if model_workers == OWN else {"crew": {"model": model_workers.model, "profile": model_workers.profile}}
        )
        return self.store.enqueue(REQUEST, model_workers.queue, origin)

    @property
    def model_workers_list(self) -> list[ModelWorkers]:
        return [workers.model_workers for workers in self.made]


@pytest.fixture
def stage(store: JobStore) -> Stage:
    return Stage(store)


def test_its_own_crew_is_there_from_the_start(stage: Stage) -> None:
    stage.pool.tick()
    assert stage.model_workers_list == [OWN]


def test_a_job_of_another_model_changes_an_idle_crew(stage: Stage) -> None:
    stage.queue(OTHER)
    stage.pool.tick()
    assert stage.model_workers_list == [OWN, OTHER]


def test_the_old_crew_has_ended_before_the_new_one_starts(stage: Stage) -> None:
    order = []
    stage.queue(OTHER)
    stage.made[0].stop = lambda grace_s: order.append((len(stage.made), [[*made.reported] for made in stage.made[1:]]))
    stage.pool.tick()
    assert order == [(2, [[]])] and stage.made[1].reported == ["tick"]


def test_a_crew_that_cannot_be_made_fails_its_jobs_and_the_present_one_works_on(stage: Stage) -> None:
    job = stage.queue(OTHER)
    stage.refused = "workers=2: this machine has 1 visible GPUs"
    stage.pool.tick()
    failed = stage.store.get(job.job_id)
    assert (failed.status, failed.error) == ("failed", stage.refused)
    assert stage.made[0].reported == ["tick"]


def test_after_a_long_turn_a_crew_with_jobs_makes_room(stage: Stage) -> None:
    stage.queue(OWN)
    stage.queue(OTHER)
    stage.now = 601.0
    stage.pool.tick()
    assert stage.model_workers_list == [OWN, OTHER]


def test_a_turn_begins_anew_with_each_crew(stage: Stage) -> None:
    stage.queue(OWN)
    stage.queue(OTHER)
    stage.now = 601.0
    stage.pool.tick()
    stage.pool.tick()
    assert stage.model_workers_list == [OWN, OTHER]


def test_workers_that_died_after_they_had_taken_a_job_are_no_reason_to_give_up(stage: Stage) -> None:
    job = stage.queue(OTHER)
    stage.pool.tick()
    stage.store.claim("w", OTHER.queue, 30)
    stage.store.expire("w")
    stage.made[1].deaths = 3
    stage.pool.tick()
    assert stage.store.get(job.job_id).status == "queued"


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_crew_with_a_job_stays(stage: Stage, state: str) -> None:
    stage.queue(OTHER)
    stage.queue(OWN)
    if state == "running":
        stage.store.claim("w", OWN.queue, 30)
    stage.pool.tick()
    assert stage.model_workers_list == [OWN]


def test_it_changes_back_for_a_job_of_its_own(stage: Stage) -> None:
    job = stage.queue(OTHER)
    stage.pool.tick()
    stage.store.cancel(job.job_id)
    stage.queue(OWN)
    stage.pool.tick()
    assert stage.model_workers_list == [OWN, OTHER, OWN]


def test_without_a_job_the_last_crew_stays(stage: Stage) -> None:
    job = stage.queue(OTHER)
    stage.pool.tick()
    stage.store.cancel(job.job_id)
    stage.pool.tick()
    assert stage.model_workers_list == [OWN, OTHER]


def test_jobs_of_foreign_workers_are_left_to_these(stage: Stage) -> None:
    stage.store.enqueue(REQUEST, "a model of elsewhere", {})
    stage.pool.tick()
    assert stage.model_workers_list == [OWN]


def test_a_crew_that_cannot_start_fails_its_jobs(stage: Stage) -> None:
    job = stage.queue(OTHER)
    stage.pool.tick()
    stage.made[1].deaths, stage.made[1].last_words = 3, "no memory"
    stage.pool.tick()
    failed = stage.store.get(job.job_id)
    assert (failed.status, failed.error) == ("failed", "no worker for large weights could be started: no memory")


def test_the_own_crew_follows_one_that_cannot_start(stage: Stage) -> None:
    stage.queue(OTHER)
    stage.pool.tick()
    stage.made[1].deaths = 3
    stage.pool.tick()
    assert stage.model_workers_list == [OWN, OTHER, OWN]


def test_the_deaths_of_all_crews_count(stage: Stage) -> None:
    stage.made[0].deaths = 2
    stage.queue(OTHER)
    stage.pool.tick()
    stage.made[1].deaths = 1
    assert stage.pool.deaths == 3


def test_an_ending_pool_changes_no_more(stage: Stage) -> None:
    stage.pool.ask_to_end()
    stage.queue(OTHER)
    stage.pool.tick()
    assert stage.model_workers_list == [OWN]
