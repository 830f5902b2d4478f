"""One worker: takes job after job from a store and makes the videos, under a lease that it keeps alive.

The model stays loaded between jobs. Whatever happens to this process, its job is run again by
whoever comes next, from the last saved step. Knows nothing about dialects or the network.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import dataclass

from ..backends.base import GenerationContext
from ..backends.local import LocalBackend
from ..errors import (
    GenerationCancelledError,
    GpuMemoryError,
    HunyuanLocalError,
    InvalidOutputError,
    InvalidRequestError,
    TerminationRequest,
)
from ..schema import GenerationResult
from .folder import DataFolder
from .job import Job
from .pulse import Pulse
from .store import JobStore

logger = logging.getLogger(__name__)

# The same request would end the same way; anything else may pass, such as a full disk.
_FINAL_ERRORS = (InvalidRequestError, InvalidOutputError, GpuMemoryError)


@dataclass(frozen=True)
class WorkerConfig:
    """How a worker works; times in seconds.

    Attributes:
        name: unique among all workers of a store.
        lease_s: a job is given to another worker after so long without a sign of life.
        beat_s: between two signs of life; also how soon a cancellation is seen.
        poll_s: between two looks for a job, unless the store changes.
        pause_s: after a failure that may pass, and while the disk is full.
        checkpoint_every: save the unfinished video after so many steps.
        min_free_bytes: no job is begun with less free on the disk.
    """

    name: str
    lease_s: float = 30.0
    beat_s: float = 1.0
    poll_s: float = 1.0
    pause_s: float = 5.0
    checkpoint_every: int = 5
    min_free_bytes: int = 0


class Worker:
    """Works on the jobs of one folder with one model, one job at a time."""

    def __init__(self, folder: DataFolder, store: JobStore, backend: LocalBackend, config: WorkerConfig):
        self._folder = folder
        self._store = store
        self._backend = backend
        self._config = config
        # A plain flag: a signal handler must not wait for a lock that the thread it interrupts may hold.
        self._stopping = False
        self._loading = True
        self._context: GenerationContext | None = None
        self._pulse = Pulse(store, config.name, backend, lease_s=config.lease_s, beat_s=config.beat_s)

    def stop(self) -> None:
        """End soon: save the running job's state and give it back. For signal handlers, in the main thread.

        Raises:
            TerminationRequest: the model is being loaded, which looks at no switch.
        """
        self._stopping = True
        if self._loading:
            raise TerminationRequest
        if self._context is not None:
            self._context.cancel.set()

    def run(self) -> None:
        """Load the model, then work until :meth:`stop`.

        Raises:
            HunyuanLocalError: the model cannot be loaded, or the store cannot be used.
            TerminationRequest: stopped while the model was being loaded.
        """
        with self._pulse:
            self._load()
            self._loading = False
            logger.info("%s is ready: %s on %s", self._config.name, self._backend.config.name, self._backend.device)
            while not self._stopping:
                self._store.expire()
                self._work_or_wait()

    def _load(self) -> None:
        """Load the model, in the profile for videos of its usual size unless one was named."""
        try:
            self._backend.load(GenerationContext(on_note=logger.info))
        except GpuMemoryError as error:
            if error.stage is not None:
                raise
            # The plan's refusal: nothing was loaded yet.
            logger.warning("the model's usual size: %s; it is loaded for the first job that fits", error)

    def _work_or_wait(self) -> None:
        config = self._config
        free = self._folder.free_bytes()
        if free < config.min_free_bytes:
            self._pulse.wait_for(f"the disk has {free} bytes free, {config.min_free_bytes} are needed")
            self._pause()
            return
        self._pulse.idle()
        job = self._store.claim(config.name, self._backend.config.identity, config.lease_s)
        if job is None:
            self._store.wait_for_change(lambda: self._stopping, config.poll_s)
        else:
            self._work(job)

    def _work(self, job: Job) -> None:
        """Bring one job to an end, or back into the queue."""
        logger.info("job %s: attempt %s of %s", job.job_id, job.attempts, job.max_attempts)
        self._context = context = GenerationContext(
            self._folder.video(job),
            overwrite=True,  # an earlier attempt may have died between the file and the store
            checkpoint_dir=self._folder.unfinished(job),
            checkpoint_every=self._config.checkpoint_every,
            on_note=lambda text: logger.debug("job %s: %s", job.job_id, text),  # the result has them
        )
        try:
            with self._pulse.holding(job, context):
                if self._stopping:  # the signal came before there was something to cancel
                    raise GenerationCancelledError("stopped before the first step")
                result = self._backend.generate(job.request, context)
        except GenerationCancelledError as error:
            logger.info("job %s: %s", job.job_id, error)
            self._stopped(job)
        except _FINAL_ERRORS as error:
            logger.warning("job %s: failed: %s", job.job_id, error)
            kind = "invalid" if isinstance(error, InvalidRequestError) else "execution"
            self._store.fail(job, str(error), kind)
        except HunyuanLocalError as error:
            logger.warning("job %s: attempt %s failed: %s", job.job_id, job.attempts, error)
            self._store.release(job, str(error))
            self._pause()
        except Exception as error:
            # Nobody foresaw it: this process may be of no more use, a GPU's context least of all.
            # Its words may hold a trace and paths, so they are for the log alone.
            logger.error("job %s: unexpected %s: %s", job.job_id, type(error).__name__, error)
            self._store.release(job, f"unexpected {type(error).__name__}; the worker's log says more")
            raise
        else:
            self._finish(job, result)
        finally:
            self._context = None

    def _finish(self, job: Job, result: GenerationResult) -> None:
        if self._store.succeed(job, result.model_dump(mode="json", exclude={"path"})):
            shutil.rmtree(self._folder.unfinished(job), ignore_errors=True)
            logger.info("job %s: done in %.1f s", job.job_id, result.timings.total_s)
        else:
            logger.warning("job %s: finished too late, it is no longer this worker's", job.job_id)
            if self._store.get(job.job_id) is None:
                self._folder.remove(job)

    def _stopped(self, job: Job) -> None:
        """Because this worker is to end, because the job is cancelled, or because the lease was lost."""
        if self._stopping:
            self._store.give_back(job)
        else:
            self._store.stopped(job)

    def _pause(self) -> None:
        ends = time.monotonic() + self._config.pause_s
        while not self._stopping and time.monotonic() < ends:
            time.sleep(0.05)


def worker_name(slot: str = "worker") -> str:
    """A name that no other worker has: the slot, the process and a random part."""
    return f"{slot}-{os.getpid()}-{os.urandom(3).hex()}"
