"""The interface of every backend: one verb, and the context that travels beside the request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..schema import GenerationRequest, GenerationResult, Progress


def _ignore(told: Progress | str) -> None:
    """The callback of a caller who does not ask."""


@dataclass
class GenerationContext:
    """What belongs to one run rather than to the video.

    Attributes:
        output: the mp4 to write; None chooses a name with time and seed in the current folder.
        overwrite: replace an existing file.
        on_progress: called with every :class:`Progress`, from the thread that generates.
        on_note: called with each sentence that the user should know, as soon as it is known; the
            result holds them all.
        cancel: set it, from any thread, to stop within one step.
    """

    output: Path | None = None
    overwrite: bool = False
    on_progress: Callable[[Progress], None] = _ignore
    on_note: Callable[[str], None] = _ignore
    cancel: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if self.output is not None:
            self.output = Path(self.output)


class Backend(Protocol):
    """Makes videos. Not for concurrent use: one ``generate`` at a time."""

    name: str

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Make one video and return where it is and how it was made.

        Raises:
            HunyuanLocalError: see :mod:`hunyuan_local.errors`; no file is left behind.
        """
        ...

    def close(self) -> None:
        """Give back memory and connections; the backend may not be used afterwards."""
        ...
