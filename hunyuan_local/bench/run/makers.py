"""Makers execute the runs of a bench: locally in a child process, or through a hosted backend in this process."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from ...backends.base import GenerationContext, Spending
from ...backends.hosted.backend import HostedBackend
from ...backends.hosted.open_tasks import OpenTasks, fingerprint
from ...capabilities import Capabilities
from ...errors import (
    AuthenticationError,
    GenerationCancelledError,
    HunyuanLocalError,
    InvalidRequestError,
    SpendingLimitError,
    VideoError,
)
from ...provenance import read_provenance
from ...schema import GenerationResult, VideoInfo
from ...video import probe
from ..results.result import LOADED, Target
from .folder import make_folder
from .local_process import LocalProcess, ProcessDied
from .outcome import Outcome
from .plan import PlannedRun, folder_name

_UNFINISHED = ".*.partial"


class LocalMaker:
    """Generates videos with the local backend in a child process, :mod:`.local_program`.

    Args:
        folder: folder for the bench's videos.
        process: the process that keeps the model loaded; :meth:`close` ends it.
    """

    def __init__(self, target: Target, limits: Capabilities, folder: Path, process: LocalProcess):
        self.target, self.limits = target, limits
        self._folder, self._process = folder / folder_name(target), process
        self._has_died = False
        self._made_by: int | None = None  # process id of the previous run

    def make(self, run: PlannedRun) -> Outcome:
        """Generate one video; if the process dies, the run fails and the next run starts a new process."""
        make_folder(self._folder)
        try:
            output = (self._folder / run.file_name).absolute()  # the process may have another working directory
            outcome: Outcome = self._process.ask("generate", run.request, output)
        except ProcessDied as error:
            self._has_died = True
            remove_unfinished(self._folder)
            return Outcome(error=str(error), error_kind="ProcessDied")
        except BaseException:
            remove_unfinished(self._folder)
            raise
        if outcome.has_loaded and run.kind == "measured":
            outcome.notes.insert(0, f"{LOADED}: {self._why_loaded()}")
        self._has_died, self._made_by = False, self._process.pid
        return outcome

    def _why_loaded(self) -> str:
        if self._has_died or self._made_by not in (None, self._process.pid):
            return "the previous process died"
        if self._made_by is not None:
            return "this request needed another profile, or memory ran out"
        return "there was no warm-up; set 'warmup: {local: 1}' in the scenario file to exclude loading"

    def close(self) -> None:
        """End the process."""
        self._process.close()


class HostedMaker:
    """Generates videos with a hosted backend, one task at a time.

    Args:
        folder: folder for the bench's videos.
        began_at: start of the bench in ISO 8601; later videos in the folder belong to this bench.
        spending: checked before each submission; None if nothing is billed.
        open_tasks: record of the backend's open tasks (default: the user's).
    """

    def __init__(
        self,
        target: Target,
        backend: HostedBackend,
        folder: Path,
        began_at: str,
        *,
        allow_loss: bool = False,
        spending: Spending | None = None,
        open_tasks: OpenTasks | None = None,
    ):
        self.target, self.limits = target, backend.capabilities
        self.spending = spending
        self._backend, self._folder, self._began_at = backend, folder / folder_name(target), began_at
        self._allow_loss, self._open_tasks = allow_loss, open_tasks or OpenTasks()

    def check_key(self) -> None:
        """Check for an API key before the first run.

        Raises:
            AuthenticationError: there is no key.
        """
        self._backend.load()

    def is_open(self, run: PlannedRun) -> bool:
        """Whether a task of this run is open at the service, or its video is already in the folder."""
        mark = fingerprint(self._backend.name, self._backend.base_url, run.request, self._folder / run.file_name)
        return any(job.fingerprint == mark for job in self._open_tasks.jobs()) or self._delivered(run) is not None

    def will_send(self, run: PlannedRun) -> bool:
        """Whether the run would submit a new task: it is not refused locally, and it has no open task."""
        verdict = self._backend.explain(run.request).verdict
        is_held = verdict == "accepted" or (verdict == "adjusted" and self._allow_loss)
        return is_held and not self.is_open(run)

    def make(self, run: PlannedRun) -> Outcome:
        """Generate one video; a task that an interruption left open is resumed rather than paid for again."""
        if (result := self._delivered(run)) is not None:
            return Outcome(result, continued=True, notes=["the bench was stopped just after this video was downloaded"])
        continued = self.is_open(run)
        notes: list[str] = []
        context = GenerationContext(
            self._folder / run.file_name, overwrite=True, on_note=notes.append, allow_loss=self._allow_loss,
            keep_remote=True, spending=self.spending,
        )  # fmt: skip
        make_folder(self._folder)
        began = time.monotonic()
        try:
            outcome = Outcome(self._backend.generate(run.request, context))
        except GenerationCancelledError:
            raise
        except HunyuanLocalError as error:
            outcome = _failure(error)
        except Exception as error:  # any error is the result of this run; the other runs continue
            outcome = Outcome(error=str(error).strip() or "no reason given", error_kind=type(error).__name__)
        total_s = None if continued else time.monotonic() - began
        if outcome.result is not None:  # the note on how to resume is obsolete
            notes = [note for note in notes if not note.startswith(f"task {context.remote_id} at ")]
        return replace(
            outcome, total_s=total_s, notes=notes, continued=continued, reports_run_time=context.reports_run_time
        )

    def close(self) -> None:
        """Close the connections."""
        self._backend.close()

    def _delivered(self, run: PlannedRun) -> GenerationResult | None:
        """The video of this run, if it was downloaded but the bench was stopped before it saved the row."""
        path = self._folder / run.file_name
        if not path.is_file():
            return None
        try:
            made = read_provenance(path)
        except VideoError:
            return None
        where = made.remote.base_url if made.remote is not None else None
        if made.created_at < self._began_at or where != self._backend.base_url or made.request.seed is None:
            return None
        return GenerationResult(
            path=path,
            backend=made.backend,
            model=made.model.name or made.backend,
            seed=made.request.seed,
            request=made.request,
            video=_probed(path),
            timings=made.timings,
            notes=made.notes,
            provenance=made.model_dump(mode="json"),
        )


def _probed(path: Path) -> VideoInfo | None:
    """Properties of a downloaded file; None if it cannot be decoded; the run still counts."""
    try:
        return probe(path)
    except VideoError:
        return None


def remove_unfinished(folder: Path) -> None:
    """Delete the partial files of a process that died; no other process writes to this folder."""
    for path in folder.rglob(_UNFINISHED):
        path.unlink(missing_ok=True)


def _failure(error: HunyuanLocalError) -> Outcome:
    return Outcome(
        error=str(error),
        error_kind=type(error).__name__,
        is_refused=isinstance(error, InvalidRequestError),
        ends_target=isinstance(error, AuthenticationError | SpendingLimitError),
    )
