"""The interface between the loader and the denoising loop on one side and a model architecture on the other."""

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
    """What a prediction depends on besides latents and timestep: transformer arguments, on its device and in its dtype.

    Attributes:
        positive: arguments for the prompt.
        negative: arguments for the negative prompt, for a second prediction per step; None for one prediction.
        true_cfg_scale: ``s`` in ``negative + s * (positive - negative)``, for the two predictions.
    """

    positive: Mapping[str, torch.Tensor]
    negative: Mapping[str, torch.Tensor] | None
    true_cfg_scale: float


class Family(Protocol):
    """A model architecture."""

    @property
    def classes(self) -> Mapping[str, Any]:
        """The class of each component with weights, by its name in a checkpoint."""
        ...

    def latents_shape(self, pipe: HunyuanVideoPipeline, size: tuple[int, int], num_frames: int) -> tuple[int, ...]:
        """The shape of the latents of one video; ``size`` is (width, height) in pixels."""
        ...

    def conditions(self, pipe: HunyuanVideoPipeline, embeds: Embeddings, request: ResolvedRequest) -> Conditions:
        """Convert a request's encoded prompts to conditions."""
        ...

    def predict(
        self, transformer: torch.nn.Module, latents: torch.Tensor, timestep: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """Predict the velocity at one timestep, with the shape of the latents."""
        ...
