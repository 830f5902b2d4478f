"""One worker: claims jobs from a store and generates their videos, under a lease that it renews.

The model stays loaded between jobs. The file of one job is finished while the next job starts. If this process dies,
another worker resumes its jobs from the last saved step. Independent of dialects and the network.
"""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ..backends.base import Backend, GenerationContext, Spending, StagedBackend
from ..backends.safety_check import prepare
from ..errors import (
    AuthenticationError,
    ContentBlockedError,
    GenerationCancelledError,
    GpuMemoryError,
    HunyuanLocalError,
    InvalidOutputError,
    InvalidRequestError,
    RateLimitError,
    RequestRefusedError,
    RewriteError,
    SpendingLimitError,
    SubmissionLostError,
    TaskFailedError,
    TerminationRequest,
    UncheckedVideoError,
    UnreachableError,
)
from ..schema import FailureKind, GenerationResult, Progress
from .folder import DataFolder
from .heartbeat import Heartbeat
from .job import Job
from .recovery import finished_before
from .store_protocol import WorkerStore
from .worker_config import WorkerConfig

logger = logging.getLogger(__name__)

# A retry would end the same way; any other error may pass, such as a full disk.
_FINAL_ERRORS = (
    InvalidRequestError, InvalidOutputError, GpuMemoryError,
    # Of a service: refused requests, and tasks that would be billed twice.
    RequestRefusedError, SubmissionLostError, TaskFailedError, UncheckedVideoError,
)  # fmt: skip
_MOST_AHEAD = 100_000
_LONGEST_PAUSE_S = 300.0


class Worker:
    """Runs the jobs of one data folder with one model, one job at a time."""

    def __init__(
        self,
        folder: DataFolder,
        store: WorkerStore,
        backend: Backend,
        config: WorkerConfig,
        spending: Spending | None = None,
    ):
        self._folder = folder
        self._store = store
        self._backend = backend
        self._config = config
        self._spending = spending
        # A plain flag: a signal handler must not wait for a lock that the interrupted thread may hold.
        self._stopping = False
        self._loading = True
        self._context: GenerationContext | None = None
        self._failing_since: float | None = None
        self._pause_s = config.pause_s
        self._files = ThreadPoolExecutor(1, "files")
        self._file: Future[None] | None = None
        self._queue = config.queue or backend.identity
        self._heartbeat = Heartbeat(store, config.name, backend, lease_s=config.lease_s, beat_s=config.beat_s)

    def stop(self) -> None:
        """End soon: save the running job's state and give it back. For signal handlers in the main thread.

        Raises:
            TerminationRequest: the model is loading, which cannot be cancelled by a flag.
        """
        self._stopping = True
        if self._loading:
            raise TerminationRequest
        if self._context is not None:
            self._context.keep_remote = True  # the job is not cancelled; the next worker resumes the service's task
            self._context.cancel.set()

    def run(self) -> None:
        """Load the model, then work until :meth:`stop`.

        Raises:
            HunyuanLocalError: the model cannot be loaded, or the store cannot be used.
            TerminationRequest: stopped while the model was loading.
        """
        with self._heartbeat, self._files:
            model = self._backend.identity if self._backend.config is None else self._backend.config.name
            logger.info("%s: loading the libraries and %s", self._config.name, model)
            self._prepare()
            self._loading = False
            logger.info("%s is ready: %s on %s", self._config.name, model, self._backend.device)
            while not self._stopping:
                self._store.expire()
                self._work_or_wait()
            self._wait_for_file()
            self._files.submit(self._store.close)

    def _prepare(self) -> None:
        """Load the safety check and the model; with ``encode_ahead``, encode the waiting prompts first."""
        prepare(self._config.safety, logger.info)
        if not (self._config.encode_ahead and isinstance(self._backend, StagedBackend)):
            self._load()
            return
        waiting = self._store.find(statuses=["queued", "running"], model=self._queue, limit=_MOST_AHEAD)
        requests = [job.request for job in waiting if not job.request.awaits_rewriting]
        if not requests:  # prompts that await rewriting are not final yet
            self._load()
            return
        random.shuffle(requests)  # so that workers rarely encode the same prompt at the same time
        context = GenerationContext(on_note=logger.info, on_progress=self._report_encoding)
        self._backend.encode_ahead(requests, self._folder.prompts, context)

    def _report_encoding(self, progress: Progress) -> None:
        if progress.stage == "encode":
            self._heartbeat.prepare(f"{progress.step} of {progress.total} prompts encoded")

    def _load(self) -> None:
        """Load the model, in the named profile or the one for its default video size."""
        try:
            self._backend.load(GenerationContext(on_note=logger.info))
        except GpuMemoryError as error:
            if error.stage is not None:
                raise
            # The plan refused before anything was loaded.
            logger.warning("the model's default size: %s; loading it for the first job that fits", error)

    def _work_or_wait(self) -> None:
        config = self._config
        free = self._folder.free_bytes()
        if free < config.min_free_bytes:
            self._heartbeat.wait_for(f"the disk has {free} bytes free; {config.min_free_bytes} are required")
            self._pause()
            return
        self._heartbeat.idle()
        job = self._store.claim(config.name, self._queue, config.lease_s)
        if job is None:
            self._wait_for_file()
            self._store.wait_for_change(lambda: self._stopping, config.poll_s)
        else:
            self._work(job)

    def _work(self, job: Job) -> None:
        """Run one job up to its file, which is finished while the next job starts."""
        logger.info("job %s: attempt %s of %s", job.job_id, job.attempts, job.max_attempts)
        self._context = context = self._context_of(job)
        self._heartbeat.hold(job, context)
        pending = None
        try:
            with self._settled(job):
                if self._stopping:  # the signal arrived before the context was set
                    raise GenerationCancelledError("stopped before the first step")
                pending = self._begin(job, context)
        finally:
            self._context = None
            if pending is None:
                self._heartbeat.let_go(job)
        if pending is not None:
            self._wait_for_file()
            self._file = self._files.submit(self._finish, job, pending)

    def _context_of(self, job: Job) -> GenerationContext:
        keeps_state = self._backend.keeps_state
        return GenerationContext(
            self._folder.video(job),
            overwrite=True,  # an earlier attempt may have died after writing the file
            checkpoint_dir=self._folder.unfinished(job) if keeps_state else None,
            checkpoint_every=self._config.checkpoint_every,
            allow_loss=self._config.allow_loss,
            submit_again=self._config.submit_again,
            spending=self._spending,
            preview_every=self._config.preview_every if keeps_state else 0,
            rewriting=self._config.rewriting,
            safety=self._config.safety,
            on_note=lambda text: logger.debug("job %s: %s", job.job_id, text),  # the result lists the notes too
        )

    def _begin(self, job: Job, context: GenerationContext) -> Callable[[], GenerationResult]:
        """Generate the video; returns a function that waits for its file."""
        if (found := finished_before(job, self._folder.video(job), self._config.safety)) is not None:
            logger.info("job %s: an earlier attempt had finished the file", job.job_id)
            return lambda: found
        job = self._rewritten(job, context)
        if isinstance(self._backend, StagedBackend):
            return self._backend.start(job.request, context).result
        result = self._backend.generate(job.request, context)
        return lambda: result

    def _rewritten(self, job: Job, context: GenerationContext) -> Job:
        """The job with its prompt rewritten if requested; stored immediately, so it is rewritten only once."""
        if not job.request.awaits_rewriting:
            return job
        request = self._backend.rewrite(job.request, context)
        if not self._store.rewritten(job, request):  # its new worker may have rewritten it differently
            context.keep_remote = True
            raise GenerationCancelledError("this worker no longer owns the job")
        return job.model_copy(update={"request": request})

    def _finish(self, job: Job, wait: Callable[[], GenerationResult]) -> None:
        """Record the job as done once its file is complete; runs in the file thread."""
        try:
            with self._settled(job):
                result = wait()
                if self._store.succeed(job, result.model_dump(mode="json", exclude={"path"})):
                    shutil.rmtree(self._folder.unfinished(job), ignore_errors=True)
                    logger.info("job %s: done in %.1f s", job.job_id, result.timings.total_s)
                    self._failing_since, self._pause_s = None, self._config.pause_s
                else:
                    logger.warning("job %s: finished too late, another worker owns it or it has ended", job.job_id)
                    if self._store.get(job.job_id) is None:
                        self._folder.remove(job)
        finally:
            self._heartbeat.let_go(job)

    def _wait_for_file(self) -> None:
        """Wait for the file in progress, at most one; an unexpected error there ends this worker too."""
        file, self._file = self._file, None
        if file is not None:
            file.result()

    @contextlib.contextmanager
    def _settled(self, job: Job) -> Iterator[None]:
        """Turn errors raised inside into the end of the job, or its return to the queue."""
        try:
            yield
        except GenerationCancelledError as error:
            logger.info("job %s: %s", job.job_id, error)
            self._stopped(job)
        except ContentBlockedError as error:
            logger.warning("job %s: withheld: %s", job.job_id, error)
            if self._store.fail(job, str(error), "moderation"):
                self._folder.remove(job)  # also files of an earlier attempt without the check
        except _FINAL_ERRORS as error:
            logger.warning("job %s: failed: %s", job.job_id, error)
            kind: FailureKind = "invalid" if isinstance(error, InvalidRequestError) else "execution"
            self._store.fail(job, str(error), kind)
        except RewriteError as error:
            logger.warning("job %s: %s", job.job_id, error)
            if error.may_pass:
                self._store.release(job, str(error))
                self._pause()
            else:
                self._store.fail(job, str(error))
        except SpendingLimitError as error:
            logger.info("job %s: %s", job.job_id, error)
            self._store.stopped(job, str(error))  # set aside: later jobs may have tasks that are already paid for
        except AuthenticationError:
            self._store.give_back(job)  # every other job would fail too
            raise
        except (RateLimitError, UnreachableError) as error:
            logger.warning("job %s: %s", job.job_id, error)
            self._store.give_back(job)
            self._wait_for_service(error)
        except HunyuanLocalError as error:
            logger.warning("job %s: attempt %s failed: %s", job.job_id, job.attempts, error)
            self._store.release(job, str(error))
            self._pause()
        except Exception as error:
            # Unexpected: this process may be unusable, for example because its CUDA context is broken.
            # The message may contain a traceback and paths, so it goes to the log only.
            logger.error("job %s: unexpected %s: %s", job.job_id, type(error).__name__, error)
            self._store.release(job, f"unexpected {type(error).__name__}; see the worker's log")
            raise

    def _wait_for_service(self, error: RateLimitError | UnreachableError) -> None:
        """Pause, twice as long after each failure in a row.

        Raises:
            RateLimitError, UnreachableError: the failures have lasted longer than ``patience_s``.
        """
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if now - self._failing_since > self._config.patience_s:
            raise error
        self._heartbeat.wait_for(str(error))
        asked_for_s = getattr(error, "retry_after_s", None) or 0.0
        self._pause(max(asked_for_s, self._pause_s))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _stopped(self, job: Job) -> None:
        """Record that the job stopped: back into the queue if this worker ends, otherwise cancelled."""
        if self._stopping:
            self._store.give_back(job)
        else:
            self._store.stopped(job)

    def _pause(self, seconds: float | None = None) -> None:
        ends = time.monotonic() + (self._config.pause_s if seconds is None else seconds)
        while not self._stopping and time.monotonic() < ends:
            time.sleep(0.05)
