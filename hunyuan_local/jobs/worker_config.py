"""How a worker works, what it is called, and which model it runs: one object from the command line to its process."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from ..backends.base import Backend
from ..config import LoraConfig, ModelConfig, RewriteConfig, RuntimeProfile, SafetyConfig
from ..config.strict import StrictConfig


def worker_name(slot: str = "worker") -> str:
    """A name that no other worker has: the slot, the process and a random part."""
    return f"{slot}-{os.getpid()}-{os.urandom(3).hex()}"


class WorkerConfig(StrictConfig):
    """How a worker works; times in seconds.

    Attributes:
        name: unique among all workers of a store.
        queue: the ``model`` of the jobs that it takes; None is the backend's ``identity``.
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

    name: str = Field(default_factory=worker_name)
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
    rewriting: RewriteConfig = RewriteConfig()
    safety: SafetyConfig = SafetyConfig()
    allow_loss: bool = False
    submit_again: bool = False


class WorkerOptions(WorkerConfig):
    """All that a worker of the local model needs; its process, or its actor in Ray, receives it as it is.

    Attributes:
        data_dir: the folder of the jobs; None is the usual one. A worker in Ray has its own folder.
        model, revision, profile, lora, cache, context_parallel, context_parallel_mode: see
            :func:`hunyuan_local.backends.registry.get_backend`. A worker in Ray looks on its own machine for weights
            that they name.
    """

    data_dir: Path | None = None
    model: str | ModelConfig | None = None
    revision: str | None = None
    profile: str | RuntimeProfile | None = None
    lora: tuple[LoraConfig, ...] = ()
    cache: str | None = None
    context_parallel: int | None = None
    context_parallel_mode: str | None = None

    def backend(self) -> Backend:
        """The backend of the model, not loaded yet.

        Raises:
            ConfigError: an unknown name, or options that contradict each other.
        """
        from ..backends.registry import get_backend

        return get_backend(
            "local", model=self.model, profile=self.profile, revision=self.revision, lora=self.lora, cache=self.cache,
            context_parallel=self.context_parallel, context_parallel_mode=self.context_parallel_mode,
        )  # fmt: skip
