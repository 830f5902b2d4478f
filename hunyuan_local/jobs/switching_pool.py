"""A pool whose workers all run one model, and switch to another model when its jobs are waiting.

For a machine that fits one model at a time. Jobs of the loaded model go first, since loading another takes minutes;
after ten minutes, the oldest job of another model gets its turn.
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

_GRACE_S = 30.0  # time for workers to save; workers without a job end immediately
_MOST_DEATHS = 3  # per worker before any job is claimed; then the model's jobs are failed
_LONGEST_TURN_S = 600.0  # per model while another waits; then the running job is saved and goes back into the queue
_MOST_LISTED = 1000


@dataclass(frozen=True)
class ModelWorkers:
    """What a group of workers runs.

    Attributes:
        model: a name in ``configs/models``, as for ``--model``.
        profile: as for ``--profile``; None lets the plan choose.
        queue: the value of ``Job.model`` of their jobs.
    """

    model: str
    profile: str | None
    queue: str


def model_workers_of(job: Job) -> ModelWorkers | None:
    """The workers that a job requires; None if any workers of its queue will do."""
    asked = job.origin.get("crew")  # the key in stored jobs
    return None if asked is None else ModelWorkers(asked["model"], asked["profile"], job.model)


class SwitchingPool:
    """Workers of one model at a time. Implements :class:`.pool.Pool`.

    Args:
        make: creates the pool of a model, not started yet.
        own: the workers to begin with.
        clock: monotonic time in seconds.
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
        """Intended number of workers, of the current model."""
        return self._pool.size

    @property
    def deaths(self) -> int:
        """Number of workers of any model that died without being asked to end."""
        return self._earlier_deaths + self._pool.deaths

    @property
    def last_words(self) -> str:
        """The last output of the current model's worker that died most recently."""
        return self._pool.last_words

    @property
    def has_ended(self) -> bool:
        """Whether the current workers have stopped for good."""
        return self._pool.has_ended

    @property
    def error(self) -> HunyuanLocalError | None:
        """The error that ended the current model's worker that died most recently, if known."""
        return self._pool.error

    def tick(self) -> None:
        """Switch models if the current one has no jobs and another has; then start workers that are missing and due."""
        if not self._ending and self._model_workers != self._own and self._cannot_start():
            words = self._pool.last_words or "the server's log says why"
            self._give_up(self._model_workers, f"no worker for {self._model_workers.queue} could be started: {words}")
            self._change(self._own)
        if not self._ending and (wanted := self._wanted()) != self._model_workers:
            self._change(wanted)
        if not self._ending:  # ask_to_end may have been called while the old workers stopped
            self._pool.tick()

    def ask_to_end(self) -> None:
        """Ask every worker to save its state and end."""
        self._ending = True
        self._pool.ask_to_end()

    def stop(self, grace_s: float) -> None:
        """Stop every worker; kill those that take longer than ``grace_s`` seconds."""
        self._ending = True
        self._pool.stop(grace_s)

    def _wanted(self) -> ModelWorkers:
        """The current workers while they have jobs and time left in their turn; otherwise those of the oldest job."""
        other = self._oldest_of_others()
        if other is None:
            return self._model_workers
        if self._clock() - self._since > _LONGEST_TURN_S:
            return other
        busy = self._store.find(statuses=["queued", "running"], model=self._model_workers.queue, limit=1)
        return self._model_workers if busy else other

    def _oldest_of_others(self) -> ModelWorkers | None:
        """The workers of the oldest waiting job that the current ones cannot run; skips jobs of external workers."""
        for job in self._store.find(statuses=["queued"], oldest_first=True, limit=_MOST_LISTED):
            model_workers = self._own if job.model == self._own.queue else model_workers_of(job)
            if model_workers is not None and model_workers != self._model_workers:
                return model_workers
        return None

    def _cannot_start(self) -> bool:
        """Whether the current workers die before they claim a job."""
        if self._pool.deaths < _MOST_DEATHS * self._pool.size:
            return False
        waiting = self._store.find(statuses=["queued", "running"], model=self._model_workers.queue, limit=_MOST_LISTED)
        return bool(waiting) and not any(job.attempts for job in waiting)

    def _change(self, model_workers: ModelWorkers) -> None:
        """Replace the workers; if the new ones cannot be created, fail their jobs and keep the current workers."""
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
        """Fail the waiting jobs of these workers, since no other worker can run them."""
        logger.warning("%s: %s", model_workers.queue, why)
        for job in self._store.find(statuses=["queued"], model=model_workers.queue, limit=_MOST_LISTED):
            self._store.give_up(job.job_id, why)
