"""A batch at work: what is missing is put into a job store of its own, made by workers, and brought to its place.

All that is known of a batch is on disk: whoever dies, the same command goes on. Who the workers are is
not known here.
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
from ..provenance import beside
from ..schema import GenerationRequest
from ..video import read_poster
from .destination import Destination
from .items import WantedItem

MAX_ATTEMPTS = 3
GRACE_S = 20.0  # for the workers to save the state of their videos
_LEAST_S, _LOOK_S = 0.2, 0.5
_SUSPENDED_S = 5.0  # so long between two looks: the machine slept, or this process was stopped
# So many deaths of a worker in a row, without a job having ended: there is something that a new one will not mend.
_DEATHS_IN_A_ROW = 3
_ALL = 1_000_000
_LARGEST_SEED = 2**32 - 1  # of those drawn: they stand in the names of the files
_ANY_AGE_S = 1e10


@dataclass(frozen=True)
class ItemState:
    """How far one item is.

    Attributes:
        item: what is wanted.
        job: its last job; None if it has none yet.
        name: of its file; empty without a job.
        is_there: the video is at its place.
        problem: why a video that is made is not at its place.
    """

    item: WantedItem
    job: Job | None
    name: str
    is_there: bool
    problem: str = ""

    @property
    def status(self) -> str:
        """``done``, ``failed``, ``running`` or ``waiting``; a video that is not at its place yet is not done."""
        if self.is_there:
            return "done"
        if self.job is None or self.job.status in ("queued", "canceled"):
            return "waiting"
        if self.job.status == "failed" or self.problem:
            return "failed"
        return "running"


class Batch:
    """The items that are wanted, and what has become of them so far.

    Args:
        items: with distinct keys.
        destination: held by the caller; see :meth:`Destination.hold`.
        identity: of who makes the videos, by which workers find their jobs.
        limits: the seeds that may be drawn.
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
        self.made: list[str] = []  # keys of the items whose videos came to their place in this run, in that order

    def prepare(self, *, retry_failed: bool = False) -> None:
        """Take up what earlier runs have left, and put what is missing into the queue.

        Args:
            retry_failed: also what failed for good.

        Raises:
            VideoError: the destination does not answer.
            StoreError: the job store cannot be used.
        """
        self._take_from_the_dead()
        sweep(self.folder, self.store, time.time())
        for job in self.store.find(limit=_ALL, oldest_first=True):
            if job.origin["key"] in self._by_key:
                self._jobs[job.origin["key"]] = job
            elif not job.is_finished:
                self.store.cancel(job.job_id)  # a line that was changed or taken out
        self._there = self.destination.names()
        for item in self.items:
            self._prepare(item, retry_failed)

    def _prepare(self, item: WantedItem, retry_failed: bool) -> None:
        job = self._jobs.get(item.key)
        if job is None:
            job = self._enqueue(item, with_seed(item.request, self._limits))
        elif job.status == "succeeded":
            if self.folder.video(job).exists():
                self._deliver(item.key, job)
            elif job.origin["name"] not in self._there:
                job = self._enqueue(item, job.request)  # somebody has deleted it: the very same again
        elif job.status == "canceled" or (job.status == "failed" and retry_failed):
            job = self.store.retry(job.job_id) or job
        self._jobs[item.key] = job

    def states(self) -> list[ItemState]:
        """How far each item is, in the file's order."""
        return [self._state(item) for item in self.items]

    def work(self, pool: Pool, stopping: threading.Event, watch: Callable[[], None]) -> None:
        """Let the workers make what is missing; returns when nothing is left to do, or soon after ``stopping``.

        Args:
            pool: started, watched and ended here.
            stopping: the workers save the state of their videos and end.
            watch: called about twice a second, from this thread.

        Raises:
            HunyuanLocalError: the workers die of something that a new one would not mend.
        """
        deaths, ended = pool.deaths, len(self._jobs)
        looked_at = time.time()
        try:
            while not stopping.is_set() and self.unfinished():
                pool.tick()
                if time.time() - looked_at < _SUSPENDED_S:
                    self.store.expire()
                looked_at = time.time()  # after a suspension the workers give signs of life before leases end
                left = self._look()
                watch()
                if left != ended:
                    deaths, ended = pool.deaths, left
                hopeless = pool.deaths - deaths >= _DEATHS_IN_A_ROW * pool.size
                if hopeless or (pool.has_ended and pool.deaths and left):
                    raise pool.error or HunyuanLocalError(
                        f"the workers cannot work: {pool.last_words or 'they die again and again'}"
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
        """The items at work now, with their progress."""
        jobs = self.store.find(statuses=["running"], model=self.identity, oldest_first=True)
        return [(self._by_key[key], job) for job in jobs if (key := job.origin["key"]) in self._by_key]

    def unfinished(self) -> list[Job]:
        """The jobs that have not ended, as they stood when they were put into the queue."""
        return [job for job in self._jobs.values() if not job.is_finished]

    def _look(self) -> int:
        """Take note of the jobs that have ended since the last look, and bring their videos to their place.

        Returns:
            How many jobs are not finished.
        """
        unfinished = {job.job_id: key for key, job in self._jobs.items() if not job.is_finished}
        open_ids = self.store.open_ids() if unfinished else set()
        for job_id in unfinished.keys() - open_ids:
            key, job = unfinished[job_id], self.store.get(job_id)
            if job is None:  # deleted by hand
                del self._jobs[key]
                continue
            if not job.is_finished:  # put back into the queue in this moment
                continue
            self._jobs[key] = job
            if job.status == "succeeded":
                self._deliver(key, job)
        return len(unfinished.keys() & open_ids)

    def _deliver(self, key: str, job: Job) -> None:
        name = job.origin["name"]
        if not self.destination.is_local:
            self._keep_picture(job)
        video = self.folder.video(job)
        try:
            if beside(video).exists():
                self.destination.deliver(beside(video), beside(Path(name)).name)
            self.destination.deliver(video, name)
        except VideoError as error:
            self._problems[key] = str(error)  # it stays here, and the next run tries it again
        else:
            self._there.add(name)
            self.made.append(key)

    def _keep_picture(self, job: Job) -> None:
        """For the page: the video itself will no longer be here."""
        with contextlib.suppress(VideoError, OSError):  # a page without the picture is as good
            path = self.picture(job)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(read_poster(self.folder.video(job)))

    def picture(self, job: Job) -> Path:
        """Where a small picture of a video is kept that is brought to a URL."""
        return self.folder.root / "pictures" / f"{job.job_id}.jpg"

    def _state(self, item: WantedItem) -> ItemState:
        job = self._jobs.get(item.key)
        name = "" if job is None else job.origin["name"]
        is_there = job is not None and job.status == "succeeded" and name in self._there
        return ItemState(item, job, name, is_there, self._problems.get(item.key, ""))

    def _enqueue(self, item: WantedItem, request: GenerationRequest) -> Job:
        assert request.seed is not None  # one was drawn, or is its job's
        origin = {"key": item.key, "line": item.line, "name": item.name_for(request.seed)}
        return self.store.enqueue(request, self.identity, origin, max_attempts=MAX_ATTEMPTS)

    def _take_from_the_dead(self) -> None:
        """Give back at once what workers held that are no longer there, rather than wait for their leases.

        They died with an earlier run, for which no item is to blame, so no attempt is counted.
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
        pass  # another user's
    return True
