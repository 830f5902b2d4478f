"""The interface between the loader and the denoising loop on one side and a model architecture on the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline, HunyuanVideoPipeline

from ...resolved import ResolvedRequest
from ...schema import GenerationRequest
from ..text.prompt import Prompt
from ..text.prompt_cache import Embeddings


@dataclass(frozen=True)
class Conditions:
    """What a prediction depends on besides latents and timestep: transformer arguments, on its device and in its dtype.

    Attributes:
        positive: arguments for the prompt.
        negative: arguments for the negative prompt, for a second prediction per step; None for one prediction.
        true_cfg_scale: ``s`` in ``negative + s * (positive - negative)``, for the two predictions.
        image_latents: [1, 16, 1, H, W] of the input image, in float32; None for text to video.
    """

    positive: Mapping[str, torch.Tensor]
    negative: Mapping[str, torch.Tensor] | None
    true_cfg_scale: float
    image_latents: torch.Tensor | None = None


class Family(Protocol):
    """A model architecture.

    Attributes:
        takes_image: whether a request must have an image; otherwise it must have none.
        extra_frames: frames that are generated before the first of the video, and cut off after decoding.
    """

    takes_image: bool
    extra_frames: int

    @property
    def pipeline(self) -> type[DiffusionPipeline]:
        """diffusers' pipeline, which holds the components and encodes prompts."""
        ...

    @property
    def classes(self) -> Mapping[str, Any]:
        """The class of each component with weights, by its name in a checkpoint."""
        ...

    def in_channels(self, latent_channels: int) -> int:
        """Channels that enter the transformer, from those of the autoencoder's latents."""
        ...

    def parts(self, folder: Path) -> dict[str, Any]:
        """The pipeline's other components that only this architecture has, read from a checkpoint's folder."""
        ...

    def prompts(self, request: GenerationRequest) -> dict[str, Prompt]:
        """The prompts that have an effect, by the prefix of their embeddings' names: empty, or ``negative_``."""
        ...

    def latents_shape(self, pipe: HunyuanVideoPipeline, size: tuple[int, int], num_frames: int) -> tuple[int, ...]:
        """The shape of the latents of one video; ``size`` is (width, height) in pixels."""
        ...

    def start(self, noise: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """The latents before the first step, from noise of the same shape; may change the noise in place."""
        ...

    def conditions(
        self,
        pipe: HunyuanVideoPipeline,
        embeds: Embeddings,
        request: ResolvedRequest,
        image_latents: torch.Tensor | None = None,
    ) -> Conditions:
        """Convert a request's encoded prompts and image to conditions."""
        ...

    def predict(
        self, transformer: torch.nn.Module, latents: torch.Tensor, timestep: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """Predict the velocity at one timestep, with the shape of the latents."""
        ...
