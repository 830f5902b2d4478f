"""How a worker works, and what it is called."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from ..config import RewriteConfig, SafetyConfig


@dataclass(frozen=True)
class WorkerConfig:
    """How a worker works; times in seconds.

    Attributes:
        name: unique among all workers of a store.
        queue: whose jobs it takes, by what these have in the place of a model; None is the backend's ``identity``.
        lease_s: a job is given to another worker after so long without a sign of life.
        beat_s: between two signs of life; also how soon a cancellation is seen.
        poll_s: between two looks for a job, unless the store changes.
        pause_s: after a failure that may pass, and while the disk is full.
        checkpoint_every: save the unfinished video after so many steps; None by time, see
            :class:`hunyuan_local.backends.base.GenerationContext`.
        min_free_bytes: no job is begun with less free on the disk.
        encode_ahead: encode the prompts of all waiting jobs first.
        patience_s: a service that cannot be reached, or has too many requests, is asked again for so long.
        preview_every: pictures of the unfinished video; see
            :class:`hunyuan_local.backends.base.GenerationContext`, also for ``rewriting`` and ``safety``.
        allow_loss, submit_again: see :class:`hunyuan_local.backends.base.GenerationContext`.
    """

    name: str
    queue: str | None = None
    lease_s: float = 30.0
    beat_s: float = 1.0
    poll_s: float = 1.0
    pause_s: float = 5.0
    checkpoint_every: int | None = None
    min_free_bytes: int = 0
    encode_ahead: bool = False
    patience_s: float = 1800.0
    preview_every: int = 0
    rewriting: RewriteConfig = field(default_factory=RewriteConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    allow_loss: bool = False
    submit_again: bool = False


def worker_name(slot: str = "worker") -> str:
    """A name that no other worker has: the slot, the process and a random part."""
    return f"{slot}-{os.getpid()}-{os.urandom(3).hex()}"
