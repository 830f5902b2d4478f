"""The base class of hosted backends: submit once, poll, download, and resume interrupted tasks.

This module orders the steps. The differences between services are in their adapters and wire dialects, the network
code in ``client``, and the record of open tasks in ``open_tasks``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import ClassVar, cast

import httpx

from ...capabilities import Capabilities, fit
from ...errors import (
    AuthenticationError,
    ConfigError,
    ContentBlockedError,
    GenerationCancelledError,
    HunyuanLocalError,
    OutputExistsError,
    SubmissionLostError,
    TaskFailedError,
    TerminationRequest,
)
from ...schema import GenerationRequest, GenerationResult, JobView
from ...video import check_output_path
from ..base import Explanation, GenerationContext, explanation, with_seed
from ..begin import Run, begin, forget_rewriting
from ..prompt_rewriting import PromptRewriter
from .base_url import check_url, is_loopback
from .client import Pacing, ServiceClient
from .fetch import VideoDownload
from .open_tasks import OpenTask, OpenTasks, fingerprint
from .submit import TaskSubmission, lost_advice


class HostedBackend(ABC):
    """The common part of all hosted backends; an adapter defines only the differences between services.

    Args:
        api_key: None uses the environment variable ``key_variable``.
        base_url: None uses the environment variable ``url_variable``, or else the service's default address.
        timeout_s: time limit for one task in seconds; replaces ``pacing.limit_s``.
        pacing: polling intervals and time limits.
        open_tasks: the record of open tasks.
        transport: the httpx transport, such as one that records calls; None uses the network.

    Raises:
        ConfigError: the address or the timeout is invalid.
    """

    config = profile = None
    is_paid, keeps_state = True, False
    name: ClassVar[str]
    wire: ClassVar[ModuleType]
    default_url: ClassVar[str]
    key_variable: ClassVar[str]
    url_variable: ClassVar[str]

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout_s: float | None = None,
        pacing: Pacing | None = None,
        open_tasks: OpenTasks | None = None,
        transport: httpx.BaseTransport | None = None,
    ):
        self._api_key = api_key
        self.base_url = check_url(base_url or os.environ.get(self.url_variable) or self.default_url)
        pacing = pacing or Pacing()
        if timeout_s is not None:
            if not timeout_s > 0:
                raise ConfigError(f"timeout={timeout_s}: must be more than 0 seconds")
            pacing = replace(pacing, limit_s=timeout_s)
        self._pacing, self._open_tasks, self._transport = pacing, open_tasks or OpenTasks(), transport
        self._service: ServiceClient | None = None
        self._prompt_rewriter = PromptRewriter(max_characters=self.capabilities.prompt_characters)
        self._shares_rewriter = False

    @property
    def capabilities(self) -> Capabilities:
        """The limits of the service."""
        return cast("Capabilities", self.wire.CAPABILITIES)

    @property
    def identity(self) -> str:
        """The name of the service and its address."""
        return f"{self.name} {self.base_url}"

    @property
    def device(self) -> str:
        """The address of the service."""
        return self.base_url

    def load(self, context: GenerationContext | None = None) -> None:
        """Connect, so that a missing key is reported before the first video.

        Raises:
            AuthenticationError: there is no key.
        """
        self._connect(context or GenerationContext())

    def memory(self) -> None:
        """None: the memory of a service is unknown."""
        return

    def explain(self, request: GenerationRequest) -> Explanation:
        """What ``generate`` would do with this request; does not need a key."""
        fitted = fit(request, self.name, self.capabilities)
        body = None
        if fitted.possible:
            sent = with_seed(fitted.request, self.capabilities)
            if sent.awaits_rewriting:  # rewriting happens on this machine and is not sent to the service
                sent = sent.replace(rewrite=None)
            body = self.wire.request_to_wire(sent).body
        url, limits = self.base_url + self.submit_path(request), self.capabilities.of(request)
        return explanation(self.name, fitted, limits, url=url, body=body, notes=[])

    def rewrite(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationRequest:
        """Rewrite the prompt on this machine, before anything is sent.

        Raises:
            RequestLossError: the service does not support a field other than the prompt.
        """
        context = context or GenerationContext()
        self.wire.request_to_wire(request, allow_loss=context.allow_loss)
        return self._prompt_rewriter.rewrite(request, context)

    def share(self, prompt_rewriter: PromptRewriter) -> None:
        """Use a prompt rewriter shared with other backends of this process; this backend does not close it."""
        self._prompt_rewriter, self._shares_rewriter = prompt_rewriter, True

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Generate one video, or resume the open task of the same request.

        Raises:
            RequestLossError: the service does not support the request, and losses are not allowed.
            SubmissionLostError: the answer to the submission was lost, now or in an earlier run.
            HostedError: see :mod:`hunyuan_local.errors`.
        """
        context = context or GenerationContext()
        if context.checkpoint_dir is not None:
            raise ConfigError("checkpoint_dir: only the local backend supports it; a hosted task is resumed without it")
        forget_rewriting(request, context)
        # Of the original request: rewriting the prompt again may give another one, and the open task is paid for.
        mark = fingerprint(self.name, self.base_url, request, context.output)
        is_new = context.submit_again or all(job.fingerprint != mark for job in self._open_tasks.jobs())
        # Make every check that can refuse the request before sending anything, and outside the lock, as it may be slow.
        run = self._begin(request, context) if is_new else None
        image = {} if run is None else self.upload(self._connect(context), run.request)
        with ExitStack() as held:
            with self._open_tasks.alone():
                same = [job for job in self._open_tasks.jobs() if job.fingerprint == mark]
                earlier = None if context.submit_again else self._earlier(same)
                if earlier is None and run is not None:
                    submission = TaskSubmission(self._connect(context), self.wire, self._open_tasks, run)
                    job = submission.draft(mark, self.submit_path(run.request), image)
                    # Recorded before it is sent, so that a crash cannot hide a task.
                    held.enter_context(self._open_tasks.hold(job.job_id))
                    self._open_tasks.save(job)
            if earlier is not None:
                return self.resume(earlier, context)
            if run is None:  # another process has finished the open task in the meantime
                return self.generate(request, context)
            job = submission.send(job)
            for lost in same:
                if lost.remote_id is None and self._open_tasks.is_free(lost):
                    self._forget(lost, context)  # the user has settled it by submitting again
            return self._finish(self._connect(context), job, context)

    def _begin(self, request: GenerationRequest, context: GenerationContext) -> Run[GenerationRequest]:
        """The run of a new task."""
        losses: list[str] = []

        def resolve(asked: GenerationRequest) -> GenerationRequest:
            wanted = self.wire.request_to_wire(asked, allow_loss=context.allow_loss)
            losses.extend(loss.note for loss in wanted.losses)
            return with_seed(wanted.request, self.capabilities)

        run = begin(request, context, name=self.name, resolve=resolve)
        self._connect(context)  # fails if there is no key
        run.rewrite(self._prompt_rewriter)
        for note in losses:
            run.note(note)
        return run

    def resume(self, job: OpenTask, context: GenerationContext | None = None) -> GenerationResult:
        """Wait for a task that was submitted earlier and download its video; submits nothing.

        Raises:
            SubmissionLostError: the answer to its submission was lost, so the task id is unknown.
            HostedError: see :mod:`hunyuan_local.errors`.
        """
        context = context or GenerationContext()
        if context.safety.mode == "off":
            context.safety = job.safety
        service = self._connect(context)
        with self._open_tasks.hold(job.job_id):
            context.job_id = job.job_id
            if job.remote_id is None:
                raise SubmissionLostError(lost_advice(self.name, job))
            output = job.output if context.output is None else Path(os.path.abspath(context.output))
            note = f"resuming task {job.remote_id} at {self.name}, submitted {job.created_at:%Y-%m-%d %H:%M} UTC"
            context.on_note(note)
            notes = [*job.notes, f"{note}; its queue time includes the interruption"]
            overwrite = job.overwrite or context.overwrite
            job = job.model_copy(update={"output": output, "overwrite": overwrite, "notes": notes})
            return self._finish(service, job, context)

    def close(self) -> None:
        """Close the connections, and unload the language model unless it is shared."""
        if not self._shares_rewriter:
            self._prompt_rewriter.close()
        if self._service is not None:
            self._service.close()
            self._service = None

    # What an adapter implements, in addition to its constants.

    @abstractmethod
    def ask(self, service: ServiceClient, remote_id: str) -> JobView:
        """Query the state of a task once."""

    def model_of(self, request: GenerationRequest) -> str:
        """The service's name of the model that runs a request."""
        return cast("str", self.wire.MODEL)

    def submit_path(self, request: GenerationRequest) -> str:
        """Path of the submission of a request."""
        return cast("str", self.wire.SUBMIT_PATH)

    def upload(self, service: ServiceClient, request: GenerationRequest) -> dict[str, str]:
        """Upload the image of a request, if it has one; returns the field of the body that names it."""
        return {}

    def cancel_remote(self, service: ServiceClient, remote_id: str) -> bool | None:
        """Cancel a task; True if the service cancelled it, None if the service does not support it."""
        return None

    # The steps.

    def _connect(self, context: GenerationContext) -> ServiceClient:
        if self._service is None:
            key = self._api_key or os.environ.get(self.key_variable, "")
            if not key.strip():
                raise AuthenticationError(
                    f"{self.name} needs a key; set {self.key_variable}, or pass --api-key (api_key=...)"
                )
            if not key.isascii() or not key.strip().isprintable():
                raise AuthenticationError(f"the key for {self.name} contains invalid characters; copy it again")
            self._service = ServiceClient(
                self.name, self.base_url, key.strip(), self.wire.fault_from_wire, self._pacing, self._transport
            )
            if not self.base_url.startswith("https:") and not is_loopback(self.base_url):
                context.on_note(f"{self.base_url} is not https: the key and the prompt are sent unencrypted")
        return self._service

    def _earlier(self, same: list[OpenTask]) -> OpenTask | None:
        """The open job of the same command, if there is one."""
        if not same:
            return None
        if not self._open_tasks.is_free(same[0]):
            raise ConfigError(
                f"job {same[0].job_id}: another process is running the same command; wait for its video, or pass "
                "--submit-again (submit_again=True) to generate a second one"
            )
        return same[0]

    def _finish(self, service: ServiceClient, job: OpenTask, context: GenerationContext) -> GenerationResult:
        """Wait for a submitted task and publish its file."""
        context.remote_id = job.remote_id
        hint = f"to resume this task: hunyuan-local resume {job.job_id}"
        context.on_note(f"task {job.remote_id} at {self.name}; if this is interrupted, {hint}")
        delivery = VideoDownload(service, self.model_of(job.request), job, self.ask, context, self._pacing.limit_s)
        try:
            check_output_path(job.output, job.overwrite)
            result = delivery.run()
        except TerminationRequest as error:
            raise GenerationCancelledError(_stopped(self.name, job, hint)) from error
        except (KeyboardInterrupt, GenerationCancelledError) as error:
            if context.keep_remote:
                raise GenerationCancelledError(_stopped(self.name, job, hint)) from error
            if delivery.is_done:  # already paid for, so keep the task
                raise GenerationCancelledError(f"cancelled; the video is ready at {self.name}; {hint}") from error
            raise GenerationCancelledError(self._cancel(service, job, context, hint)) from error
        except (ContentBlockedError, TaskFailedError):
            self._forget(job, context)  # there is no video to fetch, or it may not be fetched
            raise
        except OutputExistsError as error:
            error.hint = f"{hint} --output OTHER.mp4"
            raise
        except HunyuanLocalError as error:
            error.hint = hint
            raise
        self._forget(job, context)
        return result

    def _forget(self, job: OpenTask, context: GenerationContext) -> None:
        """Delete the record of a task that has ended; a note if that fails, since the outcome stands regardless."""
        try:
            self._open_tasks.forget(job)
        except OSError as error:
            context.on_note(f"{self._open_tasks.folder}: job {job.job_id} is done but stays listed as open: {error}")

    def _cancel(self, service: ServiceClient, job: OpenTask, context: GenerationContext, hint: str) -> str:
        """Cancel the task if the service supports it; returns the message about the outcome."""
        assert job.remote_id is not None  # it was submitted
        try:
            stopped = self.cancel_remote(service, job.remote_id)
        except HunyuanLocalError as error:
            return f"cancelled here; task {job.remote_id} could not be stopped at {self.name} ({error}); {hint}"
        if stopped is None:
            return f"cancelled here; {self.name} cannot stop tasks, so task {job.remote_id} continues; {hint}"
        if not stopped:
            return f"cancelled here; {self.name} did not stop task {job.remote_id}; {hint}"
        self._forget(job, context)
        return f"cancelled; task {job.remote_id} was deleted at {self.name}; no file was kept"


def _stopped(name: str, job: OpenTask, hint: str) -> str:
    return f"stopped; task {job.remote_id} continues at {name}; {hint}"
