"""What must be done now and then beside the work: leases that ended, files past their time, workers to be restarted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import HunyuanLocalError
from .folder import DataFolder
from .store import JobStore

logger = logging.getLogger(__name__)


def prune(folder: DataFolder, store: JobStore, before: float) -> int:
    """Delete the jobs that finished before a moment (seconds since 1970), with their files; how many there were."""
    pruned = 0
    while old := store.list(finished_before=before, oldest_first=True):
        for job in old:
            folder.remove(job)  # first: a job without its file can be pruned again, a file without its job not
            pruned += store.delete(job.job_id)
    return pruned


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
