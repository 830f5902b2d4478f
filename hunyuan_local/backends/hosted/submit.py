"""Submits one request to a hosted service and records the id of the task on disk."""

from __future__ import annotations

import os
import time
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
from ..begin import Run
from .client import ServiceClient
from .open_tasks import OpenTask, OpenTasks


class TaskSubmission:
    """Drafts a task and submits it once.

    Args:
        service: client for the service.
        wire: wire dialect of the service.
        open_tasks: the record of open tasks.
        run: the run, with the request as the service accepts it.
    """

    def __init__(self, service: ServiceClient, wire: ModuleType, open_tasks: OpenTasks, run: Run[GenerationRequest]):
        self._service, self._wire, self._open_tasks, self._run = service, wire, open_tasks, run
        self._path = ""
        self._body: dict[str, Any] = {}

    def draft(self, mark: str, path: str, image: dict[str, str]) -> OpenTask:
        """Prepare a task for submission; the caller must save it before :meth:`send`.

        Args:
            mark: fingerprint of the task.
            path: path of the submission.
            image: the field of the body that names the uploaded image, if there is one.

        Raises:
            RequestLossError: the service does not support the prompt.
            GenerationCancelledError: cancelled before anything was sent.
        """
        run, context = self._run, self._run.context
        self._path, self._body = path, self._wire.request_to_wire(run.request).body | image
        if context.cancel.is_set():
            raise GenerationCancelledError("cancelled before anything was sent")
        context.on_progress(Progress(stage="submit"))
        context.job_id = self._open_tasks.new_id()
        return OpenTask(
            job_id=context.job_id,
            fingerprint=mark,
            backend=self._service.name,
            base_url=self._service.base_url,
            request=run.request,
            output=Path(os.path.abspath(run.output)),
            overwrite=context.overwrite,
            notes=run.notes,
            created_at=datetime.now(UTC),
            safety=context.safety,
        )

    def send(self, job: OpenTask) -> OpenTask:
        """Submit a saved draft with a single POST; saves the task id, or sends a note if it cannot be saved.

        Raises:
            SubmissionLostError: the answer was lost, so it is unknown whether a task exists.
            GenerationCancelledError: cancelled during submission.
            HostedError: the service rejected the request; no task exists.
            HunyuanLocalError: the spending limit is reached.
        """
        context, name = self._run.context, self._service.name
        began = time.monotonic()
        if context.spending is not None:
            try:
                context.spending.reserve()
            except HunyuanLocalError:  # nothing was sent
                self._open_tasks.forget(job)
                raise
        try:
            answer = self._service.post(self._path, self._body)
            context.remote_id = self._wire.submission_from_wire(answer)
        except (SubmissionLostError, InvalidAnswerError) as error:
            raise SubmissionLostError(f"{error}. {lost_advice(name, job)}") from error
        except KeyboardInterrupt as error:
            raise GenerationCancelledError(f"cancelled during submission. {lost_advice(name, job)}") from error
        except HostedError:
            self._open_tasks.forget(job)  # no task exists
            if context.spending is not None:
                context.spending.give_back()
            raise
        job = job.model_copy(update={"remote_id": context.remote_id, "submit_s": time.monotonic() - began})
        try:
            self._open_tasks.save(job)
        except ConfigError as error:
            # The task is paid for, so continue without a record.
            context.on_note(f"do not interrupt this: task {job.remote_id} at {name} cannot be recorded: {error}")
        return job


def lost_advice(name: str, job: OpenTask) -> str:
    """What to do about a submission whose answer was lost."""
    return (
        f"It is unknown whether {name} created and bills a task for job {job.job_id} "
        f"({job.created_at:%Y-%m-%d %H:%M} UTC). It is not submitted again automatically: check your account at "
        f"{name}, then run hunyuan-local resume --forget {job.job_id}, or generate with --submit-again "
        "(submit_again=True)"
    )
