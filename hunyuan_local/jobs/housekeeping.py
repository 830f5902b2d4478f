"""Periodic chores: expired leases, old jobs and files, dead workers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import durable
from ..errors import HunyuanLocalError
from .folder import UPLOADS_KEPT_S, DataFolder
from .job import Job
from .store import JobStore

logger = logging.getLogger(__name__)

# Files unchanged for this long have no writer: encoders write continuously, and clocks rarely jump by more.
_ABANDONED_S = 2 * 3600.0
# An image is stored before its job, within far less than this time.
_NEEDED_SOON_S = 60.0
# An image that was uploaded for a job to come is kept for this long.
_UPLOADED_S = 24 * 3600.0


def prune(folder: DataFolder, store: JobStore, before: float) -> int:
    """Delete jobs that finished before ``before`` (seconds since 1970), and their files; returns the number."""
    pruned, last = 0, None
    while old := store.find(finished_before=before, oldest_first=True, after=last):
        last = old[-1].number
        pruned += sum(discard(folder, store, job) for job in old)
    return pruned


def discard(folder: DataFolder, store: JobStore, job: Job) -> bool:
    """Delete a finished job, then its files; False if it does not exist or is not finished, for example after a retry.

    Files that cannot be deleted are left to :func:`sweep`.
    """
    if not store.delete(job.job_id):
        return False
    try:
        folder.remove(job)
        if job.request.image is not None and not store.uses_image(job.request.image.sha256):
            folder.forget_image(job.request.image.sha256, time.time() - _NEEDED_SOON_S)
    except OSError as error:
        logger.warning("deleted job %s, but not yet its files: %s", job.job_id, error)
    return True


def sweep(folder: DataFolder, store: JobStore, now: float) -> None:
    """Delete files that no process writes and no job owns: left by dead workers, or written after a deletion."""
    for unfinished in folder.of_unfinished_files():
        durable.sweep(unfinished)
    for path in folder.old_files(now - _ABANDONED_S):
        if path.suffix == ".partial" or store.get(path.name.split(".")[0]) is None:
            folder.delete(path)
    folder.forget_uploads(now - UPLOADS_KEPT_S)
    for digest in folder.image_digests():
        if not store.uses_image(digest):
            folder.forget_image(digest, now - _UPLOADED_S)


@dataclass
class Chore:
    """A task to run every ``every_s`` seconds."""

    what: str
    every_s: float
    do: Callable[[], object]
    due: float = 0.0


class Housekeeper:
    """A thread that runs chores; a chore that fails is logged and tried again."""

    def __init__(self, chores: Sequence[Chore]):
        self._chores = list(chores)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)

    def start(self) -> None:
        """Start the thread; it runs every chore immediately."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current chore."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            for chore in self._chores:
                if time.monotonic() >= chore.due:
                    chore.due = time.monotonic() + chore.every_s
                    self._do(chore)
            self._ended.wait(0.5)

    def _do(self, chore: Chore) -> None:
        try:
            chore.do()
        except (HunyuanLocalError, OSError) as error:
            logger.warning("%s: %s", chore.what, error)
        except Exception:  # one unreadable row must not stop the other chores
            logger.exception("%s failed; it will run again", chore.what)
