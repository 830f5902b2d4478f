"""Worker configuration, from the command line to the worker process as one object."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from ..backends.base import Backend
from ..config import LoraConfig, ModelConfig, RewriteConfig, RuntimeProfile, SafetyConfig
from ..config.strict import StrictConfig


def worker_name(slot: str = "worker") -> str:
    """A unique name: the slot, the process id and a random part."""
    return f"{slot}-{os.getpid()}-{os.urandom(3).hex()}"


class WorkerConfig(StrictConfig):
    """How a worker works; times in seconds.

    Attributes:
        name: unique among the workers of a store.
        queue: the ``model`` of the jobs to claim; None uses the backend's ``identity``.
        lease_s: time without a heartbeat after which another worker may take the job.
        beat_s: heartbeat interval; also the delay until a cancellation is noticed.
        poll_s: interval between two looks for a job if the store does not change.
        pause_s: pause after a failure that may pass, and while the disk is full.
        checkpoint_every: save the unfinished video every this many steps; None saves by time, see
            :class:`hunyuan_local.backends.base.GenerationContext`.
        min_free_bytes: free disk space required to start a job.
        encode_ahead: encode the prompts of all waiting jobs first.
        patience_s: how long to retry a service that is unreachable or limits the rate.
        preview_every, rewriting, safety: see :class:`hunyuan_local.backends.base.GenerationContext`.
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
    """All options of a local model's worker, passed as one object to its process or Ray actor.

    Attributes:
        data_dir: the data folder; None uses the default. A worker in Ray has its own folder.
        model, revision, profile, lora, cache, context_parallel, context_parallel_mode: see
            :func:`hunyuan_local.backends.registry.get_backend`. A worker in Ray looks for weights on its own machine.
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
        """Create the backend, without loading the model.

        Raises:
            ConfigError: an unknown name, or conflicting options.
        """
        from ..backends.registry import get_backend

        return get_backend(
            "local", model=self.model, profile=self.profile, revision=self.revision, lora=self.lora, cache=self.cache,
            context_parallel=self.context_parallel, context_parallel_mode=self.context_parallel_mode,
        )  # fmt: skip
