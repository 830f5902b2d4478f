"""What must be done now and then beside the work: leases that ended, files past their time, workers to be restarted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import durable
from ..errors import HunyuanLocalError
from .folder import DataFolder
from .job import Job
from .store import JobStore

logger = logging.getLogger(__name__)

# An encoder writes all the time; a clock is seldom set by more.
_SURELY_LEFT_S = 2 * 3600.0


def prune(folder: DataFolder, store: JobStore, before: float) -> int:
    """Delete the jobs that finished before a moment (seconds since 1970), with their files; how many there were."""
    pruned, last = 0, None
    while old := store.find(finished_before=before, oldest_first=True, after=last):
        last = old[-1].number
        pruned += sum(discard(folder, store, job) for job in old)
    return pruned


def discard(folder: DataFolder, store: JobStore, job: Job) -> bool:
    """Delete a finished job, then its files; False if there is none, or it was put back into the queue meanwhile.

    Files that cannot be deleted are left to :func:`sweep`.
    """
    if not store.delete(job.job_id):
        return False
    try:
        folder.remove(job)
    except OSError as error:
        logger.warning("job %s is deleted, its files are not yet: %s", job.job_id, error)
    return True


def sweep(folder: DataFolder, store: JobStore, now: float) -> None:
    """Delete files that no process writes and no job has: left by workers that died, or finished after a deletion."""
    for unfinished in folder.of_unfinished_files():
        durable.sweep(unfinished)
    for path in folder.old_files(now - _SURELY_LEFT_S):
        if path.suffix == ".partial" or store.get(path.name.split(".")[0]) is None:
            folder.delete(path)


@dataclass
class Chore:
    """Something to do every ``every_s`` seconds."""

    what: str
    every_s: float
    do: Callable[[], object]
    due: float = 0.0


class Housekeeper:
    """A thread that does its chores; one that fails is told of in the log and tried again."""

    def __init__(self, chores: Sequence[Chore]):
        self._chores = list(chores)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)

    def start(self) -> None:
        """Begin, with every chore once at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the chore that is under way."""
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
        except Exception:  # one row that cannot be read must not end all chores
            logger.exception("%s failed; it is tried again", chore.what)
