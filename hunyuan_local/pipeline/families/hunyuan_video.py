"""HunyuanVideo (text to video, 13 B parameters) and models with its architecture: FastHunyuan, AccVideo, ``tiny``.

The conditions and the prediction match diffusers' ``HunyuanVideoPipeline.__call__``, including the rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    DiffusionPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from transformers import CLIPTextModel, LlamaModel

from ...resolved import ResolvedRequest
from ...schema import GenerationRequest
from ..text.prompt import Prompt
from ..text.prompt_cache import Embeddings
from .base import Conditions

# The transformer's arguments, and the pipeline's names for their values.
_ARGUMENTS = {
    "encoder_hidden_states": "prompt_embeds",
    "encoder_attention_mask": "prompt_attention_mask",
    "pooled_projections": "pooled_prompt_embeds",
}


class HunyuanVideo:
    """The HunyuanVideo text-to-video architecture."""

    takes_image = False
    extra_frames = 0
    pipeline: type[DiffusionPipeline] = HunyuanVideoPipeline
    classes: Mapping[str, Any] = MappingProxyType(
        {
            "transformer": HunyuanVideoTransformer3DModel,
            "vae": AutoencoderKLHunyuanVideo,
            "text_encoder": LlamaModel,
            "text_encoder_2": CLIPTextModel,
        }
    )

    def in_channels(self, latent_channels: int) -> int:
        """Those of the latents."""
        return latent_channels

    def parts(self, folder: Path) -> dict[str, Any]:
        """None."""
        return {}

    def prompts(self, request: GenerationRequest) -> dict[str, Prompt]:
        """The prompt, and the negative prompt if true CFG is on."""
        prompts = {"": Prompt(request.prompt)}
        if has_negative(request):
            prompts["negative_"] = Prompt(request.negative_prompt or "")
        return prompts

    def latents_shape(self, pipe: HunyuanVideoPipeline, size: tuple[int, int], num_frames: int) -> tuple[int, ...]:
        """[1, 16, (num_frames-1)/4+1, height/8, width/8] for the 13 B model."""
        width, height = size
        num_latents = (num_frames - 1) // pipe.vae_scale_factor_temporal + 1
        spatial = pipe.vae_scale_factor_spatial
        return 1, pipe.vae.config.latent_channels, num_latents, height // spatial, width // spatial

    def start(self, noise: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """The noise."""
        return noise

    def conditions(
        self,
        pipe: HunyuanVideoPipeline,
        embeds: Embeddings,
        request: ResolvedRequest,
        image_latents: torch.Tensor | None = None,
    ) -> Conditions:
        """Text tokens, their mask, the pooled prompt, and the guidance scale as an input of the model (times 1000)."""
        dtype, device = pipe.transformer.dtype, embeds["prompt_embeds"].device
        guidance: dict[str, torch.Tensor] = {}
        if pipe.transformer.config.guidance_embeds:
            guidance["guidance"] = torch.tensor([request.guidance_scale], dtype=dtype, device=device) * 1000.0

        def arguments(prefix: str) -> dict[str, torch.Tensor]:
            return {name: embeds[f"{prefix}{source}"].to(dtype) for name, source in _ARGUMENTS.items()} | guidance

        negative = arguments("negative_") if "negative_prompt_embeds" in embeds else None
        return Conditions(arguments(""), negative, request.true_cfg_scale, image_latents)

    def predict(
        self,
        transformer: HunyuanVideoTransformer3DModel,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditions: Conditions,
    ) -> torch.Tensor:
        """One forward pass, or two with true CFG: ``negative + s * (positive - negative)``; each has its step cache."""
        given = {"hidden_states": latents.to(transformer.dtype), "timestep": timestep, "return_dict": False}
        with transformer.cache_context("cond"):
            towards: torch.Tensor = transformer(**given, **conditions.positive)[0]
        if conditions.negative is None:
            return towards
        with transformer.cache_context("uncond"):
            away: torch.Tensor = transformer(**given, **conditions.negative)[0]
        return away + conditions.true_cfg_scale * (towards - away)


def has_negative(request: GenerationRequest) -> bool:
    """Whether the negative prompt has an effect."""
    return request.negative_prompt is not None and request.true_cfg_scale > 1
