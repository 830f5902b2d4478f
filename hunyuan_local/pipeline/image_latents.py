"""An input image as latents."""

from __future__ import annotations

import torch
from diffusers.image_processor import VaeImageProcessor

from ..images import DEFAULT_FIT, fit_image
from ..resolved import ResolvedRequest
from .model import LoadedModel, clean_device


@torch.no_grad()
def encode_image(model: LoadedModel, request: ResolvedRequest, size: tuple[int, int]) -> torch.Tensor:
    """The latents of a request's image, [1, 16, 1, height/8, width/8] in float32 on the transformer's device.

    The mode of the autoencoder's posterior, scaled as in denoising; nothing is drawn at random.

    Args:
        size: (width, height) in pixels at which the model renders.

    Raises:
        GpuMemoryError: the image does not fit in the device's memory.
        ConfigError: only the description of the image is here.
    """
    assert request.image is not None  # checked before the model is loaded
    image = fit_image(request.image.pixels(), size, request.image_fit or DEFAULT_FIT)
    vae = model.pipe.vae
    pixels = VaeImageProcessor(vae_scale_factor=vae.spatial_compression_ratio).preprocess(image)
    with clean_device(model, "encode", "vae"):
        pixels = pixels.unsqueeze(2).to(model.placement.device_of("vae"), vae.dtype)
        latents: torch.Tensor = vae.encode(pixels).latent_dist.mode().float() * vae.config.scaling_factor
    return latents.to(model.placement.device_of("transformer"))
