"""Operations on jobs for all dialects: submit, view, list, wait, cancel and delete. Independent of HTTP.

All methods except :meth:`VideoService.wait` block on disk access; do not call them in an event loop's thread.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from starlette.concurrency import run_in_threadpool

from ..backends.base import with_seed
from ..backends.local.profile_choice import AUTO, named_profile
from ..capabilities import limits_of, settle
from ..config import ModelConfig, load_model_config
from ..errors import ConfigError, FieldProblem, HunyuanLocalError, InvalidRequestError, QueueFullError
from ..jobs.eta import Forecaster
from ..jobs.folder import DataFolder
from ..jobs.housekeeping import discard
from ..jobs.job import Job
from ..jobs.store import JobStore
from ..schema import GenerationRequest, JobView
from ..weights.cache import find_here
from ..wires.base import Listing, Submission
from ..wires.wording import in_its_words
from .config import ServerConfig
from .error_answers import DIALECTS, DiskFullError, NoPlaceError, UnknownJobError, VideoNotReadyError
from .image_model import model_for_images
from .image_reader import ImageReader
from .job_view import pause_s, view_of
from .signed_links import LinkSigner
from .webhooks import WebhookCall, check_webhook, make_call

logger = logging.getLogger(__name__)

# How a response contains the video: by signed URL; as base64 if the submitter asked for it; or not at all, since the
# dialect has a separate route for files, valid as long as the job is kept.
Delivery = Literal["link", "inline", "path"]

_UNKNOWN_WAIT_S = 10.0  # estimate for a free place in the queue before any job was measured


class VideoService:
    """The jobs of one server.

    Args:
        webhook_secret: ``whsec_...``, the signing key for webhooks.
    """

    def __init__(self, config: ServerConfig, folder: DataFolder, store: JobStore, webhook_secret: str):
        self.config, self.folder, self.store = config, folder, store
        self.webhook_secret = webhook_secret
        self.links = LinkSigner(folder.secret("links"), round(min(config.video_url_ttl_s, config.retention_s)))
        self.images = ImageReader(folder, config.allow_private_images)
        self._worker_reports = store.worker_reports
        self._forecaster = Forecaster(store, config.model.identity)

    def submit(
        self,
        dialect_name: str,
        submission: Submission,
        base_url: str,
        model: str | None = None,
        profile: str | None = None,
    ) -> Job:
        """Enqueue a job; it is on disk when this returns.

        Args:
            model: one of ``config.models``; None uses the server's own model or, if the request has an image that it
                cannot use, :func:`model_for_images`.
            profile: runtime profile for the model; None uses the server's own.

        Raises:
            InvalidRequestError: a text is too long, or the webhook URL is refused; with the submission's field names.
            ConfigError: no such model or profile, or its weights are not on this machine.
            DiskFullError: the disk has too little free space.
            NoPlaceError: the queue is full.
            StoreError: the job cannot be stored.
        """
        config = self.config
        if model is None and submission.request.image is not None:
            model = model_for_images(config)
        made_by, queue, model_workers = self._workers_of(model, profile)
        request = submission.request.with_defaults(
            dict(made_by.defaults) | {"rewrite": config.rewrite}, made_by.image_sizes
        )
        try:
            self._check(submission, request)
            settle(submission.request, made_by.name, limits_of(made_by))
        except InvalidRequestError as error:
            raise InvalidRequestError(in_its_words(error.problems, submission.said)) from error
        self.check_disk()
        request = with_seed(request, DIALECTS[dialect_name].CAPABILITIES)
        self.folder.keep_image(request)
        origin = {"dialect": dialect_name, "base_url": base_url, "inline": submission.inline, "model": made_by.name}
        try:
            return self.store.enqueue(
                request,
                queue,
                origin | model_workers,
                webhook=submission.webhook,
                max_attempts=config.max_attempts,
                max_queue=config.max_queue,
            )
        except QueueFullError as error:
            seconds = self._forecaster.seconds_to_place()
            raise NoPlaceError(str(error), _UNKNOWN_WAIT_S if seconds is None else seconds) from error

    def check_disk(self) -> None:
        """Raise DiskFullError if the disk has too little free space."""
        if shortage := self._disk_shortage():
            raise DiskFullError(f"{shortage}; try again later")

    def _check(self, submission: Submission, request: GenerationRequest) -> None:
        """Check a submission against this server's limits; ``request`` is its request with defaults filled in."""
        config = self.config
        _check_length(submission.request, config.max_prompt_characters)
        if submission.webhook is not None:
            check_webhook(submission.webhook, config.allow_private_webhooks)
        if submission.request.awaits_rewriting and not config.can_rewrite:
            rule = "this server cannot rewrite prompts; omit it, or start the server with --rewrite-model or "
            problem = FieldProblem("rewrite", submission.request.rewrite, f"{rule}--rewrite-endpoint")
            raise InvalidRequestError([problem])
        _check_volume(submission.request, request, config.max_voxels)

    def _workers_of(self, model: str | None, profile: str | None) -> tuple[ModelConfig, str, dict[str, Any]]:
        """The model of a job, the queue of its workers, and the fields of ``origin`` that choose the workers."""
        config = self.config
        own = model is None or model == config.model.name
        if own and profile in (None, config.profile or AUTO):
            return config.model, config.model.identity, {}
        if not own and model not in config.models:
            known = ", ".join([config.model.name, *config.models])
            raise ConfigError(f"model={model!r}: not available on this server; choose one of {known}")
        if not config.models:
            raise ConfigError(f"profile={profile!r}: this server runs a single profile; omit it")
        chosen = config.model if model is None or own else load_model_config(model)
        named_profile(profile)  # refuse an unknown profile here, not in a worker
        if find_here(chosen) is None:
            raise ConfigError(
                f"model={chosen.name!r}: its weights are not on this machine; run "
                f"'hunyuan-local download {chosen.name}'"
            )
        queue = chosen.identity if profile is None else f"{chosen.identity} in {profile}"
        return chosen, queue, {"crew": {"model": chosen.name, "profile": profile}}

    def get(self, job_id: str) -> Job:
        """A job in its current state.

        Raises:
            UnknownJobError: there is no job with this id.
        """
        job = self.store.get(job_id)
        if job is None:
            raise UnknownJobError(job_id)
        return job

    def view(self, job: Job, base_url: str, deliver: Delivery = "link") -> JobView:
        """The state of a job for clients.

        Args:
            base_url: base of the URLs in it.

        Raises:
            VideoNotReadyError: the video must be included, but the file no longer exists.
        """
        outputs: tuple[str, ...] = ()
        if job.status == "succeeded" and deliver != "path":
            is_inline = deliver == "inline" and job.origin.get("inline", False)
            outputs = (self.file_base64(job) if is_inline else self.links.sign(base_url, job.job_id),)
        ttl_s = self.config.retention_s if deliver == "path" else self.links.ttl_s
        job = job.model_copy(update={"error": self._without_paths(job.error)})
        return view_of(job, eta_s=self._eta_s(job), outputs=outputs, ttl_s=round(ttl_s))

    def _without_paths(self, error: str) -> str:
        """An error message for clients, without the path of the data folder."""
        for root in (os.path.abspath(self.folder.root), str(self.folder.root)):
            error = error.replace(f"{root}{os.sep}", "")
        return error

    def _eta_s(self, job: Job) -> float | None:
        """The estimated seconds left; failures are only logged, since the call may already have enqueued the job."""
        try:
            return self._forecaster.seconds_left(job)
        except (HunyuanLocalError, ArithmeticError) as error:
            logger.error("no forecast for job %s: %s", job.job_id, error)
            return None

    def file(self, job: Job) -> Path:
        """The video file of a succeeded job.

        Raises:
            VideoNotReadyError: the job has not succeeded, or the file no longer exists.
        """
        if job.status in ("failed", "canceled"):
            raise VideoNotReadyError(f"job {job.job_id} has no video: {job.error}")
        if job.status != "succeeded":
            raise VideoNotReadyError(f"the video of job {job.job_id} is not ready yet; poll the job's state first")
        path = self.folder.video(job)
        if not path.is_file():
            raise VideoNotReadyError(
                f"the file of job {job.job_id} no longer exists; submit the request again, with its seed"
            )
        return path

    def file_base64(self, job: Job) -> str:
        """The video file as bare base64; raises as :meth:`file`."""
        return base64.b64encode(self.file(job).read_bytes()).decode("ascii")

    def cancel_or_delete(self, job_id: str) -> None:
        """Cancel an unfinished job and keep its record, or delete a finished one with its files.

        Raises:
            UnknownJobError: there is no job with this id.
        """
        job = self.get(job_id)
        if not job.is_finished:
            canceled = self.store.cancel(job_id)
            if canceled is None:
                raise UnknownJobError(job_id)
            job = canceled
            if job.status in ("running", "canceled"):
                return
        # Finished already, or just now.
        discard(self.folder, self.store, job)

    def list_jobs(self, listing: Listing) -> tuple[list[Job], bool]:
        """Jobs of all dialects that match ``listing``, and whether there are more.

        Raises:
            UnknownJobError: there is no job with the id of ``listing.after``.
        """
        if listing.impossible:
            return [], False
        after = None if listing.after is None else self.get(listing.after).number
        begin, end = listing.created_from, listing.created_before
        jobs = self.store.find(
            statuses=listing.statuses,
            after=after,
            # The store's condition is exclusive, and its times are finer than a microsecond.
            created_after=None if begin is None else begin.timestamp() - 1e-6,
            created_before=None if end is None else end.timestamp(),
            has_image=listing.has_image,
            oldest_first=listing.oldest_first,
            limit=listing.limit + 1,
            offset=listing.offset,
        )
        return jobs[: listing.limit], len(jobs) > listing.limit

    async def wait(
        self,
        job_id: str,
        timeout_s: float,
        stopping: threading.Event,
        is_disconnected: Callable[[], Awaitable[bool]],
    ) -> Job:
        """Wait until the job is finished, the time limit is over, the server stops, or the client disconnects.

        Raises:
            UnknownJobError: the job was deleted meanwhile.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            job, pause = await run_in_threadpool(self._look, job_id)
            left = deadline - time.monotonic()
            if job.is_finished or left <= 0 or stopping.is_set() or await is_disconnected():
                return job
            await asyncio.sleep(min(pause, left))

    def _look(self, job_id: str) -> tuple[Job, float]:
        """A job in its current state, and the seconds until the next look."""
        job = self.get(job_id)
        return job, pause_s(self.view(job, "", "path"), datetime.now(UTC))

    def problems(self) -> list[str]:
        """Reasons why the server would not run jobs now; empty if it would.

        Raises:
            StoreError: the store cannot be used.
        """
        self.store.counts()
        found = [self._disk_shortage()]
        # With ``models``, the workers of any model count, since they switch to the requested one.
        own = self.config.model.identity
        workers = [worker for worker in self._worker_reports.recent() if self.config.models or worker.model == own]
        if not workers:
            found.append(f"no worker for {self.config.model.name} has reported")
        elif all(worker.state == "loading" for worker in workers):
            count = "a worker is" if len(workers) == 1 else f"{len(workers)} workers are"
            found.append(f"{count} loading {self.config.model.name}")
        return [problem for problem in found if problem]

    def webhook_call(self, job: Job) -> WebhookCall | None:
        """The webhook call for a finished job; None if its dialect has no webhooks."""
        return make_call(job, self.view, self.webhook_secret)

    def _disk_shortage(self) -> str:
        free = self.folder.free_bytes()
        needed = self.config.min_free_bytes
        return f"the disk has {free} bytes free; {needed} are required" if free < needed else ""


def _check_volume(asked: GenerationRequest, request: GenerationRequest, limit: int) -> None:
    """Refuse videos that are too large, naming a field of ``asked``; ``request`` has the defaults filled in."""
    width, height, num_frames = request.width, request.height, request.num_frames
    assert width is not None and height is not None and num_frames is not None  # every model has defaults
    voxels = width * height * num_frames
    if voxels > limit:
        rule = f"{width}x{height}x{num_frames} is {voxels} pixels; the limit is {limit}; reduce the size or the frames"
        of_size = asked.num_frames is None and (asked.width or asked.height)
        name, value = ("size", f"{width}x{height}") if of_size else ("num_frames", num_frames)
        raise InvalidRequestError([FieldProblem(name, value, rule)])


def _check_length(request: GenerationRequest, limit: int) -> None:
    for name in ("prompt", "negative_prompt"):
        text = getattr(request, name) or ""
        if len(text) > limit:
            raise InvalidRequestError([FieldProblem(name, text, f"has {len(text)} characters; the limit is {limit}")])
