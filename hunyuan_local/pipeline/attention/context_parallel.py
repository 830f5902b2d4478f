"""Joins a loaded model to a group of processes that run one model together (context parallelism).

The leader encodes the prompts and shares the embeddings. Every process runs the whole denoising loop on its part
of the tokens and ends with the same latents; in the decoding, each process decodes some of the tiles. Knows nothing
about how the processes are started.
"""

from __future__ import annotations

import functools

import torch

from ...config import RuntimeProfile
from ..model import LoadedModel
from ..process_group import ProcessGroup
from .kernel_choice import choose_backend, fastest_first, find_problem
from .parallel_attention import split_tokens, why_no_context_parallel


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
    split_tokens(transformer, process_group, backend, model.placement.device_of("transformer"))
    model.process_group = process_group
    model.profile = model.profile.model_copy(
        update={"attention_backend": backend, "context_parallel": process_group.shared}
    )


def _choose_backend(model: LoadedModel, process_group: ProcessGroup, requested: str) -> str:
    profile: RuntimeProfile = model.profile
    find = functools.partial(
        find_problem,
        device=profile.device,
        dtype=getattr(torch, profile.dtypes.transformer),
        head_dim=model.pipe.transformer.config.attention_head_dim,
    )

    @functools.cache
    def why_not(backend: str) -> str | None:
        return why_no_context_parallel(backend, process_group.shared.mode, profile.device) or find(backend)

    capability = torch.cuda.get_device_capability() if profile.device == "cuda" else None
    # ``native`` dispatches to torch's FlashAttention 2. Name it explicitly: it returns the log-sum-exp that ring needs.
    order = tuple(
        name for own in fastest_first(capability) for name in (("native_flash", own) if own == "native" else (own,))
    )
    return choose_backend(requested, order, why_not)
