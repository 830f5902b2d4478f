"""The job store and data folder for a worker on another machine, through Ray. Needs no shared disk.

Jobs, leases and progress go through the owner's :class:`.store_actor.StoreActor`. Files are in a folder on the
worker's machine: a job's saved state arrives with the job, and is sent back after each save; a finished video is sent
before the job is recorded as done.
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

_PATIENCE_S = 60.0  # for an answer from the store actor, which may be restarting
_TRANSFER_PATIENCE_S = 1800.0
_PIECE_BYTES = 16 * 1024**2
_LOOK_S = 0.05

Stamp = tuple[tuple[str, int, int], ...]  # (name, modification time in ns, bytes) of each file


class Keeper:
    """Calls the store actor; failures on the way become a :class:`StoreError`."""

    def __init__(self, actor: Any):
        self._actor = actor

    def send(self, method: str, *values: Any, **named: Any) -> Any:
        """Call a method without waiting; returns Ray's reference to the answer."""
        return getattr(self._actor, method).remote(*values, **named)

    def call(self, method: str, *values: Any, patience_s: float = _PATIENCE_S, **named: Any) -> Any:
        """Call a method and return the answer.

        Raises:
            StoreError: the actor does not answer, or the store cannot be used.
        """
        return self.answer(self.send(method, *values, **named), patience_s)

    def has_answered(self, reference: Any, patience_s: float = 0.0) -> bool:
        """Whether a call has returned or failed within ``patience_s`` seconds."""
        import ray

        return bool(ray.wait([reference], timeout=patience_s)[0])

    def put(self, piece: bytes) -> Any:
        """Store data too large for a call in Ray's object store; returns the reference."""
        import ray

        return ray.put(piece)

    def answer(self, reference: Any, patience_s: float = _PATIENCE_S) -> Any:
        """Wait for the answer to a call; raises as :meth:`call`."""
        import ray

        try:
            return ray.get(reference, timeout=patience_s)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HunyuanLocalError):
                raise error.cause from None
            raise StoreError(f"the process with the job store failed: {error.cause}") from error
        except ray.exceptions.RayError as error:  # includes timeouts
            raise StoreError(f"the process with the job store does not answer: {type(error).__name__}") from error


class RemoteFolder(DataFolder):
    """A job's files on the replica's machine, in a folder that only this replica uses."""

    def __init__(self, root: Path, keeper: Keeper):
        super().__init__(root)
        self._keeper = keeper

    def free_bytes(self) -> int:
        """Free space on the local or the owner's disk, whichever is less."""
        there: int = self._keeper.call("free_bytes")
        return min(super().free_bytes(), there)

    def with_image(self, request: GenerationRequest) -> GenerationRequest:
        """Return a request with the content of its input image, which is on the owner's machine."""
        if request.image is None or request.image.is_here:
            return request
        found: GenerationRequest = self._keeper.call("with_image", request, patience_s=_TRANSFER_PATIENCE_S)
        return found

    def place(self, job: Job, files: Files) -> None:
        """Write a job's saved state where the backend looks for it, replacing an older one."""
        folder = self.unfinished(job)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def stamp(self, job: Job) -> Stamp:
        """Identifies one version of a job's saved state; empty if there is none."""
        found = []
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile, since the video is finished
            for path in sorted(self.unfinished(job).glob("*.safetensors")):
                said = path.stat()
                found.append((path.name, said.st_mtime_ns, said.st_size))
        return tuple(found)

    def read(self, job: Job, stamp: Stamp) -> Files:
        """The files of a saved state; skips files deleted meanwhile."""
        files = {}
        for name, *_ in stamp:
            with contextlib.suppress(FileNotFoundError):
                files[name] = (self.unfinished(job) / name).read_bytes()
        return files


class RemoteReports:
    """Sends a worker's reports to the owner's store."""

    def __init__(self, keeper: Keeper):
        self._keeper = keeper

    def report(self, report: WorkerReport) -> None:
        """Store a worker's report, with the current time."""
        self._keeper.call("report", report)

    def leave(self, name: str) -> None:
        """Delete the report of a worker that has ended."""
        self._keeper.call("leave", name)


class RemoteStore:
    """A :class:`~hunyuan_local.jobs.store_protocol.WorkerStore` that forwards to the owner's
    :class:`~hunyuan_local.jobs.store.JobStore`.

    Each method may raise :class:`StoreError`. Saved states are sent in the background; only a job's return to the
    queue waits for them.
    """

    def __init__(self, keeper: Keeper, folder: RemoteFolder):
        self._keeper, self._folder = keeper, folder
        self.worker_reports = RemoteReports(keeper)
        self._kept: dict[str, Stamp] = {}  # by job id: the state that the owner has or is receiving
        self._sending: dict[str, Any] = {}
        self._lock = threading.Lock()

    def claim(self, worker: str, model: str, lease_s: float) -> Job | None:
        """Claim the oldest waiting job; the files of its saved state are on this machine when this returns."""
        found = self._keeper.call("claim", worker, model, lease_s, patience_s=_TRANSFER_PATIENCE_S)
        if found is None:
            return None
        job: Job
        job, files = found
        self._folder.place(job, files)
        self._kept[job.job_id] = self._folder.stamp(job)
        return job

    def beat(self, job: Job, lease_s: float, progress: Progress | None = None) -> bool:
        """Renew the lease and report progress; starts to send a state saved since the last call."""
        goes_on: bool = self._ask("beat", job, lease_s, progress)
        if goes_on:
            with self._lock:
                self._send_state(job)
        return goes_on

    def rewritten(self, job: Job, request: GenerationRequest) -> bool:
        """Store a running job's rewritten prompt; returns whether the worker still owns the job."""
        return bool(self._ask("rewritten", job, request))

    def succeed(self, job: Job, result: dict[str, Any]) -> bool:
        """Send the video to the owner, then finish the job; returns whether the worker still owned it."""
        with self._folder.video(job).open("rb") as file:
            pieces = [self._keeper.put(piece) for piece in iter(lambda: file.read(_PIECE_BYTES), b"")]
        done: bool = self._keeper.call("succeed", job, result, pieces, patience_s=_TRANSFER_PATIENCE_S)
        self._forget(job)
        return done

    def fail(self, job: Job, error: str, failure: FailureKind = "execution") -> bool:
        """End a job that cannot succeed; returns whether the worker still owned it."""
        done: bool = self._ask("fail", job, error, failure)
        self._forget(job)
        return done

    def stopped(self, job: Job, why: str = "cancelled") -> bool:
        """End a job that was cancelled or set aside; returns whether the worker still owned it."""
        done: bool = self._ask("stopped", job, why)
        self._forget(job)
        return done

    def give_back(self, job: Job) -> bool:
        """Send the saved state to the owner, then put the job back into the queue without counting the attempt."""
        self._send_final_state(job)
        return bool(self._ask("give_back", job))

    def release(self, job: Job, error: str) -> bool:
        """Send the saved state to the owner, then queue the job again, or fail it after the last attempt."""
        self._send_final_state(job)
        return bool(self._ask("release", job, error))

    def get(self, job_id: str) -> Job | None:
        """One job, or None if there is no such job."""
        job: Job | None = self._ask("get", job_id)
        return job

    def find(
        self, *, statuses: Collection[JobStatus] = (), model: str | None = None, limit: int = 100
    ) -> Sequence[Job]:
        """The newest jobs of ``model`` with one of ``statuses``; empty means all statuses."""
        found: Sequence[Job] = self._ask("find", statuses=statuses, model=model, limit=limit)
        return found

    def expire(self) -> Sequence[Job]:
        """Release the jobs whose lease has expired."""
        lost: Sequence[Job] = self._ask("expire")
        return lost

    def wait_for_change(self, ended: Callable[[], bool], limit_s: float) -> None:
        """Return when ``ended()`` is true, or at the limit: asking for changes would cost as much as claiming."""
        pause, waited_s = threading.Event(), 0.0
        while waited_s < limit_s and not ended():
            pause.wait(_LOOK_S)
            waited_s += _LOOK_S

    def close(self) -> None:
        """Do nothing: there is no connection to close."""

    def _ask(self, method: str, *values: Any, **named: Any) -> Any:
        return self._keeper.call("ask", method, *values, **named)

    def _send_state(self, job: Job) -> None:
        """Send the saved state if the owner has another version and no earlier one is on its way."""
        sending = self._sending.get(job.job_id)
        if sending is not None and not self._has_arrived(job, sending):
            return
        stamp = self._folder.stamp(job)
        if stamp and stamp != self._kept.get(job.job_id):
            self._kept[job.job_id] = stamp
            self._sending[job.job_id] = self._keeper.send("save", job, self._folder.read(job, stamp))

    def _has_arrived(self, job: Job, sending: Any, patience_s: float = 0.0) -> bool:
        """Whether a state is no longer in transit; a state that failed to arrive will be sent again."""
        if not self._keeper.has_answered(sending, patience_s):
            return False
        del self._sending[job.job_id]
        try:
            self._keeper.answer(sending)
        except StoreError as error:
            logger.warning("job %s: its saved state did not arrive: %s", job.job_id, error)
            self._kept.pop(job.job_id, None)
        return True

    def _send_final_state(self, job: Job) -> None:
        """Send the newest saved state and wait for it; if it does not arrive, the next worker repeats some steps."""
        with self._lock:
            self._wait_for_state(job)
            self._send_state(job)
            self._wait_for_state(job)

    def _wait_for_state(self, job: Job) -> None:
        if (sending := self._sending.get(job.job_id)) is not None:
            self._has_arrived(job, sending, _PATIENCE_S)

    def _forget(self, job: Job) -> None:
        """Delete the local files of a job that has ended."""
        with self._lock:
            self._kept.pop(job.job_id, None)
            self._sending.pop(job.job_id, None)
            self._folder.remove(job)
