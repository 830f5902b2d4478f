"""Joins a loaded model to a group of processes that run one model together (context parallelism).

The leader encodes the prompts and shares the embeddings. Every process runs the whole denoising loop on its part
of the tokens and ends with the same latents; in the decoding, each process decodes some of the tiles. Knows nothing
about how the processes are started.
"""

from __future__ import annotations

import functools

import torch

from .attention.exchange import own_heads
from .attention.kernel_choice import (
    choose_backend,
    fastest_first,
    fastest_ring_first,
    find_problem,
    measured_seconds,
    rivals,
)
from .attention.parallel_attention import split_tokens, why_no_context_parallel
from .memory.device import nvidia_capability
from .model import LoadedModel
from .process_group import ProcessGroup


def join(model: LoadedModel, process_group: ProcessGroup, requested_backend: str) -> None:
    """Make a model one rank of a group in which every process has loaded the same model and profile.

    Args:
        model: just loaded; its profile gets the chosen attention backend and the context-parallel settings.
        process_group: all ranks must call this at the same time.
        requested_backend: the profile's ``attention_backend``, or ``auto``.

    Raises:
        ConfigError: the backend does not support context parallelism here.
    """
    backend = _choose_backend(model, process_group, requested_backend)
    transformer = model.pipe.transformer
    split_tokens(transformer, process_group, model.kernel, backend, model.placement.device_of("transformer"))
    model.process_group = process_group
    model.profile = model.profile.model_copy(
        update={"attention_backend": backend, "context_parallel": process_group.shared}
    )


def _choose_backend(model: LoadedModel, process_group: ProcessGroup, requested: str) -> str:
    """The kernel of all ranks. Those of ``auto`` may differ, since two kernels may be timed; the leader's is used."""
    profile, config, mode = model.profile, model.pipe.transformer.config, process_group.shared.mode
    dtype, head_dim = getattr(torch, profile.dtypes.transformer), config.attention_head_dim

    @functools.cache
    def why_not(backend: str) -> str | None:
        problem = why_no_context_parallel(backend, mode, profile.device)
        return problem or find_problem(backend, profile.device, dtype, head_dim)

    capability = nvidia_capability(profile.device)
    ulysses = mode == "ulysses"
    heads = own_heads(config.num_attention_heads, process_group) if ulysses else config.num_attention_heads
    chosen = choose_backend(
        requested, fastest_first(capability) if ulysses else fastest_ring_first(capability), why_not,
        functools.partial(rivals, capability=capability),
        lambda backend: measured_seconds(backend, heads, head_dim, torch.device(profile.device), dtype),
    )  # fmt: skip
    return process_group.share(chosen)
