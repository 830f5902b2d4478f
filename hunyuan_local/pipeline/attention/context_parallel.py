"""Makes a loaded model one process's part of a model that several processes run together.

What each of them does is the same as alone, from the request to the latents, which all of them then have; the
encoding of the prompts is the leader's, and of the decoding each has its tiles. Knows nothing about how the
processes are started.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from ...config import RuntimeProfile
from ...resolved import FilledRequest
from ..model import LoadedModel
from ..process_group import ProcessGroup
from ..text.prompt_cache import Embeddings
from ..text.prompt_encoder import PromptEncoder
from .kernel_choice import choose_backend, fastest_first, find_problem
from .parallel_attention import split_tokens, why_no_context_parallel


def join(model: LoadedModel, process_group: ProcessGroup, requested_backend: str) -> None:
    """Let a model work with those that the other processes of the group have loaded in the same profile.

    Args:
        model: just loaded; its profile will have the attention kernel that is taken, and how tokens are shared.
        process_group: all of it joins at the same time.
        requested_backend: the attention kernel that the profile asked for, or ``auto``.

    Raises:
        ConfigError: no such kernel takes part in context parallelism here.
    """
    backend = _choose_backend(model, process_group, requested_backend)
    transformer = model.pipe.transformer
    split_tokens(transformer, process_group, backend, model.placement.device_of("transformer"))
    model.shared_prompts = SharedPrompts(model.prompts, process_group, model.placement.device_of("transformer"))
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
    # Torch's own FlashAttention 2 is what ``native`` would take, and gives what ring needs.
    order = tuple(
        name for own in fastest_first(capability) for name in (("native_flash", own) if own == "native" else (own,))
    )
    return choose_backend(requested, order, why_not)


class SharedPrompts:
    """Encodes prompts in the leader alone, so that a text encoder of 16 GB is in main memory once.

    The embeddings, 2 MB a prompt of the 13 B model, then go to the others.
    """

    def __init__(self, own: PromptEncoder, process_group: ProcessGroup, device: torch.device):
        self._own, self._team, self._device = own, process_group, device

    def encode(self, request: FilledRequest, on_note: Callable[[str], None]) -> Embeddings:
        """See :class:`.text.prompt_encoder.PromptEncoder`; the whole group calls it."""
        embeds: Embeddings = {}
        if self._team.is_leader:
            embeds = {name: value.cpu() for name, value in self._own.encode(request, on_note).items()}
        return {name: value.to(self._device) for name, value in self._team.share(embeds).items()}
