"""Workers of one model at a time, which change to another when jobs of that wait: for a machine that holds one.

Jobs of the model that is loaded go first, since to load another takes minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import HunyuanLocalError
from .job import Job
from .pool import Pool
from .store import JobStore

logger = logging.getLogger(__name__)

_GRACE_S = 30.0  # workers without a job end at once
_MOST_DEATHS = 3  # of workers that were made for jobs of another model, before these are given up


@dataclass(frozen=True)
class Crew:
    """What a group of workers is started with.

    Attributes:
        model: a name of ``configs/models``, as ``--model`` takes it.
        profile: as ``--profile`` takes it; None is the plan's choice.
        queue: the jobs that are theirs, by what these have in the place of a model.
    """

    model: str
    profile: str | None
    queue: str


def crew_of(job: Job) -> Crew | None:
    """The workers that a job asks for; None if any of its model will do."""
    asked = job.origin.get("crew")
    return None if asked is None else Crew(asked["model"], asked["profile"], job.model)


class SwitchingPool:
    """See :class:`.pool.Pool`.

    Args:
        make: makes the workers of a crew, not started yet.
        own: the crew that is there from the start.
    """

    def __init__(self, store: JobStore, make: Callable[[Crew], Pool], own: Crew):
        self._store, self._make = store, make
        self._crew, self._pool = own, make(own)
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
        """Change the crew if it has nothing to do and another would; then as :class:`.pool.Pool`."""
        if not self._ending:
            if self._crew != self._own and self._pool.deaths >= _MOST_DEATHS:
                self._give_up()
            wanted = self._wanted()
            if wanted != self._crew:
                self._change(wanted)
        self._pool.tick()

    def ask_to_end(self) -> None:
        """See :class:`.pool.Pool`."""
        self._ending = True
        self._pool.ask_to_end()

    def stop(self, grace_s: float) -> None:
        """See :class:`.pool.Pool`."""
        self._ending = True
        self._pool.stop(grace_s)

    def _wanted(self) -> Crew:
        """Whose turn it is: the present crew's while it has a job, else that of the oldest waiting job."""
        if self._store.list(statuses=["queued", "running"], model=self._crew.queue, limit=1):
            return self._crew
        for job in self._store.list(statuses=["queued"], oldest_first=True):
            crew = self._own if job.model == self._own.queue else crew_of(job)
            if crew is not None:
                return crew
        return self._crew

    def _change(self, crew: Crew) -> None:
        logger.info("%s makes room for %s", self._crew.queue, crew.queue)
        self._pool.stop(_GRACE_S)
        self._earlier_deaths += self._pool.deaths
        self._pool, self._crew = self._make(crew), crew

    def _give_up(self) -> None:
        """Fail the jobs of a crew whose workers cannot be started; nobody else would make them."""
        words = self._pool.last_words or "the server's log says why"
        for job in self._store.list(statuses=["queued"], model=self._crew.queue, limit=1000):
            self._store.give_up(job.job_id, f"no worker for {self._crew.queue} could be started: {words}")
        self._change(self._own)
