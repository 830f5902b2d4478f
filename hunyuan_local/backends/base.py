"""The interface of every backend: one verb, and the context that travels beside the request."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from ..capabilities import Capabilities, Fit
from ..config import ModelConfig, RewriteConfig, RuntimeProfile, SafetyConfig
from ..errors import ConfigError
from ..schema import MAX_EXACT_SEED, GenerationRequest, GenerationResult, Progress


def _ignore(told: Progress | str) -> None:
    """The callback of a caller who does not ask."""


class Spending(Protocol):
    """Decides whether another task may be paid for, and keeps the account."""

    def reserve(self) -> None:
        """A task is about to be submitted.

        Raises:
            SpendingLimitError: it would cost more than is allowed.
        """
        ...

    def give_back(self) -> None:
        """The service has made nothing of the task that was reserved last by this thread."""
        ...


@dataclass
class GenerationContext:
    """What belongs to one run rather than to the video.

    Attributes:
        output: the mp4 to write; None chooses a name with time and seed in the current folder.
        overwrite: replace an existing file.
        on_progress: called with every :class:`~hunyuan_local.schema.Progress`, from the thread that generates.
        on_note: called with each sentence that the user should know, as soon as it is known; the
            result holds those that are about the video.
        cancel: set it, from any thread, to stop within one step.
        allow_loss: let a backend leave out or change what it cannot hold, and say so in a note.
        keep_remote: when cancelled, leave a hosted task open, to be continued later, rather than cancel it too.
        spending: asked before a hosted service is sent a task that costs money; None asks nobody.
        submit_again: start a new task at a hosted service even if one of the very same request is
            still open; otherwise that one is continued.
        checkpoint_dir: where the local backend saves the state of the unfinished video; the same request for the
            same output goes on from there.
        checkpoint_every: save it after so many steps. None saves it by time: after the step with which 30 seconds of
            work would be lost. Either way it is saved after the last step, and at once when the video is cancelled
            or fails for what may pass; a crash or a power cut costs the work since it was saved last.
        preview_every: the local backend writes a picture of the unfinished video after so many steps, in the
            place of the last one: ``<output>.preview.png``, which the progress names. 0 writes none.
        rewriting: who rewrites the prompts of requests that ask for it.
        safety: whether finished frames are checked, and what becomes of the video then.
        rewrite_s: set by the backend: the seconds that rewriting the prompt took.
        rewrite_notes: set by the backend: what the result says of the rewriting.
        job_id: set by a hosted backend as soon as it is known: the name under which the job can be resumed here.
        remote_id: set by a hosted backend as soon as it is known: the task's id at the service.
    """

    output: Path | None = None
    overwrite: bool = False
    on_progress: Callable[[Progress], None] = _ignore
    on_note: Callable[[str], None] = _ignore
    cancel: threading.Event = field(default_factory=threading.Event)
    allow_loss: bool = False
    keep_remote: bool = False
    spending: Spending | None = None
    submit_again: bool = False
    checkpoint_dir: Path | None = None
    checkpoint_every: int | None = None
    preview_every: int = 0
    rewriting: RewriteConfig = field(default_factory=RewriteConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    rewrite_s: float = 0.0
    rewrite_notes: list[str] = field(default_factory=list)
    job_id: str | None = None
    remote_id: str | None = None

    def __post_init__(self) -> None:
        if self.output is not None:
            self.output = Path(self.output)
        if self.checkpoint_dir is not None:
            self.checkpoint_dir = Path(self.checkpoint_dir)
        if self.checkpoint_every is not None and self.checkpoint_every < 1:
            raise ConfigError(
                f"checkpoint_every={self.checkpoint_every}: must be 1 step or more; leave it out to save by time"
            )
        if self.preview_every < 0:
            raise ConfigError(f"preview_every={self.preview_every}: must be 1 step or more, or 0 for no pictures")


class Explanation(BaseModel):
    """What a backend would do with a request.

    Attributes:
        verdict: ``accepted`` as it is; ``adjusted`` only with permission; or ``refused``.
        losses: field, value, reason and, where permitted, what it becomes.
        url: where the request goes; None where it is refused, and for the local backend.
        body: the exact body; None where the request is refused. A seed that was not given is drawn anew for every
            video.
        notes: what else the user should know.
        price_usd: of one video in US dollars, if known.
    """

    model_config = ConfigDict(frozen=True)

    backend: str
    verdict: Literal["accepted", "adjusted", "refused"]
    losses: list[dict[str, Any]]
    url: str | None
    body: dict[str, Any] | None
    notes: list[str]
    price_usd: float | None


class Backend(Protocol):
    """Makes videos, one at a time. What it can do is for its members to say, not for its name."""

    @property
    def name(self) -> str:
        """What people and files call it."""
        ...

    @property
    def config(self) -> ModelConfig | None:
        """The model that this machine runs; None at a service, which runs its own."""
        ...

    @property
    def profile(self) -> RuntimeProfile | None:
        """The profile in which the model runs; None where the plan decides for each request, and at a service."""
        ...

    @property
    def is_paid(self) -> bool:
        """Whether each video is a task at a service, which may cost money and may hold less than was asked for."""
        ...

    @property
    def keeps_state(self) -> bool:
        """Whether it takes ``checkpoint_dir`` and ``preview_every`` of a context."""
        ...

    @property
    def identity(self) -> str:
        """What two backends share that make the same videos: of which model, or of which service."""
        ...

    @property
    def device(self) -> str:
        """What it runs on, in words; ``not loaded`` before that is known."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Sizes, steps, frames and seeds that it takes, and its price if known."""
        ...

    def explain(self, request: GenerationRequest) -> Explanation:
        """What ``generate`` would do with this request; sends nothing and reads no weight."""
        ...

    def load(self, context: GenerationContext | None = None) -> object:
        """Do now what the first video would have to wait for; does nothing the second time."""
        ...

    def memory(self) -> tuple[int, int] | None:
        """The most bytes of the device that were taken so far, and all it has; None where it does not count."""
        ...

    def rewrite(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationRequest:
        """The request with its prompt rewritten, if it asks for that and it is not done yet; else the same one.

        :meth:`generate` begins with this.

        Raises:
            RewriteError: the prompt cannot be rewritten, and the context does not allow to use the original one.
        """
        ...

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Make one video and return where it is and how it was made.

        Raises:
            HunyuanLocalError: see :mod:`hunyuan_local.errors`; no file is left behind.
        """
        ...

    def close(self) -> None:
        """Give back memory and connections; the backend may not be used afterwards."""
        ...


class Pending(Protocol):
    """A video whose making needs the backend no longer."""

    def result(self) -> GenerationResult:
        """Wait for the file; raises what :meth:`Backend.generate` would."""
        ...


@runtime_checkable
class StagedBackend(Backend, Protocol):
    """A backend that can do parts of its work for many videos together."""

    def encode_ahead(self, requests: Sequence[GenerationRequest], folder: Path, context: GenerationContext) -> None:
        """Encode the prompts of requests to come, into a folder."""
        ...

    def start(self, request: GenerationRequest, context: GenerationContext | None = None) -> Pending:
        """As ``generate``, but return as soon as the next video can be begun."""
        ...


def preview_path(output: Path) -> Path:
    """Where the pictures of an unfinished video are written."""
    return output.with_name(f"{output.name}.preview.png")


def with_seed(request: GenerationRequest, limits: Capabilities) -> GenerationRequest:
    """The request with a random seed that the target takes, where none was given."""
    if request.seed is not None:
        return request
    low, high = limits.seeds
    return request.replace(seed=low + secrets.randbelow(min(high, MAX_EXACT_SEED) - low + 1))


def explanation(
    name: str,
    fitted: Fit,
    limits: Capabilities,
    *,
    url: str | None,
    body: dict[str, Any] | None,
    notes: list[str],
) -> Explanation:
    """The statement of :meth:`Backend.explain`, from what fitting the request gave."""
    if fitted.request.seed is None:
        notes = [*notes, "no seed: one is drawn anew for each video, the one shown is an example"]
    if fitted.request.awaits_rewriting:
        notes = [*notes, f"the prompt is rewritten first ({fitted.request.rewrite}); it is shown as it was given"]
    verdict = "refused" if not fitted.possible else "adjusted" if fitted.losses else "accepted"
    losses = [
        {"field": x.field, "value": x.value, "reason": x.rule, "becomes": x.becomes, "permissible": x.permissible}
        for x in fitted.losses
    ]
    return Explanation(
        backend=name, verdict=verdict, losses=losses, url=url if body is not None else None, body=body, notes=notes,
        price_usd=limits.price_usd,
    )  # fmt: skip
