"""The job store and the data folder as a worker on another machine has them: through Ray, from the owner's.

Jobs, leases and progress are asked of and told to the owner's :class:`.store_actor.StoreActor`.
Files lie in a folder of the worker's own machine: a job's saved state is fetched with the job and sent whenever it
is saved anew; a finished video is sent before the store is told. Needs no shared disk.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ...errors import HunyuanLocalError, StoreError
from ...schema import FailureKind, GenerationRequest, JobStatus, Progress
from ..folder import DataFolder
from ..job import Job
from ..worker_reports import WorkerReport
from .store_actor import Files

logger = logging.getLogger(__name__)

_PATIENCE_S = 60.0  # for an answer of the store's keeper, which may be starting again
_TRANSFER_PATIENCE_S = 1800.0
_PIECE_BYTES = 16 * 1024**2
_LOOK_S = 0.05

Stamp = tuple[tuple[str, int, int], ...]  # name, time of the last change in ns, and bytes of each file


class Keeper:
    """The store's keeper as a replica reaches it; what goes wrong on the way is a :class:`StoreError`."""

    def __init__(self, actor: Any):
        self._actor = actor

    def send(self, method: str, *values: Any, **named: Any) -> Any:
        """Call a method there without waiting; returns Ray's reference to the answer."""
        return getattr(self._actor, method).remote(*values, **named)

    def call(self, method: str, *values: Any, patience_s: float = _PATIENCE_S, **named: Any) -> Any:
        """Call a method there; returns the answer.

        Raises:
            StoreError: it does not answer, or the store cannot be used.
        """
        return self.answer(self.send(method, *values, **named), patience_s)

    def has_answered(self, reference: Any, patience_s: float = 0.0) -> bool:
        """Whether there is an answer to what was sent, good or bad, within so many seconds."""
        import ray

        return bool(ray.wait([reference], timeout=patience_s)[0])

    def put(self, piece: bytes) -> Any:
        """Lay down what is too large for a call; returns Ray's reference to it."""
        import ray

        return ray.put(piece)

    def answer(self, reference: Any, patience_s: float = _PATIENCE_S) -> Any:
        """The answer to what was sent; as :meth:`call`."""
        import ray

        try:
            return ray.get(reference, timeout=patience_s)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HunyuanLocalError):
                raise error.cause from None
            raise StoreError(f"the process with the job store failed: {error.cause}") from error
        except ray.exceptions.RayError as error:  # also a time that is up
            raise StoreError(f"the process with the job store does not answer: {type(error).__name__}") from error


class RemoteFolder(DataFolder):
    """A job's files on the replica's own machine, in a folder of this replica alone."""

    def __init__(self, root: Path, keeper: Keeper):
        super().__init__(root)
        self._keeper = keeper

    def free_bytes(self) -> int:
        """What is free here or on the owner's disk, whichever is less."""
        there: int = self._keeper.call("free_bytes")
        return min(super().free_bytes(), there)

    def place(self, job: Job, files: Files) -> None:
        """Put the saved state of a job where the backend looks for it, in the place of an older one."""
        folder = self.unfinished(job)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def stamp(self, job: Job) -> Stamp:
        """What tells one saved state of a job from the next; empty where there is none."""
        found = []
        with contextlib.suppress(FileNotFoundError):  # deleted at this moment: the video is finished
            for path in sorted(self.unfinished(job).glob("*.safetensors")):
                said = path.stat()
                found.append((path.name, said.st_mtime_ns, said.st_size))
        return tuple(found)

    def read(self, job: Job, stamp: Stamp) -> Files:
        """The files of a saved state; those that are no longer there are left out."""
        files = {}
        for name, *_ in stamp:
            with contextlib.suppress(FileNotFoundError):
                files[name] = (self.unfinished(job) / name).read_bytes()
        return files


class RemoteReports:
    """What a worker says of itself, told to the owner's reports."""

    def __init__(self, keeper: Keeper):
        self._keeper = keeper

    def report(self, report: WorkerReport) -> None:
        """See :meth:`hunyuan_local.jobs.worker_reports.WorkerReports.report`."""
        self._keeper.call("report", report)

    def leave(self, name: str) -> None:
        """See :meth:`hunyuan_local.jobs.worker_reports.WorkerReports.leave`."""
        self._keeper.call("leave", name)


class RemoteStore:
    """A :class:`~hunyuan_local.jobs.store_protocol.WorkerStore` whose work the owner's
    :class:`~hunyuan_local.jobs.store.JobStore` does.

    Each method may raise a :class:`StoreError`. A saved state is sent beside the work, and nothing waits for it but the
    job's return into the queue.
    """

    def __init__(self, keeper: Keeper, folder: RemoteFolder):
        self._keeper, self._folder = keeper, folder
        self.worker_reports = RemoteReports(keeper)
        self._kept: dict[str, Stamp] = {}  # by job: the state that the owner has, or is being sent
        self._sending: dict[str, Any] = {}
        self._lock = threading.Lock()

    def claim(self, worker: str, model: str, lease_s: float) -> Job | None:
        """See :meth:`JobStore.claim`; the files of its saved state are here when this returns."""
        found = self._keeper.call("claim", worker, model, lease_s, patience_s=_TRANSFER_PATIENCE_S)
        if found is None:
            return None
        job: Job
        job, files = found
        self._folder.place(job, files)
        self._kept[job.job_id] = self._folder.stamp(job)
        return job

    def beat(self, job: Job, lease_s: float, progress: Progress | None = None) -> bool:
        """See :meth:`JobStore.beat`; begins to send a state that was saved since the last one."""
        goes_on: bool = self._ask("beat", job, lease_s, progress)
        if goes_on:
            with self._lock:
                self._send_state(job)
        return goes_on

    def rewritten(self, job: Job, request: GenerationRequest) -> bool:
        """See :meth:`JobStore.rewritten`."""
        return bool(self._ask("rewritten", job, request))

    def succeed(self, job: Job, result: dict[str, Any]) -> bool:
        """See :meth:`JobStore.succeed`; the video is with the owner before the job is finished."""
        with self._folder.video(job).open("rb") as file:
            pieces = [self._keeper.put(piece) for piece in iter(lambda: file.read(_PIECE_BYTES), b"")]
        done: bool = self._keeper.call("succeed", job, result, pieces, patience_s=_TRANSFER_PATIENCE_S)
        self._forget(job)
        return done

    def fail(self, job: Job, error: str, failure: FailureKind = "execution") -> bool:
        """See :meth:`JobStore.fail`."""
        done: bool = self._ask("fail", job, error, failure)
        self._forget(job)
        return done

    def stopped(self, job: Job, why: str = "cancelled") -> bool:
        """See :meth:`JobStore.stopped`."""
        done: bool = self._ask("stopped", job, why)
        self._forget(job)
        return done

    def give_back(self, job: Job) -> bool:
        """See :meth:`JobStore.give_back`; the saved state is with the owner when this returns."""
        self._hand_in_state(job)
        return bool(self._ask("give_back", job))

    def release(self, job: Job, error: str) -> bool:
        """See :meth:`JobStore.release`; the saved state is with the owner when this returns."""
        self._hand_in_state(job)
        return bool(self._ask("release", job, error))

    def get(self, job_id: str) -> Job | None:
        """See :meth:`JobStore.get`."""
        job: Job | None = self._ask("get", job_id)
        return job

    def find(
        self, *, statuses: Collection[JobStatus] = (), model: str | None = None, limit: int = 100
    ) -> Sequence[Job]:
        """See :meth:`JobStore.find`."""
        found: Sequence[Job] = self._ask("find", statuses=statuses, model=model, limit=limit)
        return found

    def expire(self) -> Sequence[Job]:
        """See :meth:`JobStore.expire`."""
        lost: Sequence[Job] = self._ask("expire")
        return lost

    def wait_for_change(self, ended: Callable[[], bool], limit_s: float) -> None:
        """Return when ``ended`` says so, or at the limit: to ask whether anything changed is to ask for a job."""
        pause, waited_s = threading.Event(), 0.0
        while waited_s < limit_s and not ended():
            pause.wait(_LOOK_S)
            waited_s += _LOOK_S

    def close(self) -> None:
        """Nothing is open here."""

    def _ask(self, method: str, *values: Any, **named: Any) -> Any:
        return self._keeper.call("ask", method, *values, **named)

    def _send_state(self, job: Job) -> None:
        """Send the saved state if the owner has another one, and the last one has arrived."""
        sending = self._sending.get(job.job_id)
        if sending is not None and not self._has_arrived(job, sending):
            return
        stamp = self._folder.stamp(job)
        if stamp and stamp != self._kept.get(job.job_id):
            self._kept[job.job_id] = stamp
            self._sending[job.job_id] = self._keeper.send("save", job, self._folder.read(job, stamp))

    def _has_arrived(self, job: Job, sending: Any, patience_s: float = 0.0) -> bool:
        """Whether a state is no longer on its way; one that did not arrive is sent again."""
        if not self._keeper.has_answered(sending, patience_s):
            return False
        del self._sending[job.job_id]
        try:
            self._keeper.answer(sending)
        except StoreError as error:
            logger.warning("job %s: its saved state did not arrive: %s", job.job_id, error)
            self._kept.pop(job.job_id, None)
        return True

    def _hand_in_state(self, job: Job) -> None:
        """Send the newest saved state and wait for it; without it the next worker only has more to do."""
        with self._lock:
            self._wait_for_state(job)
            self._send_state(job)
            self._wait_for_state(job)

    def _wait_for_state(self, job: Job) -> None:
        if (sending := self._sending.get(job.job_id)) is not None:
            self._has_arrived(job, sending, _PATIENCE_S)

    def _forget(self, job: Job) -> None:
        """The job is over: its files are of no more use here."""
        with self._lock:
            self._kept.pop(job.job_id, None)
            self._sending.pop(job.job_id, None)
            self._folder.remove(job)
