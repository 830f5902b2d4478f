"""Workers of one model at a time, which change to another when jobs of that wait: for a machine that holds one.

Jobs of the model that is loaded go first, since to load another takes minutes; but none waits for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import HunyuanLocalError
from .job import Job
from .pool import Pool
from .store import JobStore

logger = logging.getLogger(__name__)

_GRACE_S = 30.0  # workers without a job end at once
_MOST_DEATHS = 3  # of each worker before it has taken a job, after which the jobs of their model are given up
_LONGEST_TURN_S = 600.0  # of a model with jobs, while another waits; then it saves the job in hand and gives it back
_MOST_LISTED = 1000


@dataclass(frozen=True)
class ModelWorkers:
    """What a group of workers is started with.

    Attributes:
        model: a name of ``configs/models``, as ``--model`` takes it.
        profile: as ``--profile`` takes it; None is the plan's choice.
        queue: the jobs that are theirs, by what these have in the place of a model.
    """

    model: str
    profile: str | None
    queue: str


def model_workers_of(job: Job) -> ModelWorkers | None:
    """The workers that a job asks for; None if any of its model will do."""
    asked = job.origin.get("crew")  # its name in stores made before
    return None if asked is None else ModelWorkers(asked["model"], asked["profile"], job.model)


class SwitchingPool:
    """See :class:`.pool.Pool`.

    Args:
        make: makes the workers of a model, not started yet.
        own: the workers that are there from the start.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        store: JobStore,
        make: Callable[[ModelWorkers], Pool],
        own: ModelWorkers,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._store, self._make, self._clock = store, make, clock
        self._model_workers, self._pool, self._since = own, make(own), clock()
        self._own = own
        self._ending = False
        self._earlier_deaths = 0

    @property
    def size(self) -> int:
        """See :class:`.pool.Pool`."""
        return self._pool.size

    @property
    def deaths(self) -> int:
        """See :class:`.pool.Pool`."""
        return self._earlier_deaths + self._pool.deaths

    @property
    def last_words(self) -> str:
        """See :class:`.pool.Pool`."""
        return self._pool.last_words

    @property
    def has_ended(self) -> bool:
        """See :class:`.pool.Pool`."""
        return self._pool.has_ended

    @property
    def error(self) -> HunyuanLocalError | None:
        """See :class:`.pool.Pool`."""
        return self._pool.error

    def tick(self) -> None:
        """Change the workers if they have nothing to do and another would; then as :class:`.pool.Pool`."""
        if not self._ending and self._model_workers != self._own and self._cannot_start():
            words = self._pool.last_words or "the server's log says why"
            self._give_up(self._model_workers, f"no worker for {self._model_workers.queue} could be started: {words}")
            self._change(self._own)
        if not self._ending and (wanted := self._wanted()) != self._model_workers:
            self._change(wanted)
        if not self._ending:  # it may have come while the old workers ended
            self._pool.tick()

    def ask_to_end(self) -> None:
        """See :class:`.pool.Pool`."""
        self._ending = True
        self._pool.ask_to_end()

    def stop(self, grace_s: float) -> None:
        """See :class:`.pool.Pool`."""
        self._ending = True
        self._pool.stop(grace_s)

    def _wanted(self) -> ModelWorkers:
        """Whose turn it is: the present workers' while they have a job, else that of the oldest job that waits."""
        other = self._oldest_of_others()
        if other is None:
            return self._model_workers
        if self._clock() - self._since > _LONGEST_TURN_S:
            return other
        busy = self._store.find(statuses=["queued", "running"], model=self._model_workers.queue, limit=1)
        return self._model_workers if busy else other

    def _oldest_of_others(self) -> ModelWorkers | None:
        """Whose the oldest job is that waits for other workers; jobs of workers elsewhere are left to these."""
        for job in self._store.find(statuses=["queued"], oldest_first=True, limit=_MOST_LISTED):
            model_workers = self._own if job.model == self._own.queue else model_workers_of(job)
            if model_workers is not None and model_workers != self._model_workers:
                return model_workers
        return None

    def _cannot_start(self) -> bool:
        """Whether its workers die before they take a job."""
        if self._pool.deaths < _MOST_DEATHS * self._pool.size:
            return False
        waiting = self._store.find(statuses=["queued", "running"], model=self._model_workers.queue, limit=_MOST_LISTED)
        return bool(waiting) and not any(job.attempts for job in waiting)

    def _change(self, model_workers: ModelWorkers) -> None:
        """End the workers and make others; where those cannot be made, their jobs are failed and all stays as it is."""
        try:
            pool = self._make(model_workers)
        except HunyuanLocalError as error:
            self._give_up(model_workers, str(error))
            return
        logger.info("%s makes room for %s", self._model_workers.queue, model_workers.queue)
        self._pool.stop(_GRACE_S)
        self._earlier_deaths += self._pool.deaths
        self._pool, self._model_workers, self._since = pool, model_workers, self._clock()

    def _give_up(self, model_workers: ModelWorkers, why: str) -> None:
        """Fail the waiting jobs of these workers; nobody else would make them."""
        logger.warning("%s: %s", model_workers.queue, why)
        for job in self._store.find(statuses=["queued"], model=model_workers.queue, limit=_MOST_LISTED):
            self._store.give_up(job.job_id, why)
