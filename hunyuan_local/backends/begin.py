"""How every backend begins a video: what was asked for becomes a run whose request and file are settled."""

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
    """What is known of one video on its way.

    Attributes:
        request: with a seed, and with every default that its backend has.
        output: the file to write.
        context: progress, cancellation and options of the caller.
        began: seconds of the monotonic clock at the start; the rewriting of the prompt does not count.
        notes: what the user has been notified of.
        state: what an earlier attempt may have saved, and this one saves; None keeps nothing.
        loaded: seconds of the monotonic clock once a model of this machine was there.
        recoveries: what was changed because memory ran out.
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
        """Notify the user, once, and keep the text for the result."""
        if text not in self.notes:
            self.notes.append(text)
            self.context.on_note(text)

    def rewrite(self, rewriter: PromptRewriter, find_place: FindPlace = on_the_cpu) -> None:
        """Have the prompt rewritten, if the request asks for that and it is not done yet; note how it went.

        Afterwards the language model is where this video leaves room for it.

        Raises:
            RewriteError: the prompt cannot be rewritten, and the context does not allow to use the original one.
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
                f"rewrite={self.request.rewrite}: an earlier attempt at this video has left the prompt as it is"
            )


def begin(
    request: GenerationRequest,
    context: GenerationContext,
    *,
    name: str,
    resolve: Callable[[GenerationRequest], R],
    model: ModelConfig | None = None,
) -> Run[R]:
    """Settle what one video is made from, before any weight is read and before anything is sent.

    Args:
        name: of the model or the service, with which the file's name begins where the context names no file.
        resolve: gives the request as the backend takes it, with a seed; refuses what it cannot make.
        model: whose saved states are taken up; None saves none.

    Raises:
        ConfigError, OutputExistsError: the file cannot be written, or ``SOURCE_DATE_EPOCH`` is no time.
        ConfigError, ModelLoadError: frames are to be checked, and the classifier cannot be used.
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
    """Clear what an earlier request has left in a context; what was done for this one stays."""
    if request.original_prompt is None:
        context.rewrite_s, context.rewrite_notes = 0.0, []


def open_state(request: GenerationRequest, model: ModelConfig, context: GenerationContext) -> Checkpoint | None:
    """The saved state of a request, if the context has a folder for it; its content is checked at the load.

    Args:
        request: as it was asked for: the state is named by that, so that the same command finds it.
    """
    if context.checkpoint_dir is None:
        return None
    sweep(context.checkpoint_dir)
    from ..pipeline.checkpoint import Checkpoint, key_of

    # Where it is as seen from here, so that a state may be taken to another machine with its folder.
    output = "" if context.output is None else os.path.relpath(context.output, context.checkpoint_dir)
    key = key_of(json_text(request), json_text(model), output)
    return Checkpoint(context.checkpoint_dir, key, context.checkpoint_every)


def _with_what_was_kept(request: GenerationRequest, state: Checkpoint) -> GenerationRequest:
    """The request with the prompt that was rewritten, and the seed that was drawn, before an interruption."""
    saved = json.loads(state.saved_facts().get("request", "{}"))
    if request.awaits_rewriting and saved.get("original_prompt") == request.prompt:
        request = request.replace(prompt=saved["prompt"], original_prompt=request.prompt)
    return request.replace(seed=state.seed()) if request.seed is None else request


class OneAtATime:
    """Lets one video of a backend be made at a time; a second one is refused at once.

    Raises:
        HunyuanLocalError: on entering, while another thread is inside.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise HunyuanLocalError(
                "this backend makes one video at a time and is at work on another; wait until that is done, or make "
                "another backend with get_backend"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
