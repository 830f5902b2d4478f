"""The common start of a video in every backend: resolves the request and the output path into a :class:`Run`."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from ..config import ModelConfig
from ..durable import sweep
from ..errors import HunyuanLocalError
from ..json_text import json_text
from ..pipeline.library_imports import importing
from ..provenance import check_source_date
from ..schema import GenerationRequest
from ..video import check_output_path
from .base import GenerationContext
from .prompt_rewriting import FindPlace, PromptRewriter, on_the_cpu
from .safety_check import prepare

if TYPE_CHECKING:
    from ..pipeline.checkpoint import Checkpoint

R = TypeVar("R", bound=GenerationRequest)


@dataclass
class Run(Generic[R]):
    """The state of one video while it is generated.

    Attributes:
        request: with a seed and all defaults of the backend.
        output: the file to write.
        context: progress, cancellation and options of the caller.
        began: monotonic time of the start in seconds, moved forward by the time spent rewriting the prompt.
        notes: the notes sent to the user so far.
        state: the saved state of this video, possibly from an earlier attempt; None saves nothing.
        loaded: monotonic time in seconds at which the local model was loaded.
        recoveries: the changes made because memory ran out, and those that other ranks made.
    """

    request: R
    output: Path
    context: GenerationContext
    began: float
    notes: list[str] = field(default_factory=list)
    state: Checkpoint | None = None
    loaded: float = 0.0
    recoveries: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Send a note to the user, once, and keep it for the result."""
        if text not in self.notes:
            self.notes.append(text)
            self.context.on_note(text)

    def rewrite(self, rewriter: PromptRewriter, find_place: FindPlace = on_the_cpu) -> None:
        """Rewrite the prompt if the request sets ``rewrite`` and it has not been rewritten yet; note the outcome.

        Afterwards the language model leaves the GPU if the video needs the memory.

        Raises:
            RewriteError: the prompt cannot be rewritten, and the context does not allow the original prompt.
        """
        context = self.context
        if self.request.awaits_rewriting:
            asked_at = time.monotonic()
            found = rewriter.rewrite(self.request, context, find_place)
            self.request = self.request.replace(prompt=found.prompt, original_prompt=found.original_prompt)
            self.began += time.monotonic() - asked_at
        rewriter.make_room(find_place)
        self.notes += context.rewrite_notes
        if not context.rewrite_notes and self.request.original_prompt == self.request.prompt:
            self.notes.append(
                f"rewrite={self.request.rewrite}: an earlier attempt at this video left the prompt unchanged"
            )


def begin(
    request: GenerationRequest,
    context: GenerationContext,
    *,
    name: str,
    resolve: Callable[[GenerationRequest], R],
    model: ModelConfig | None = None,
) -> Run[R]:
    """Resolve the request and check the output, before any weights are read and before anything is sent.

    Args:
        name: name of the model or the service; it starts the file name if the context has no output path.
        resolve: returns the request as the backend runs it, with a seed; raises if the backend cannot run it.
        model: the model whose saved states are resumed; None saves no states.

    Raises:
        ConfigError, OutputExistsError: the file cannot be written, or ``SOURCE_DATE_EPOCH`` is not a valid time.
        ConfigError, ModelLoadError: the safety check is on, and the classifier cannot be used.
        InvalidRequestError: ``resolve`` refuses the request.
    """
    check_source_date()
    if context.output is not None:
        check_output_path(context.output, context.overwrite)
    prepare(context.safety, context.on_note)
    forget_rewriting(request, context)
    began = time.monotonic()
    state = None if model is None else open_state(request, model, context)
    resolved = resolve(request if state is None else _with_what_was_kept(request, state))
    output = context.output or Path(f"{Path(name).name}-{datetime.now():%Y%m%d-%H%M%S}-{resolved.seed}.mp4")
    check_output_path(output, context.overwrite)
    sweep(output.absolute().parent)
    return Run(resolved, output, context, began, state=state)


def forget_rewriting(request: GenerationRequest, context: GenerationContext) -> None:
    """Clear rewriting results of an earlier request from a context; those of this request stay."""
    if request.original_prompt is None:
        context.rewrite_s, context.rewrite_notes = 0.0, []


def open_state(request: GenerationRequest, model: ModelConfig, context: GenerationContext) -> Checkpoint | None:
    """The saved state of a request, if the context has a checkpoint folder; its content is checked when it is loaded.

    Args:
        request: the request as the user made it. The name of the state is derived from it, so the same command
            finds the state again.
    """
    if context.checkpoint_dir is None:
        return None
    sweep(context.checkpoint_dir)
    with importing():
        from ..pipeline.checkpoint import Checkpoint, key_of

    # A relative path, so that the folder can be moved to another machine together with its states.
    output = "" if context.output is None else os.path.relpath(context.output, context.checkpoint_dir)
    key = key_of(json_text(request), json_text(model), output)
    return Checkpoint(context.checkpoint_dir, key, context.checkpoint_every)


def _with_what_was_kept(request: GenerationRequest, state: Checkpoint) -> GenerationRequest:
    """The request with the rewritten prompt and the random seed that were saved before an interruption."""
    saved = json.loads(state.saved_facts().get("request", "{}"))
    if request.awaits_rewriting and saved.get("original_prompt") == request.prompt:
        request = request.replace(prompt=saved["prompt"], original_prompt=request.prompt)
    return request.replace(seed=state.seed()) if request.seed is None else request


class OneAtATime:
    """A lock that allows one video of a backend at a time and refuses a second one immediately.

    Raises:
        HunyuanLocalError: on entry, while another thread holds the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise HunyuanLocalError(
                "this backend generates one video at a time and is busy with another; wait for it to finish, or "
                "create another backend with get_backend"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
