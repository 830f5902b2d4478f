"""One video from a resolved request to its file, with retries if the device runs out of memory.

This module only orders the steps; they are implemented in ``pipeline/``, ``frame_checks`` and ``video``.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from ...config import RuntimeProfile
from ...errors import GpuMemoryError, InvalidOutputError
from ...pipeline.library_imports import importing
from ...planner import plan
from ...planner.tiles import Tiles
from ...resolved import ResolvedRequest
from ..begin import Run
from .decode_and_write import PendingVideo, decode_to_file, fitting_tiles, make_previewer
from .out_of_memory import OutOfMemoryFallback, Retry, remedy, why_impossible
from .profile_choice import available_machine

if TYPE_CHECKING:
    from ..prompt_rewriting import PromptRewriter
    from .kept_model import KeptModel


class Attempts:
    """The attempts at one video: in the chosen profile first, then in a fallback each time memory runs out.

    Args:
        run: the video's request and state.
        kept: the model; unloaded before an attempt in another profile.
        profile: the profile of the first attempt.
        tiles: made smaller if decoding runs out of memory.
        prompt_rewriter: its language model leaves the GPU first.

    Attributes:
        profile: the profile of the last attempt.
    """

    def __init__(
        self,
        run: Run[ResolvedRequest],
        kept: KeptModel,
        profile: RuntimeProfile,
        tiles: Tiles,
        prompt_rewriter: PromptRewriter,
    ):
        self.profile = profile
        self._run, self._kept, self._tiles = run, kept, tiles
        self._prompt_rewriter = prompt_rewriter
        self._fallback = OutOfMemoryFallback(profile, partial(why_impossible, kept.config))

    def make(self) -> PendingVideo:
        """Make attempts until one decodes the last frame; the run lists the changes.

        Raises:
            GpuMemoryError: no fallback is left; the message includes the remedy.
            HunyuanLocalError: any other error of loading, denoising or decoding.
        """
        while True:
            try:
                return self._attempt()
            except GpuMemoryError as error:
                if self._makes_room(error):
                    continue
                retry = self._next_retry(error)
            # Outside the except block: the traceback's frames would keep the model alive during the unload.
            self._change(retry)

    def _attempt(self) -> PendingVideo:
        """Load the model, denoise and decode, resuming from the saved state if there is one."""
        with importing():
            from ...pipeline.checkpoint import Checkpoint
            from ...pipeline.denoise import denoise
            from ...pipeline.model import facts_of

        run, request, context = self._run, self._run.request, self._run.context
        model = self._kept.load(self.profile, context)
        run.loaded = run.loaded or time.monotonic()

        run.state = checkpoint = run.state or Checkpoint()
        checkpoint.facts = facts_of(model, request)
        previewer = make_previewer(run, model) if context.preview_every else None
        try:
            denoised = denoise(
                model, request, model.config.render_size(request.width, request.height), context.on_progress, run.note,
                context.cancel.is_set, checkpoint, previewer,
            )  # fmt: skip
            # The saved latents are deleted once the file is complete.
            tiling = fitting_tiles(model, self._tiles, self.profile)
            return decode_to_file(run, model, denoised, tiling, checkpoint.delete)
        except InvalidOutputError:
            checkpoint.delete()  # the same latents would give the same video
            raise
        except BaseException as error:  # such as a cancellation or a full disk: keep the finished steps
            checkpoint.rescue(request.seed, error, run.note)
            raise

    def _makes_room(self, error: GpuMemoryError) -> bool:
        """Move what is on the device but not needed in this stage away; returns whether there was anything."""
        if self._prompt_rewriter.leave_gpu():
            return True
        model = self._kept.loaded
        if error.stage == "decode" and model is not None and model.placement.has_evictable:
            model.placement.evict()
            return True
        return False

    def _next_retry(self, error: GpuMemoryError) -> Retry:
        """The next retry.

        Raises:
            GpuMemoryError: no retry is left; the message includes the remedy.
        """
        try:
            return self._fallback.next_retry(error, self._tiles.can_shrink)
        except GpuMemoryError as last:
            self._kept.unload()
            found = plan(self._run.request, self._kept.config, available_machine())
            raise GpuMemoryError(f"{last}; {remedy(found)}", error.stage, error.peak_bytes) from None

    def _change(self, retry: Retry) -> None:
        """Prepare the next attempt, and note what changes."""
        text = f"{retry.text}: {self._tiles.shrink()}" if retry.shrink_tiles else retry.text
        self._run.recoveries.append(text)
        self._run.note(text)
        self.profile = retry.profile
        if not retry.shrink_tiles:
            self._kept.unload()
