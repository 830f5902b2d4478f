"""Prompt rewriting in a backend: loads the language model on first use, on a device with enough memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..config import RewriteConfig
from ..pipeline.library_imports import importing
from ..rewriting import Rewriter
from ..rewriting.chat_model import Writer
from ..schema import GenerationRequest, Progress
from .base import GenerationContext

# Memory of a language model on top of its weights, as a fraction of them: the KV cache of a prompt, and the logits.
OVERHEAD = 0.2


@dataclass(frozen=True)
class Place:
    """Where the language model runs: the device, and whether it may stay there during denoising."""

    device: Literal["cpu", "cuda"] = "cpu"
    stays: bool = True


# Chooses a place, given the bytes of device memory that the language model needs.
FindPlace = Callable[[int], Place]


def on_the_cpu(needed_bytes: int) -> Place:
    """The place for backends that do not track GPU memory: the CPU."""
    return Place()


class PromptRewriter:
    """The rewriter of one or more backends; it rewrites one prompt at a time.

    Args:
        max_characters: longest prompt that the backend accepts; None if there is no known limit.
    """

    def __init__(self, max_characters: int | None = None):
        self._find_place: FindPlace = on_the_cpu
        self._max_characters = max_characters
        self._one_at_a_time = threading.RLock()
        self._rewriter: Rewriter | None = None
        self._place = Place()
        self._needed_bytes = 0

    def rewrite(
        self, request: GenerationRequest, context: GenerationContext, find_place: FindPlace = on_the_cpu
    ) -> GenerationRequest:
        """Implement :meth:`hunyuan_local.backends.base.Backend.rewrite`; sets the time and notes in the context.

        Args:
            find_place: chooses the device of the language model if it is not loaded yet.
        """
        if not request.awaits_rewriting:
            return request
        with self._one_at_a_time:
            self._find_place = find_place
            return self._rewrite(request, context)

    def _rewrite(self, request: GenerationRequest, context: GenerationContext) -> GenerationRequest:
        config = context.rewriting
        if self._rewriter is None or self._rewriter.config != config:
            self.close()
            self._rewriter = Rewriter(config, lambda: self._load(config))
        context.on_progress(Progress(stage="rewrite"))
        try:
            found = self._rewriter.rewrite(request, context.cancel.is_set, self._max_characters)
        finally:
            if not self._place.stays:
                self.close()
        context.rewrite_s, context.rewrite_notes = found.seconds, [found.note]
        context.on_note(found.note)
        return found.request

    def make_room(self, find_place: FindPlace) -> None:
        """Unload the language model if it is on the GPU and the next video needs the memory."""
        if self._place.device != "cpu" and find_place(self._needed_bytes) != Place("cuda"):
            self.close()

    def leave_gpu(self) -> bool:
        """Unload the language model from the GPU after running out of memory; False if it is not on the GPU."""
        is_there = self._rewriter is not None and self._place.device != "cpu"
        if is_there:
            self.close()
        return is_there

    def close(self) -> None:
        """Release the memory of the language model."""
        with self._one_at_a_time:
            rewriter, self._rewriter = self._rewriter, None
            if rewriter is not None:
                rewriter.close()
            self._place = Place()

    def _load(self, config: RewriteConfig) -> Writer:
        with importing():
            from ..pipeline.text.language_model import LanguageModel, weight_bytes

        self._needed_bytes = round(weight_bytes(config) * (1 + OVERHEAD))
        self._place = self._find_place(self._needed_bytes)
        return LanguageModel(config, self._place.device)
