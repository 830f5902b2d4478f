"""The interface of every backend: ``generate``, and the context passed along with the request."""

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
from ..images import InputImage
from ..schema import MAX_EXACT_SEED, GenerationRequest, GenerationResult, Progress


def _ignore(message: Progress | str) -> None:
    """Default callback: ignores the message."""


class Spending(Protocol):
    """Counts submissions and decides whether another paid task is allowed."""

    def reserve(self) -> None:
        """Count a task that is about to be submitted.

        Raises:
            SpendingLimitError: the task would exceed the limit.
        """
        ...

    def give_back(self) -> None:
        """Release the last reservation of this thread, because the service rejected the task."""
        ...


@dataclass
class GenerationContext:
    """Options and callbacks of one run; everything about the video itself is in the request.

    Attributes:
        output: the mp4 to write; None chooses a name with time and seed in the current folder.
        overwrite: replace an existing file.
        on_progress: called with every :class:`~hunyuan_local.schema.Progress`, from the generating thread.
        on_note: called with each note for the user as soon as it is known; the result contains the notes
            about the video.
        cancel: set it, from any thread, to stop within one step.
        allow_loss: let a backend drop or change fields that it does not support, and report them in notes.
        keep_remote: on cancellation, leave the hosted task running so that it can be resumed later.
        spending: consulted before each paid task is submitted; None sets no limit.
        submit_again: submit a new hosted task even if a task for the same request is still open. By default the
            open task is resumed.
        checkpoint_dir: folder in which the local backend saves the state of the unfinished video. The same request
            with the same output resumes from that state.
        checkpoint_every: save the state every this many steps. None saves it by time, before more than 30 seconds of
            work could be lost. The state is also saved after the last step, and immediately on cancellation or a
            temporary failure. A crash or a power cut loses only the work since the last save.
        preview_every: every this many steps, the local backend writes a preview of the unfinished video to
            ``<output>.preview.png``, which the progress names; each preview replaces the previous one. 0 disables
            previews.
        rewriting: the language model that rewrites prompts, for requests with ``rewrite`` set.
        safety: whether finished frames are checked, and what happens to a flagged video.
        rewrite_s: set by the backend: seconds spent rewriting the prompt.
        rewrite_notes: set by the backend: the notes about rewriting that go into the result.
        job_id: set by a hosted backend as soon as it is known: the local id with which the job can be resumed.
        remote_id: set by a hosted backend as soon as it is known: the service's id of the task.
        reports_run_time: set by a hosted backend: whether the service reported its run time; only then is ``poll_s``
            known, even if it is 0.
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
    reports_run_time: bool = False

    def __post_init__(self) -> None:
        if self.output is not None:
            self.output = Path(self.output)
        if self.checkpoint_dir is not None:
            self.checkpoint_dir = Path(self.checkpoint_dir)
        if self.checkpoint_every is not None and self.checkpoint_every < 1:
            raise ConfigError(
                f"checkpoint_every={self.checkpoint_every}: must be 1 step or more; omit it to save by time"
            )
        if self.preview_every < 0:
            raise ConfigError(f"preview_every={self.preview_every}: must be 1 step or more, or 0 for no previews")


class Explanation(BaseModel):
    """What a backend would do with a request.

    Attributes:
        verdict: ``accepted`` unchanged; ``adjusted``, which requires permission; or ``refused``.
        losses: for each loss the field, its value, the reason and, if it can be permitted, the new value.
        url: where the request is sent; None if it is refused, and for the local backend.
        body: the exact body; None if the request is refused. If the request has no seed, the body shows an example:
            each video gets a new random seed.
        notes: other information for the user.
        price_usd: price of one video in US dollars, if known.
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
    """Generates videos, one at a time. Callers decide by its members, never by its name."""

    @property
    def name(self) -> str:
        """Name of the backend on the command line and in files."""
        ...

    @property
    def config(self) -> ModelConfig | None:
        """The model that runs on this machine; None for a hosted service."""
        ...

    @property
    def profile(self) -> RuntimeProfile | None:
        """The fixed profile of the model; None if the plan chooses one per request, and for a hosted service."""
        ...

    @property
    def is_paid(self) -> bool:
        """Whether each video is a hosted task, which may cost money and may not support every field."""
        ...

    @property
    def keeps_state(self) -> bool:
        """Whether the backend supports ``checkpoint_dir`` and ``preview_every`` of a context."""
        ...

    @property
    def identity(self) -> str:
        """Equal for two backends that generate the same videos: identifies the model or the service."""
        ...

    @property
    def device(self) -> str:
        """Description of the device; ``not loaded`` until the model is loaded."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Supported sizes, steps, frame counts and seeds, and the price if known."""
        ...

    def explain(self, request: GenerationRequest) -> Explanation:
        """What ``generate`` would do with this request; sends nothing and reads no weights."""
        ...

    def load(self, context: GenerationContext | None = None) -> object:
        """Do now what the first video would otherwise wait for; later calls do nothing."""
        ...

    def memory(self) -> tuple[int, int] | None:
        """Peak and total device memory in bytes; None if it is not measured."""
        ...

    def rewrite(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationRequest:
        """Rewrite the prompt if the request sets ``rewrite`` and the prompt has not been rewritten yet.

        :meth:`generate` starts with this step.

        Raises:
            RewriteError: the prompt cannot be rewritten, and the context does not allow the original prompt.
        """
        ...

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Generate one video; the result has its path and a record of how it was generated.

        Raises:
            HunyuanLocalError: see :mod:`hunyuan_local.errors`; no file is left behind.
        """
        ...

    def close(self) -> None:
        """Release memory and connections; the backend cannot be used afterwards."""
        ...


class Pending(Protocol):
    """A video that is being finished and no longer needs the backend."""

    def result(self) -> GenerationResult:
        """Wait for the file; raises the same errors as :meth:`Backend.generate`."""
        ...


@runtime_checkable
class StagedBackend(Backend, Protocol):
    """A backend that can share stages between videos of a batch."""

    def encode_ahead(self, requests: Sequence[GenerationRequest], folder: Path, context: GenerationContext) -> None:
        """Encode the prompts of upcoming requests and store the results in a folder."""
        ...

    def start(self, request: GenerationRequest, context: GenerationContext | None = None) -> Pending:
        """Like ``generate``, but return as soon as the next video can start."""
        ...


def preview_path(output: Path) -> Path:
    """Path of the preview image of an unfinished video."""
    return output.with_name(f"{output.name}.preview.png")


def with_seed(request: GenerationRequest, limits: Capabilities) -> GenerationRequest:
    """The request with its seed or, if it has none, with a random seed that the backend supports."""
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
    """Build the result of :meth:`Backend.explain` from a fitted request."""
    if fitted.request.seed is None:
        seed_is_dropped = any(loss.field == "seed" for loss in fitted.losses)
        why = "the given seed is not sent" if seed_is_dropped else "no seed"
        notes = [*notes, f"{why}: each video gets a random one; the seed shown is an example"]
    if fitted.request.awaits_rewriting:
        notes = [*notes, f"the prompt is rewritten first ({fitted.request.rewrite}); the original is shown"]
    verdict = "refused" if not fitted.possible else "adjusted" if fitted.losses else "accepted"
    losses = [
        {
            "field": x.field,
            "value": repr(x.value) if isinstance(x.value, InputImage) else x.value,
            "reason": x.rule,
            "becomes": x.becomes,
            "permissible": x.permissible,
        }
        for x in fitted.losses
    ]
    return Explanation(
        backend=name, verdict=verdict, losses=losses, url=url if body is not None else None, body=body, notes=notes,
        price_usd=limits.price_usd,
    )  # fmt: skip
