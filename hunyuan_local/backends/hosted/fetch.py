"""Waits for a submitted task at a hosted service, downloads its video and publishes the file."""

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
    """Polls a task, then downloads, checks and publishes its video.

    Args:
        model: the service's name of the model.
        job: a job with a ``remote_id``.
        ask: queries the state of the task once.
        limit_s: seconds from now within which the task must be done and its video downloaded.

    Attributes:
        is_done: whether the service has finished the task.
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
        """Wait for the task and publish its video; leaves no partial files.

        Raises:
            ConfigError, ModelLoadError: the safety check is on, and the classifier cannot be used.
            TaskFailedError: the service could not finish the task.
            ContentBlockedError: the safety check blocked the video.
            UncheckedVideoError: the safety check could not be made, and the video was moved aside.
            DownloadError: the file cannot be downloaded, or is not a complete video.
            OutputExistsError: another file has taken the name in the meantime.
            HostedError, GenerationCancelledError: see :class:`hunyuan_local.backends.hosted.client.ServiceClient`.
        """
        check_source_date()  # fail before waiting, not after
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
        """The task if it is finished; otherwise None, after reporting its progress."""
        job, name = self._job, self._job.backend
        assert job.remote_id is not None  # it was submitted
        view = self._ask(self._service, job.remote_id)
        if view.status in ("failed", "canceled"):
            why = self._service.scrub(view.error) or "no reason given"
            raise TaskFailedError(
                f"{name} could not finish task {job.remote_id}: {why}; change the request, or try again, which "
                "creates and bills a new task"
            )
        if view.status == "succeeded":
            if not view.outputs:
                raise InvalidAnswerError(f"{name} reports task {job.remote_id} as done, but without a video")
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
        """Download and check the file; if its URL does not work, ask once for a fresh one."""
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
            raise DownloadError(f"the video is done but could not be downloaded: {error}") from error
        self._download_s += time.monotonic() - began
        try:
            container_of(partial)
        except VideoError as error:
            raise DownloadError(f"{self._job.backend} returned an incomplete video file; try again later") from error

    def _timings(self, view: JobView, finished: float) -> Timings:
        """Split the time since the submission into stages; ``run_s`` is the service's own value if it reports one.

        In that case ``poll_s`` is an upper bound on the delay added by polling. The task cannot have ended before the
        last poll that saw it unfinished, nor earlier than ``run_s`` after the last poll that saw it queued:
        ``poll_s = finished - max(last_unfinished, last_queued + run_s)``.
        """
        submit_s, download_s = self._job.submit_s, self._download_s
        since = (datetime.now(UTC) - self._job.created_at).total_seconds() - (time.monotonic() - finished)
        waited = max(0.0, since - submit_s)
        self._context.reports_run_time = view.inference_s is not None
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
        """Check the file and publish it with its provenance."""
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
        """Examine the file and apply the safety mode.

        Raises:
            ContentBlockedError: the video is blocked; the message says that the task is billed anyway.
            UncheckedVideoError: the safety check could not be made, and the video was moved aside.
        """
        job, safety = self._job, self._context.safety
        try:
            found = examine(partial, safety)
        except ContentBlockedError as error:
            raise ContentBlockedError(
                f"{error}; task {job.remote_id} at {job.backend} finished and is billed anyway; its video remains at "
                "the service for as long as the service keeps it",
                error.verdict,
            ) from error
        keep_to_the_check(found, safety, partial, aside_of(job.output, job.job_id))
        return found


def _surprises(request: GenerationRequest, found: Findings, view: JobView) -> list[str]:
    """Notes about differences between the request and the video, which is kept because it is billed anyway."""
    notes, info = [], found.info
    if info and (info.width, info.height) != (request.width, request.height):
        notes.append(f"the video is {info.width}x{info.height}, not {request.width}x{request.height} as requested")
    if info and request.num_frames is not None and info.num_frames != request.num_frames:
        notes.append(f"the video has {info.num_frames} frames, not {request.num_frames} as requested")
    if view.seed is not None and view.seed != request.seed:
        notes.append(f"the service reports the seed {view.seed}, not {request.seed} as requested")
    if any(view.nsfw):
        notes.append("the service's safety checker flagged this video as not safe for work")
    return notes
