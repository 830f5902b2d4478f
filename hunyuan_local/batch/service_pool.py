"""Workers for a hosted service: threads of this process, since they only wait for the service."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from ..backends.base import Backend
from ..backends.hosted.spending import Budget
from ..errors import HunyuanLocalError, TerminationRequest
from ..jobs.folder import DataFolder
from ..jobs.store import JobStore
from ..jobs.worker import Worker
from ..jobs.worker_config import WorkerConfig, worker_name

logger = logging.getLogger(__name__)


class ServicePool:
    """Runs up to ``concurrency`` tasks at a time. Implements :class:`hunyuan_local.jobs.pool.Pool`.

    Args:
        folder, store: data folder and job store of the batch.
        make_backend: creates the backend of one thread; a backend is not thread-safe.
        concurrency: number of threads, and so of open tasks at the service.
        budget: checked before each submission.
        config: configuration of every worker; the pool sets the name.
    """

    def __init__(
        self,
        folder: DataFolder,
        store: JobStore,
        make_backend: Callable[[], Backend],
        concurrency: int,
        budget: Budget,
        config: WorkerConfig,
    ):
        self.size, self.deaths, self.last_words = concurrency, 0, ""
        self.error: HunyuanLocalError | None = None
        self._backends = [make_backend() for _ in range(concurrency)]
        self._workers = [
            Worker(folder, store, backend, config.model_copy(update={"name": worker_name(f"task{number}")}), budget)
            for number, backend in enumerate(self._backends)
        ]
        self._threads: list[threading.Thread] = []

    def tick(self) -> None:
        """Start the threads on the first call."""
        if not self._threads:
            pairs = zip(self._workers, self._backends, strict=True)
            self._threads = [threading.Thread(target=self._run, args=pair) for pair in pairs]
            for thread in self._threads:
                thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether every thread has ended, for example because the API key is missing."""
        return bool(self._threads) and not any(thread.is_alive() for thread in self._threads)

    def ask_to_end(self) -> None:
        """Ask every thread to end; tasks stay open at the service, and the next run resumes them."""
        for worker in self._workers:
            with contextlib.suppress(TerminationRequest):  # raised while a model loads; here, none is loaded
                worker.stop()

    def stop(self, grace_s: float) -> None:
        """End every thread; waits for calls to the service that are in progress."""
        self.ask_to_end()
        for thread in self._threads:
            thread.join()

    def _run(self, worker: Worker, backend: Backend) -> None:
        try:
            with contextlib.closing(backend):
                worker.run()
        except HunyuanLocalError as error:
            self.deaths += 1
            self.last_words, self.error = str(error), error
        except Exception as error:
            self.deaths += 1
            self.last_words = f"unexpected {type(error).__name__}: {error}"
            logger.exception("a worker thread of the batch died")
