"""HunyuanVideo (text to video, 13 B parameters) and models with its architecture: FastHunyuan, AccVideo, ``tiny``.

The conditions and the prediction match diffusers' ``HunyuanVideoPipeline.__call__``, including the rounding.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from transformers import CLIPTextModel, LlamaModel

from ...resolved import ResolvedRequest
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

    classes = MappingProxyType(
        {
            "transformer": HunyuanVideoTransformer3DModel,
            "vae": AutoencoderKLHunyuanVideo,
            "text_encoder": LlamaModel,
            "text_encoder_2": CLIPTextModel,
        }
    )

    def latents_shape(self, pipe: HunyuanVideoPipeline, size: tuple[int, int], num_frames: int) -> tuple[int, ...]:
        """[1, 16, (num_frames-1)/4+1, height/8, width/8] for the 13 B model."""
        width, height = size
        num_latents = (num_frames - 1) // pipe.vae_scale_factor_temporal + 1
        spatial = pipe.vae_scale_factor_spatial
        return 1, pipe.transformer.config.in_channels, num_latents, height // spatial, width // spatial

    def conditions(self, pipe: HunyuanVideoPipeline, embeds: Embeddings, request: ResolvedRequest) -> Conditions:
        """Text tokens, their mask, the pooled prompt, and the guidance scale as an input of the model (times 1000)."""
        dtype, device = pipe.transformer.dtype, embeds["prompt_embeds"].device
        guidance = torch.tensor([request.guidance_scale], dtype=dtype, device=device) * 1000.0

        def arguments(prefix: str) -> dict[str, torch.Tensor]:
            given = {name: embeds[f"{prefix}{source}"].to(dtype) for name, source in _ARGUMENTS.items()}
            return given | {"guidance": guidance}

        negative = arguments("negative_") if "negative_prompt_embeds" in embeds else None
        return Conditions(arguments(""), negative, request.true_cfg_scale)

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
