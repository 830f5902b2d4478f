"""What the loader and the denoising loop ask of a model's architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import HunyuanVideoPipeline

from ...resolved import ResolvedRequest
from ..text.prompt_cache import Embeddings


@dataclass(frozen=True)
class Conditions:
    """What a video is denoised towards: keyword arguments of the transformer, on its device and in its precision.

    Attributes:
        positive: of the prompt.
        negative: of the negative prompt, for a second prediction in each step; None for one prediction a step.
        true_cfg_scale: how far the first prediction is moved away from the second.
    """

    positive: Mapping[str, torch.Tensor]
    negative: Mapping[str, torch.Tensor] | None
    true_cfg_scale: float


class Family(Protocol):
    """One architecture."""

    @property
    def classes(self) -> Mapping[str, Any]:
        """The class of each component that has weights, by the component's name in a checkpoint."""
        ...

    def latents_shape(self, pipe: HunyuanVideoPipeline, size: tuple[int, int], num_frames: int) -> tuple[int, ...]:
        """The shape of the latents of one video; ``size`` is (width, height) in pixels."""
        ...

    def conditions(self, pipe: HunyuanVideoPipeline, embeds: Embeddings, request: ResolvedRequest) -> Conditions:
        """The conditions of a request, from its encoded prompts."""
        ...

    def predict(
        self, transformer: torch.nn.Module, latents: torch.Tensor, timestep: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """The velocity from noise to video at one timestep, of the shape of the latents."""
        ...
