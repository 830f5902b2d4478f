"""HunyuanVideo's two image-to-video architectures: ``token_replace`` (HunyuanVideo-I2V) and ``latent_concat`` (33ch).

Both have the text-to-video transformer's class. They differ in how the input image's latents enter it. The prompts, the
start and the prediction match diffusers' ``HunyuanVideoImageToVideoPipeline.__call__``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import DiffusionPipeline, HunyuanVideoImageToVideoPipeline, HunyuanVideoPipeline
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration

from ...config.image_condition import IMAGE_CONDITIONS
from ...schema import GenerationRequest
from ..text.prompt import Prompt
from .base import Conditions
from .hunyuan_video import HunyuanVideo, has_negative

# Share of the noise in the first latents; the rest is the image, in every latent frame.
_NOISE = 0.999
# diffusers encodes the negative prompt with its default stride, whatever the architecture's own.
_NEGATIVE_STRIDE = 2


class _ImageToVideo(HunyuanVideo):
    """What both have in common: a text encoder that sees the image, and a start that contains a little of it."""

    takes_image = True
    image_stride: int  # each how many image tokens of the text encoder one is kept
    pipeline: type[DiffusionPipeline] = HunyuanVideoImageToVideoPipeline
    classes: Mapping[str, Any] = MappingProxyType(
        dict(HunyuanVideo.classes) | {"text_encoder": LlavaForConditionalGeneration}
    )

    def parts(self, folder: Path) -> dict[str, Any]:
        """The image processor: the one on Pillow, since the other needs torchvision and gives the same pixels."""
        return {
            "image_processor": CLIPImageProcessorPil.from_pretrained(folder / "image_processor", local_files_only=True)
        }

    def prompts(self, request: GenerationRequest) -> dict[str, Prompt]:
        """The prompt with the image; the negative prompt with a black image."""
        prompts = {"": Prompt(request.prompt, request.image, self.image_stride)}
        if has_negative(request):
            prompts["negative_"] = Prompt(request.negative_prompt or "", None, _NEGATIVE_STRIDE)
        return prompts

    def start(self, noise: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """``0.999 * noise + 0.001 * image``, in float32."""
        share = torch.tensor([_NOISE], device=noise.device)
        return noise * share + _image(conditions) * (1 - share)


class TokenReplace(_ImageToVideo):
    """The image is the first latent frame, which stays as it is while the others are denoised."""

    extra_frames = IMAGE_CONDITIONS["token_replace"].extra_frames
    image_stride = IMAGE_CONDITIONS["token_replace"].image_stride

    def start(self, noise: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """The image, then the noise with a little of the image."""
        return torch.cat([_image(conditions), super().start(noise, conditions)[:, :, 1:]], dim=2)

    def predict(
        self, transformer: torch.nn.Module, latents: torch.Tensor, timestep: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """The velocity, which is zero in the first latent frame."""
        velocity = super().predict(transformer, latents, timestep, conditions)
        velocity[:, :, 0] = 0
        return velocity


class LatentConcat(_ImageToVideo):
    """The image's latents and a mask are further channels: 16 of the video, 16 of the image, 1 of the mask.

    The model repeats the image in the first four decoded frames; they are cut off.
    """

    extra_frames = IMAGE_CONDITIONS["latent_concat"].extra_frames
    image_stride = IMAGE_CONDITIONS["latent_concat"].image_stride

    def in_channels(self, latent_channels: int) -> int:
        """Video, image and mask: 16 + 16 + 1."""
        return 2 * latent_channels + 1

    def latents_shape(self, pipe: HunyuanVideoPipeline, size: tuple[int, int], num_frames: int) -> tuple[int, ...]:
        """[1, 16, (num_frames-1)/4+2, height/8, width/8] for the 13 B model."""
        return super().latents_shape(pipe, size, num_frames + self.extra_frames)

    def predict(
        self, transformer: torch.nn.Module, latents: torch.Tensor, timestep: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """Like text to video, with the image and the mask in the first latent frame of the further channels."""
        further = latents.new_zeros((1, latents.shape[1] + 1, *latents.shape[2:]), dtype=torch.float32)
        further[:, :-1, :1] = _image(conditions)
        further[:, -1, 0] = 1
        return super().predict(transformer, torch.cat([latents, further], dim=1), timestep, conditions)


def _image(conditions: Conditions) -> torch.Tensor:
    assert conditions.image_latents is not None  # takes_image
    return conditions.image_latents
