"""One submitted task at a hosted service, from waiting for it to the finished file in its place."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ...durable import discard
from ...errors import (
    ContentBlockedError,
    DownloadError,
    InvalidAnswerError,
    TaskFailedError,
    TaskTimeoutError,
    VideoError,
)
from ...json_text import json_text
from ...provenance import ModelIdentity, Provenance, RemoteTask, check_source_date, statement
from ...schema import GenerationRequest, GenerationResult, JobView, Progress, Timings
from ...video import container_of, partial_path
from ..base import GenerationContext
from ..safety_check import prepare
from .arrival import Findings, aside_of, deliver, examine, keep_to_the_check
from .client import ServiceClient
from .open_tasks import OpenTask


class VideoDownload:
    """Polls, downloads, checks and publishes.

    Args:
        model: what the service calls its model.
        job: a job with a ``remote_id``.
        ask: one look at the task of that id.
        limit_s: seconds from now until the task must be done and fetched.

    Attributes:
        is_done: the service has finished the task.
    """

    def __init__(
        self,
        service: ServiceClient,
        model: str,
        job: OpenTask,
        ask: Callable[[ServiceClient, str], JobView],
        context: GenerationContext,
        limit_s: float,
    ):
        self._service, self._model, self._job, self._ask, self._context = service, model, job, ask, context
        self._last_queued = self._last_unfinished = time.monotonic()
        self._deadline = time.monotonic() + limit_s
        self._download_s = 0.0
        self.is_done = False

    def run(self) -> GenerationResult:
        """The whole way; no file but the finished one stays, or one that is kept aside.

        Raises:
            ConfigError, ModelLoadError: frames are to be checked, and the classifier cannot be used.
            TaskFailedError: the service could not finish the task.
            ContentBlockedError: the safety check withholds the video.
            UncheckedVideoError: the safety check cannot be made, and the video is kept aside.
            DownloadError: the file cannot be fetched, or is not a whole video.
            OutputExistsError: the name was taken meanwhile.
            HostedError, GenerationCancelledError: see :class:`hunyuan_local.backends.hosted.client.ServiceClient`.
        """
        check_source_date()  # before a wait in vain
        prepare(self._context.safety, self._context.on_note)
        partial = partial_path(self._job.output, ".download")
        try:
            view = self._wait()
            finished = time.monotonic()
            self._fetch(view, partial)
            timings = self._timings(view, finished)
            return self._publish(view, partial, timings)
        finally:
            discard(partial)

    def _wait(self) -> JobView:
        view = self._service.poll(self._look, self._context.cancel, self._deadline, self._context.on_note)
        self.is_done = True
        return view

    def _look(self) -> JobView | None:
        """The finished task, or None, with progress, while it is not."""
        job, name = self._job, self._job.backend
        assert job.remote_id is not None  # it was submitted
        view = self._ask(self._service, job.remote_id)
        if view.status in ("failed", "canceled"):
            why = self._service.scrub(view.error) or "no reason given"
            raise TaskFailedError(
                f"{name} could not finish task {job.remote_id}: {why}; change the request, or try again, which makes, "
                "and bills, a new task"
            )
        if view.status == "succeeded":
            if not view.outputs:
                raise InvalidAnswerError(f"{name} says that task {job.remote_id} is done, and names no video")
            return view
        self._last_unfinished = time.monotonic()
        if view.status == "queued":
            self._last_queued = self._last_unfinished
        known = view.status == "running" and view.progress_percent is not None
        self._context.on_progress(
            Progress(
                stage="queue" if view.status == "queued" else "run",
                step=view.progress_percent if known else 0,
                total=100 if known else 0,
                seconds_left=view.eta_s,
            )
        )
        return None

    def _fetch(self, view: JobView, partial: Path) -> None:
        """Download and check; where the address does not work, ask for a fresh one, once."""
        self._context.on_progress(Progress(stage="download"))
        try:
            self._download(view.outputs[0], partial)
        except DownloadError:
            self._download(self._wait().outputs[0], partial)

    def _download(self, url: str, partial: Path) -> None:
        def fetch() -> bool:
            self._service.download(url, partial, on_percent, self._context.cancel)
            return True

        def on_percent(percent: int) -> None:
            self._context.on_progress(Progress(stage="download", step=percent, total=100))

        began = time.monotonic()
        try:
            self._service.poll(fetch, self._context.cancel, self._deadline, self._context.on_note)
        except TaskTimeoutError as error:
            raise DownloadError(f"the video is done, but could not be fetched: {error}") from error
        self._download_s += time.monotonic() - began
        try:
            container_of(partial)
        except VideoError as error:
            raise DownloadError(f"what {self._job.backend} gave is not a whole video file; try again later") from error

    def _timings(self, view: JobView, finished: float) -> Timings:
        """Seconds since the submission; the running is the service's own figure where it gives one.

        In that case the task ended no sooner than the look before, and no sooner than that long after it was last seen
        waiting: what is left until ``finished`` is the most that polling can have added.
        """
        submit_s, download_s = self._job.submit_s, self._download_s
        since = (datetime.now(UTC) - self._job.created_at).total_seconds() - (time.monotonic() - finished)
        waited = max(0.0, since - submit_s)
        if view.inference_s is None:
            run_s, poll_s = finished - self._last_queued, 0.0
        else:
            run_s = view.inference_s
            earliest_end = max(self._last_unfinished, self._last_queued + run_s)
            poll_s = min(max(0.0, finished - earliest_end), max(0.0, waited - run_s))
        rewrite_s = self._context.rewrite_s
        return Timings(
            rewrite_s=rewrite_s,
            submit_s=submit_s,
            queue_s=max(0.0, waited - run_s - poll_s),
            run_s=run_s,
            poll_s=poll_s,
            download_s=download_s,
            total_s=rewrite_s + submit_s + waited + download_s,
        )

    def _publish(self, view: JobView, partial: Path, timings: Timings) -> GenerationResult:
        """Check the file, and give it its statement and its name."""
        job, began = self._job, time.monotonic()
        self._context.on_progress(Progress(stage="write"))
        found = self._examined(partial)
        seed = job.request.seed if view.seed is None else view.seed
        request = job.request.replace(seed=seed)
        surprises = _surprises(job.request, found, view)

        def state(notes: list[str], file_sha256: str | None) -> Provenance:
            return statement(
                backend=job.backend,
                request=request,
                model=ModelIdentity(name=self._model),
                remote=RemoteTask(base_url=job.base_url, remote_id=job.remote_id),
                timings=timings,
                frames_sha256=found.frames_sha256,
                file_sha256=file_sha256,
                notes=[*job.notes, *surprises, *notes],
                safety=found.safety,
            )

        provenance = deliver(partial, job.output, found, state, job.overwrite)
        for note in [*surprises, *found.notes]:
            self._context.on_note(note)
        write_s = time.monotonic() - began
        return GenerationResult(
            path=job.output,
            backend=job.backend,
            model=self._model,
            seed=seed,
            request=request,
            video=found.info,
            timings=timings.model_copy(update={"write_s": write_s, "total_s": timings.total_s + write_s}),
            notes=provenance.notes,
            safety=found.safety,
            provenance=json.loads(json_text(provenance)),
        )

    def _examined(self, partial: Path) -> Findings:
        """What is known of the video, which may be published.

        Raises:
            ContentBlockedError: with what became of the task, which was done and is paid for.
            UncheckedVideoError: it is kept aside.
        """
        job, safety = self._job, self._context.safety
        try:
            found = examine(partial, safety)
        except ContentBlockedError as error:
            raise ContentBlockedError(
                f"{error}; task {job.remote_id} at {job.backend} was done and is billed all the same, and its video "
                "stays there for as long as the service keeps it",
                error.verdict,
            ) from error
        keep_to_the_check(found, safety, partial, aside_of(job.output, job.job_id))
        return found


def _surprises(request: GenerationRequest, found: Findings, view: JobView) -> list[str]:
    """What the service delivered otherwise than it was asked for; billed all the same, so kept."""
    notes, info = [], found.info
    if info and (info.width, info.height) != (request.width, request.height):
        notes.append(f"the video is {info.width}x{info.height}, not {request.width}x{request.height} as asked for")
    if info and request.num_frames is not None and info.num_frames != request.num_frames:
        notes.append(f"the video has {info.num_frames} frames, not {request.num_frames} as asked for")
    if view.seed is not None and view.seed != request.seed:
        notes.append(f"the service says it used the seed {view.seed}, not {request.seed} as asked for")
    if any(view.nsfw):
        notes.append("the service's checker marks this video as not safe for work")
    return notes
