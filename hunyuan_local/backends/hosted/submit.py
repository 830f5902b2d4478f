"""One request to a hosted service, from what it becomes there to the task whose id is on disk."""

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
    """Drafts a task, and sends it once.

    Args:
        service: the connection.
        wire: the dialect that the service speaks.
        open_tasks: where the task is remembered.
        run: what is to be made, as the service takes it.
    """

    def __init__(self, service: ServiceClient, wire: ModuleType, open_tasks: OpenTasks, run: Run[GenerationRequest]):
        self._service, self._wire, self._open_tasks, self._run = service, wire, open_tasks, run
        self._body: dict[str, Any] = {}

    def draft(self, mark: str) -> OpenTask:
        """The open task, which may be sent; nobody has written it down yet.

        Args:
            mark: its fingerprint.

        Raises:
            RequestLossError: the service cannot hold the prompt.
            GenerationCancelledError: before anything was sent.
        """
        run, context = self._run, self._run.context
        self._body = self._wire.request_to_wire(run.request).body
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
        """The one POST of a draft that is written down; afterwards the task's id is on disk, or it is said why not.

        Raises:
            SubmissionLostError: the answer was lost, and nobody knows whether there is a task.
            GenerationCancelledError: in mid-submission.
            HostedError: it was refused; nothing was made of it.
            HunyuanLocalError: no more may be spent.
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
            answer = self._service.post(self._wire.SUBMIT_PATH, self._body)
            context.remote_id = self._wire.submission_from_wire(answer)
        except (SubmissionLostError, InvalidAnswerError) as error:
            raise SubmissionLostError(f"{error}. {lost_advice(name, job)}") from error
        except KeyboardInterrupt as error:
            raise GenerationCancelledError(f"cancelled in mid-submission. {lost_advice(name, job)}") from error
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
            context.on_note(f"do not interrupt this: task {job.remote_id} at {name} cannot be remembered: {error}")
        return job


def lost_advice(name: str, job: OpenTask) -> str:
    """What to do about a submission whose answer was lost."""
    return (
        f"Whether {name} made, and bills, a task of job {job.job_id} ({job.created_at:%Y-%m-%d %H:%M} UTC) is not "
        f"known. It is not sent again by itself: look at your account at {name}; then "
        f"hunyuan-local resume --forget {job.job_id}, or generate with --submit-again (submit_again=True)"
    )
