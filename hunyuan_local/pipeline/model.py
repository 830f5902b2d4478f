"""A loaded model: its components, their placement, and a device that is left clean after each stage."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import HunyuanVideoPipeline

from ..config import ModelConfig, RuntimeProfile
from ..provenance import library_versions, weights_identity
from ..resolved import FilledRequest, ResolvedRequest
from ..schema import Stage
from .families.base import Family
from .memory.allocator import give_back_memory
from .memory.device import available_bytes, device_name, free_device, translated_shortage
from .memory.placement import Placement
from .text.prompt_cache import Embeddings
from .text.prompt_encoder import PromptEncoder

if TYPE_CHECKING:
    from .attention.fallback import AttentionKernel
    from .process_group import ProcessGroup


@dataclass
class LoadedModel:
    """The components of a model on their devices, with the config, profile and folder that they were loaded from.

    ``pipe`` only holds the components; its ``__call__`` is not used. ``kernel`` computes attention. ``extra_files``
    maps the path of each file that was loaded from outside the folder (LoRA, GGUF) to its SHA-256. ``process_group`` is
    set if several processes run the model together.
    """

    pipe: HunyuanVideoPipeline
    family: Family
    config: ModelConfig
    profile: RuntimeProfile
    folder: Path
    placement: Placement
    prompts: PromptEncoder
    kernel: AttentionKernel
    extra_files: dict[str, str] = field(default_factory=dict)
    process_group: ProcessGroup | None = None

    @cached_property
    def weights(self) -> str:
        """Identity of the folder's files at the time of the first access."""
        return weights_identity(self.folder)

    def encode(self, request: FilledRequest, on_note: Callable[[str], None]) -> Embeddings:
        """Embeddings of a request's prompts; see :meth:`.text.prompt_encoder.PromptEncoder.encode`.

        In a process group, all ranks must call it. Only the leader encodes, so that the 16 GB text encoder is in main
        memory once; it then broadcasts the embeddings, about 2 MB per prompt for the 13 B model.
        """
        group, device = self.process_group, self.placement.device_of("transformer")
        if group is None:
            return self.prompts.encode(request, on_note)
        embeds: Embeddings = {}
        if group.is_leader:
            embeds = {name: value.cpu() for name, value in self.prompts.encode(request, on_note).items()}
        return {name: value.to(device) for name, value in group.share(embeds).items()}


@contextlib.contextmanager
def clean_device(model: LoadedModel, stage: Stage, component: str) -> Iterator[None]:
    """Keep a component on the device inside; afterwards, also after an error, free all caches and tensors.

    Components that only visit the device leave too, unless they were kept with ``let_stay``.

    Raises:
        GpuMemoryError: the device ran out of memory.
    """
    try:
        with translated_shortage(stage), model.placement.active(component):
            yield
    finally:
        model.pipe.maybe_free_model_hooks()
        if model.profile.device == "cpu":
            give_back_memory()


def decoding_bytes(model: LoadedModel) -> int | None:
    """Device bytes available for the decoding, excluding the autoencoder's weights; None on a CPU."""
    if model.placement.device_of("vae").type != "cuda":
        return None
    arriving = 0
    if model.profile.residence("vae") == "visit":
        arriving = sum(tensor.nbytes for tensor in model.pipe.vae.parameters())
    free_device()
    return available_bytes() - torch.cuda.memory_allocated(0) - arriving


def facts_of(model: LoadedModel, request: ResolvedRequest) -> dict[str, str]:
    """Everything that must match for a resumed run to give the same frames."""
    versions = library_versions()
    return {
        "request": request.model_dump_json(),
        "size": str(model.config.render_size(request.width, request.height)),
        "weights": model.weights,
        "profile": json.dumps(model.profile.exact_frames, sort_keys=True),
        "files": json.dumps(model.extra_files),
        "device": device_name(model.profile),
    } | {name: versions[name] for name in ("torch", "diffusers", "transformers", "tokenizers")}
