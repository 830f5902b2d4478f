"""Runs a batch: queues the missing videos in a job store, lets workers generate them, and delivers the files.

The whole state of a batch is on disk, so after a crash the same command resumes it. Independent of the kind of
workers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..backends.base import with_seed
from ..capabilities import Capabilities
from ..errors import HunyuanLocalError, VideoError
from ..jobs.folder import DataFolder
from ..jobs.housekeeping import sweep
from ..jobs.job import Job
from ..jobs.pool import Pool
from ..provenance import statement_path
from ..schema import GenerationRequest
from ..video import read_poster
from .destination import Destination
from .items import WantedItem

MAX_ATTEMPTS = 3
GRACE_S = 20.0  # time for the workers to save the state of their videos
_LEAST_S, _LOOK_S = 0.2, 0.5
_SUSPENDED_S = 5.0  # a gap this long between two checks: the machine or this process was suspended
# After this many worker deaths in a row without a finished job, the cause is one that a restart does not fix.
_DEATHS_IN_A_ROW = 3
_ALL = 1_000_000
_LARGEST_SEED = 2**32 - 1  # of random seeds, to keep file names short
_ANY_AGE_S = 1e10


@dataclass(frozen=True)
class ItemState:
    """The state of one item.

    Attributes:
        item: the wanted video.
        job: its latest job; None if it has none yet.
        name: its file name; empty without a job.
        is_there: whether the video is at its destination.
        problem: why a finished video is not at its destination.
    """

    item: WantedItem
    job: Job | None
    name: str
    is_there: bool
    problem: str = ""

    @property
    def status(self) -> str:
        """``done``, ``failed``, ``running`` or ``waiting``; an undelivered video is not done."""
        if self.is_there:
            return "done"
        if self.job is None or self.job.status in ("queued", "canceled"):
            return "waiting"
        if self.job.status == "failed" or self.problem:
            return "failed"
        return "running"


class Batch:
    """The items of a batch and their progress.

    Args:
        items: with distinct keys.
        destination: locked by the caller with :meth:`Destination.hold`.
        identity: ``Backend.identity``, by which workers find their jobs.
        limits: the range of random seeds.
    """

    def __init__(self, items: Sequence[WantedItem], destination: Destination, identity: str, limits: Capabilities):
        self.items = list(items)
        self._by_key = {item.key: item for item in self.items}
        self.destination, self.identity = destination, identity
        low, high = limits.seeds
        self._limits = limits.model_copy(update={"seeds": (low, min(high, _LARGEST_SEED))})
        self.folder = DataFolder(destination.state)
        self.store = self.folder.store()
        self._jobs: dict[str, Job] = {}
        self._there: set[str] = set()
        self._problems: dict[str, str] = {}
        self.made: list[str] = []  # keys of the items delivered in this run, in order
        self.notes: list[str] = []  # for the user, about videos that are delivered

    def prepare(self, *, retry_failed: bool = False) -> None:
        """Load the state of earlier runs, and queue the missing items.

        Args:
            retry_failed: also queue items that failed.

        Raises:
            VideoError: the destination cannot be read.
            StoreError: the job store cannot be used.
        """
        self._release_dead_workers()
        sweep(self.folder, self.store, time.time())
        for job in self.store.find(limit=_ALL, oldest_first=True):
            if job.origin["key"] in self._by_key:
                self._jobs[job.origin["key"]] = job
            elif not job.is_finished:
                self.store.cancel(job.job_id)  # its line was changed or removed
        self._there = self.destination.names()
        for item in self.items:
            self._prepare(item, retry_failed)

    def _prepare(self, item: WantedItem, retry_failed: bool) -> None:
        job = self._jobs.get(item.key)
        if job is None:
            job = self._enqueue(item, with_seed(item.request, self._limits))
        elif job.status == "succeeded":
            if os.path.lexists(self.folder.video(job)):
                self._deliver(item.key, job)
            elif job.origin["name"] not in self._there:
                job = self._enqueue(item, job.request)  # its video was deleted: generate the same one again
            else:
                self._deliver_statement(job)
        elif job.status == "canceled" or (job.status == "failed" and retry_failed):
            job = self.store.retry(job.job_id) or job
        self._jobs[item.key] = job

    def states(self) -> list[ItemState]:
        """The state of each item, in the order of the file."""
        return [self._state(item) for item in self.items]

    def work(self, pool: Pool, stopping: threading.Event, watch: Callable[[], None]) -> None:
        """Run the workers until no item is left or ``stopping`` is set.

        Args:
            pool: started, supervised and stopped here.
            stopping: once set, the workers save the state of their videos and exit.
            watch: called about twice a second, from this thread.

        Raises:
            HunyuanLocalError: the workers keep dying of an error that a restart does not fix.
        """
        deaths, ended = pool.deaths, len(self._jobs)
        looked_at = time.time()
        try:
            while not stopping.is_set() and self.unfinished():
                pool.tick()
                if time.time() - looked_at < _SUSPENDED_S:
                    self.store.expire()
                looked_at = time.time()  # after a suspension, let the workers renew their leases before any expires
                left = self._look()
                watch()
                if left != ended:
                    deaths, ended = pool.deaths, left
                hopeless = pool.deaths - deaths >= _DEATHS_IN_A_ROW * pool.size
                if hopeless or (pool.has_ended and pool.deaths and left):
                    raise pool.error or HunyuanLocalError(
                        f"the workers cannot work: {pool.last_words or 'they keep dying'}"
                    )
                if pool.has_ended:
                    break
                stopping.wait(_LEAST_S)
                self.store.wait_for_change(stopping.is_set, _LOOK_S)
        finally:
            pool.stop(GRACE_S)
            self._look()
            watch()
        if not self.unfinished():
            shutil.rmtree(self.folder.prompts, ignore_errors=True)

    def running(self) -> list[tuple[WantedItem, Job]]:
        """The running items and their jobs, with progress."""
        jobs = self.store.find(statuses=["running"], model=self.identity, oldest_first=True)
        return [(self._by_key[key], job) for job in jobs if (key := job.origin["key"]) in self._by_key]

    def unfinished(self) -> list[Job]:
        """The unfinished jobs, as they were when they entered the queue."""
        return [job for job in self._jobs.values() if not job.is_finished]

    def _look(self) -> int:
        """Record the jobs that have ended since the last call, and deliver their videos.

        Returns:
            The number of unfinished jobs.
        """
        unfinished = {job.job_id: key for key, job in self._jobs.items() if not job.is_finished}
        open_ids = self.store.open_ids() if unfinished else set()
        for job_id in unfinished.keys() - open_ids:
            key, job = unfinished[job_id], self.store.get(job_id)
            if job is None:  # deleted by hand
                del self._jobs[key]
                continue
            if not job.is_finished:  # back in the queue by now
                continue
            self._jobs[key] = job
            if job.status == "succeeded":
                self._deliver(key, job)
        return len(unfinished.keys() & open_ids)

    def _deliver(self, key: str, job: Job) -> None:
        name = job.origin["name"]
        if not self.destination.is_local:
            self._keep_poster(job)
        try:
            self.destination.deliver(self.folder.video(job), name)
        except VideoError as error:
            self._problems[key] = str(error)  # the local file stays; the next run tries again
            return
        self._there.add(name)
        self.made.append(key)
        self._deliver_statement(job)

    def _deliver_statement(self, job: Job) -> None:
        """Deliver the statement of a video that cannot hold it; only a note if that fails, as the video has arrived."""
        statement = statement_path(self.folder.video(job))
        if not os.path.lexists(statement):
            return
        try:
            self.destination.deliver(statement, statement_path(Path(job.origin["name"])).name)
        except VideoError as error:  # the local file stays; the next run tries again
            self.notes.append(f"line {job.origin['line']}: the video is delivered without its history: {error}")

    def _keep_poster(self, job: Job) -> None:
        """Save a poster for the page, since the video itself leaves this machine."""
        with contextlib.suppress(Exception):  # whatever it is, the page works without a poster
            path = self.picture(job)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(read_poster(self.folder.video(job)))

    def picture(self, job: Job) -> Path:
        """Path of the saved poster of a video that is delivered to a URL."""
        return self.folder.root / "pictures" / f"{job.job_id}.jpg"

    def _state(self, item: WantedItem) -> ItemState:
        job = self._jobs.get(item.key)
        name = "" if job is None else job.origin["name"]
        is_there = job is not None and job.status == "succeeded" and name in self._there
        return ItemState(item, job, name, is_there, self._problems.get(item.key, ""))

    def _enqueue(self, item: WantedItem, request: GenerationRequest) -> Job:
        assert request.seed is not None  # drawn at random, or taken from the earlier job
        origin = {"key": item.key, "line": item.line, "name": item.name_for(request.seed)}
        return self.store.enqueue(request, self.identity, origin, max_attempts=MAX_ATTEMPTS)

    def _release_dead_workers(self) -> None:
        """Return the jobs of dead workers to the queue now, instead of waiting for their leases to expire.

        The workers died with an earlier run, not because of their jobs, so the attempts do not count.
        """
        for report in self.store.worker_reports.recent(within_s=_ANY_AGE_S):
            if not _is_alive(report.pid):
                self.store.give_back_all_of(report.name)
                self.store.worker_reports.leave(report.name)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # the process exists, but belongs to another user
    return True
