"""One request to a hosted service, from what it becomes there to the task whose id is on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import (
    ConfigError,
    GenerationCancelledError,
    HostedError,
    HunyuanLocalError,
    InvalidAnswerError,
    SubmissionLostError,
)
from ...schema import GenerationRequest, Progress
from ...video import check_output_path
from ..base import GenerationContext, with_seed
from ..prompt_rewriting import rewriting_notes
from .client import ServiceClient
from .open_tasks import OpenTask, OpenTasks


class TaskSubmission:
    """Drafts a job, and sends it once.

    Args:
        name, base_url: of the service.
        wire: its dialect.
        ledger: where the task is remembered.

    Attributes:
        service: the connection, once there is a draft.
    """

    def __init__(self, name: str, base_url: str, wire: ModuleType, open_tasks: OpenTasks, context: GenerationContext):
        self._name, self._base_url, self._wire, self._open_tasks = name, base_url, wire, open_tasks
        self._context = context
        self.service: ServiceClient | None = None
        self._job: OpenTask | None = None
        self._body: dict[str, Any] = {}

    def draft(self, request: GenerationRequest, mark: str, connect: Callable[[], ServiceClient]) -> OpenTask:
        """The job of a request, which may be sent; the ledger does not know it yet.

        Args:
            mark: its fingerprint.
            connect: called when the request itself is known to be in order; its errors are this method's.

        Raises:
            RequestLossError: the service cannot hold the request, and losses were not allowed.
            OutputExistsError, ConfigError: the file cannot be written.
            GenerationCancelledError: before anything was sent.
        """
        context, wire = self._context, self._wire
        wanted = wire.request_to_wire(request, allow_loss=context.allow_loss)
        sent = wire.request_to_wire(with_seed(wanted.request, wire.CAPABILITIES))
        output = context.output or Path(f"{self._name}-{datetime.now():%Y%m%d-%H%M%S}-{sent.request.seed}.mp4")
        check_output_path(output, context.overwrite)
        losses = [loss.note for loss in wanted.losses]
        self.service = connect()
        for note in losses:
            context.on_note(note)
        if context.cancel.is_set():
            raise GenerationCancelledError("cancelled before anything was sent")
        context.on_progress(Progress(stage="submit"))
        context.job_id = self._open_tasks.new_id()
        self._body = sent.body
        self._job = OpenTask(
            job_id=context.job_id,
            fingerprint=mark,
            backend=self._name,
            base_url=self._base_url,
            request=sent.request,
            output=Path(os.path.abspath(output)),
            overwrite=context.overwrite,
            notes=[*rewriting_notes(request, context), *losses],
            created_at=datetime.now(UTC),
            safety=context.safety,
        )
        return self._job

    def send(self) -> OpenTask:
        """The one POST of the draft; afterwards the task's id is on disk, or it is said why not.

        Raises:
            SubmissionLostError: the answer was lost, and nobody knows whether there is a task.
            GenerationCancelledError: in mid-submission.
            HostedError: it was refused; nothing was made of it.
            HunyuanLocalError: no more may be spent.
        """
        job, context = self._job, self._context
        began = time.monotonic()
        if context.spending is not None:
            try:
                context.spending.reserve()
            except HunyuanLocalError:  # nothing was sent
                self._open_tasks.forget(job)
                raise
        try:
            answer = self.service.post(self._wire.SUBMIT_PATH, self._body)
            context.remote_id = self._wire.submission_from_wire(answer)
        except (SubmissionLostError, InvalidAnswerError) as error:
            raise SubmissionLostError(f"{error}. {lost_advice(self._name, job)}") from error
        except KeyboardInterrupt as error:
            raise GenerationCancelledError(f"cancelled in mid-submission. {lost_advice(self._name, job)}") from error
        except HostedError:
            self._open_tasks.forget(job)  # the service has made nothing of it
            if context.spending is not None:
                context.spending.give_back()
            raise
        job = job.model_copy(update={"remote_id": context.remote_id, "submit_s": time.monotonic() - began})
        try:
            self._open_tasks.save(job)
        except ConfigError as error:
            # The task is paid for: better to go on without a record than to stop.
            context.on_note(
                f"do not interrupt this: task {job.remote_id} at {self._name} cannot be remembered: {error}"
            )
        return job


def lost_advice(name: str, job: OpenTask) -> str:
    """What to do about a submission whose answer was lost."""
    return (
        f"Whether {name} made, and bills, a task of job {job.job_id} ({job.created_at:%Y-%m-%d %H:%M} UTC) is not "
        f"known. It is not sent again by itself: look at your account at {name}; then "
        f"hunyuan-local resume --forget {job.job_id}, or generate with --submit-again (submit_again=True)"
    )
