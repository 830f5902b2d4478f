"""A hosted service as a backend: submit once, poll, download, and resume what was interrupted.

The order of the work is here. What differs between services is in their adapters and dialects, the
network in ``client``, the memory of open tasks in ``open_tasks``.
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
    """What the adapters of all services share; an adapter says what differs.

    Args:
        api_key: None is the environment variable ``key_variable``.
        base_url: None is the environment variable ``url_variable``, else the service's own address.
        pacing: intervals and limits; ``timeout_s`` replaces its limit for one task.
        open_tasks: where open tasks are remembered.
        transport: carries the HTTP calls, such as one that records them; None is the network.

    Raises:
        ConfigError: the address is not one.
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
                raise ConfigError(f"timeout={timeout_s}: must be a number of seconds above 0")
            pacing = replace(pacing, limit_s=timeout_s)
        self._pacing, self._open_tasks, self._transport = pacing, open_tasks or OpenTasks(), transport
        self._service: ServiceClient | None = None
        self._prompt_rewriter = PromptRewriter(max_characters=self.capabilities.prompt_characters)
        self._shares_rewriter = False

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`hunyuan_local.backends.base.Backend`."""
        return cast("Capabilities", self.wire.CAPABILITIES)

    @property
    def identity(self) -> str:
        """See :class:`hunyuan_local.backends.base.Backend`: the service and its address."""
        return f"{self.name} {self.base_url}"

    @property
    def device(self) -> str:
        """See :class:`hunyuan_local.backends.base.Backend`: the service's address."""
        return self.base_url

    def load(self, context: GenerationContext | None = None) -> None:
        """See :class:`hunyuan_local.backends.base.Backend`: a missing key is found now.

        Raises:
            AuthenticationError: there is no key.
        """
        self._connect(context or GenerationContext())

    def memory(self) -> None:
        """See :class:`hunyuan_local.backends.base.Backend`: of a service it is not known."""
        return

    def explain(self, request: GenerationRequest) -> Explanation:
        """See :class:`hunyuan_local.backends.base.Backend`; needs no key."""
        fitted = fit(request, self.name, self.capabilities)
        body = None
        if fitted.possible:
            sent = with_seed(fitted.request, self.capabilities)
            if sent.awaits_rewriting:  # which is done here, and not said to the service
                sent = sent.replace(rewrite=None)
            body = self.wire.request_to_wire(sent).body
        url = self.base_url + self.wire.SUBMIT_PATH
        return explanation(self.name, fitted, self.capabilities, url=url, body=body, notes=[])

    def rewrite(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationRequest:
        """See :class:`hunyuan_local.backends.base.Backend`; done here, before anything is sent.

        Raises:
            RequestLossError: the service cannot hold the request however its prompt is.
        """
        context = context or GenerationContext()
        self.wire.request_to_wire(request, allow_loss=context.allow_loss)
        return self._prompt_rewriter.rewrite(request, context)

    def share(self, prompt_rewriter: PromptRewriter) -> None:
        """Have prompts rewritten by this, together with others of this process; it is not closed here."""
        self._prompt_rewriter, self._shares_rewriter = prompt_rewriter, True

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Make one video, or go on with the open task of the very same request.

        Raises:
            RequestLossError: the service cannot hold the request, and losses were not allowed.
            SubmissionLostError: the answer to the submission was lost, now or in an earlier run.
            HostedError: see :mod:`hunyuan_local.errors`.
        """
        context = context or GenerationContext()
        if context.checkpoint_dir is not None:
            raise ConfigError(
                "checkpoint_dir: is of the local backend alone; a hosted task is taken up again without it"
            )
        forget_rewriting(request, context)
        # Of the request as it was asked for: rewritten again its prompt may be another, and the task is paid for.
        mark = fingerprint(self.name, self.base_url, request, context.output)
        is_new = context.submit_again or all(job.fingerprint != mark for job in self._open_tasks.jobs())
        # Everything that can be refused is refused before anything is sent; not under the lock, as it may take long.
        run = self._begin(request, context) if is_new else None
        with ExitStack() as held:
            with self._open_tasks.alone():
                same = [job for job in self._open_tasks.jobs() if job.fingerprint == mark]
                earlier = None if context.submit_again else self._earlier(same)
                if earlier is None and run is not None:
                    submission = TaskSubmission(self._connect(context), self.wire, self._open_tasks, run)
                    job = submission.draft(mark)
                    # Written down first, so that no crash can hide a task.
                    held.enter_context(self._open_tasks.hold(job.job_id))
                    self._open_tasks.save(job)
            if earlier is not None:
                return self.resume(earlier, context)
            if run is None:  # what was open is another process's no more
                return self.generate(request, context)
            job = submission.send(job)
            for lost in same:
                if lost.remote_id is None and self._open_tasks.is_free(lost):
                    self._open_tasks.forget(lost)  # by asking for another task its user has settled it
            return self._finish(self._connect(context), job, context)

    def _begin(self, request: GenerationRequest, context: GenerationContext) -> Run[GenerationRequest]:
        """The run of a task that is to be submitted."""
        losses: list[str] = []

        def resolve(asked: GenerationRequest) -> GenerationRequest:
            wanted = self.wire.request_to_wire(asked, allow_loss=context.allow_loss)
            losses.extend(loss.note for loss in wanted.losses)
            return with_seed(wanted.request, self.capabilities)

        run = begin(request, context, name=self.name, resolve=resolve)
        self._connect(context)  # without a key nothing could be sent
        run.rewrite(self._prompt_rewriter)
        for note in losses:
            run.note(note)
        return run

    def resume(self, job: OpenTask, context: GenerationContext | None = None) -> GenerationResult:
        """Wait for a task that was submitted earlier and fetch its video; submits nothing.

        Raises:
            SubmissionLostError: the answer to its submission was lost, so there is no task to ask for.
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
            note = f"continuing task {job.remote_id} at {self.name}, submitted {job.created_at:%Y-%m-%d %H:%M} UTC"
            context.on_note(note)
            notes = [*job.notes, f"{note}; its queue time includes the interruption"]
            overwrite = job.overwrite or context.overwrite
            job = job.model_copy(update={"output": output, "overwrite": overwrite, "notes": notes})
            return self._finish(service, job, context)

    def close(self) -> None:
        """Close the connections, and let go of the language model unless it is shared."""
        if not self._shares_rewriter:
            self._prompt_rewriter.close()
        if self._service is not None:
            self._service.close()
            self._service = None

    # What an adapter says, beside its constants.

    @abstractmethod
    def ask(self, service: ServiceClient, remote_id: str) -> JobView:
        """One look at a task."""

    def cancel_remote(self, service: ServiceClient, remote_id: str) -> bool | None:
        """Stop a task; None where the service has no way to."""
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
                raise AuthenticationError(f"the key for {self.name} holds characters that no key has; copy it again")
            self._service = ServiceClient(
                self.name, self.base_url, key.strip(), self.wire.fault_from_wire, self._pacing, self._transport
            )
            if not self.base_url.startswith("https:") and not is_loopback(self.base_url):
                context.on_note(f"{self.base_url} is not https: the key and the prompt travel unencrypted")
        return self._service

    def _earlier(self, same: list[OpenTask]) -> OpenTask | None:
        """The open job of the very same command, if there is one."""
        if not same:
            return None
        if not self._open_tasks.is_free(same[0]):
            raise ConfigError(
                f"job {same[0].job_id}: another process works on this very command; wait for its video, or pass "
                "--submit-again (submit_again=True) for a second one"
            )
        return same[0]

    def _finish(self, service: ServiceClient, job: OpenTask, context: GenerationContext) -> GenerationResult:
        """From a submitted task to a file in its place."""
        context.remote_id = job.remote_id
        hint = f"to go on with this task: hunyuan-local resume {job.job_id}"
        context.on_note(f"task {job.remote_id} at {self.name}; if this is interrupted, {hint}")
        delivery = VideoDownload(service, self.wire.MODEL, job, self.ask, context, self._pacing.limit_s)
        try:
            check_output_path(job.output, job.overwrite)
            result = delivery.run()
        except TerminationRequest as error:
            raise GenerationCancelledError(_stopped(self.name, job, hint)) from error
        except (KeyboardInterrupt, GenerationCancelledError) as error:
            if context.keep_remote:
                raise GenerationCancelledError(_stopped(self.name, job, hint)) from error
            if delivery.is_done:  # paid for, and nothing is saved by deleting it
                raise GenerationCancelledError(f"cancelled; the video is ready at {self.name}; {hint}") from error
            raise GenerationCancelledError(self._cancel(service, job, hint)) from error
        except (ContentBlockedError, TaskFailedError):
            self._open_tasks.forget(job)  # there is nothing left to fetch, or nothing that may be
            raise
        except OutputExistsError as error:
            error.hint = f"{hint} --output OTHER.mp4"
            raise
        except HunyuanLocalError as error:
            error.hint = hint
            raise
        try:
            self._open_tasks.forget(job)
        except OSError as error:  # the video is there all the same
            context.on_note(f"{self._open_tasks.folder}: job {job.job_id} is done, and stays in the list: {error}")
        return result

    def _cancel(self, service: ServiceClient, job: OpenTask, hint: str) -> str:
        """Stop the task where the service can, and say what became of it."""
        assert job.remote_id is not None  # it was submitted
        try:
            stopped = self.cancel_remote(service, job.remote_id)
        except HunyuanLocalError as error:
            return f"cancelled here; task {job.remote_id} could not be stopped at {self.name} ({error}); {hint}"
        if stopped is None:
            return f"cancelled here; {self.name} has no way to stop a task, so {job.remote_id} goes on; {hint}"
        if not stopped:
            return f"cancelled here; {self.name} did not stop task {job.remote_id}; {hint}"
        self._open_tasks.forget(job)
        return f"cancelled; task {job.remote_id} was deleted at {self.name}; no file was kept"


def _stopped(name: str, job: OpenTask, hint: str) -> str:
    return f"stopped; task {job.remote_id} goes on at {name}; {hint}"
