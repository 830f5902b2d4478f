"""From latents to frames, a few at a time: the memory does not grow with the length of the video."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo

from ..errors import InvalidOutputError
from .loader import LoadedModel
from .memory import clean_device


@torch.no_grad()
def decode(model: LoadedModel, latents: torch.Tensor) -> Iterator[np.ndarray]:
    """Decode latents piece by piece, exactly as ``vae.decode`` would in one call.

    The library decodes long videos in overlapping temporal tiles, keeps all of them, and blends at
    the end. Here each tile is handed on as soon as its successor is blended into it.

    Args:
        model: a loaded pipeline.
        latents: [1, 16, T, H, W] as the denoising leaves them.

    Yields:
        uint8 frames [n, 8*H, 8*W, 3], in order; 4*(T-1)+1 in all.

    Raises:
        InvalidOutputError: the autoencoder produced NaN or infinite values.
        GpuMemoryError: the device's memory does not hold a tile.
    """
    vae = model.pipe.vae
    with clean_device(model.pipe, "decoding", "use a profile with vae_tiling and more offload, or a smaller size"):
        # Latents that were saved on disk come on the CPU.
        scaled = latents.to(model.pipe._execution_device, vae.dtype) / vae.config.scaling_factor
        with _one_tile_at_a_time(vae):
            for piece in _tiles(vae, scaled):
                yield _to_uint8(piece)


def _tiles(vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    """The library's temporal tiling (``_temporal_tiled_decode``), one finished piece at a time."""
    ratio = vae.temporal_compression_ratio
    num_latents = latents.shape[2]
    num_frames = (num_latents - 1) * ratio + 1
    tile_latents = vae.tile_sample_min_num_frames // ratio
    stride_latents = vae.tile_sample_stride_num_frames // ratio
    overlap = vae.tile_sample_min_num_frames - vae.tile_sample_stride_num_frames
    if num_latents <= tile_latents:
        yield vae.decode(latents, return_dict=False)[0]
        return
    emitted, previous = 0, None
    for start in range(0, num_latents, stride_latents):
        tile = vae.decode(latents[:, :, start : start + tile_latents + 1], return_dict=False)[0]
        length = vae.tile_sample_stride_num_frames
        if previous is None:
            length += 1
        else:
            # The first latent of a later tile only gives context: its frame is the tile before's.
            tile = vae.blend_t(previous, tile[:, :, 1:], overlap)
        piece = tile[:, :, : min(length, num_frames - emitted)]
        emitted += piece.shape[2]
        previous = tile[:, :, -overlap:].clone()
        if piece.shape[2]:
            yield piece


@contextlib.contextmanager
def _one_tile_at_a_time(vae: AutoencoderKLHunyuanVideo) -> Iterator[None]:
    """Turn the library's own temporal tiling off, so that ``vae.decode`` decodes just the tile."""
    before = vae.use_framewise_decoding
    vae.use_framewise_decoding = False
    try:
        yield
    finally:
        vae.use_framewise_decoding = before


def _to_uint8(piece: torch.Tensor) -> np.ndarray:
    """[1, 3, n, H, W] in -1..1 to uint8 [n, H, W, 3], rounded as the library's video processor does."""
    if not torch.isfinite(piece).all():
        raise InvalidOutputError(
            "the decoded frames are NaN or infinite although the latents are finite; likely causes: the autoencoder "
            "in a precision that overflows (use a profile with vae: float32), or damaged autoencoder weights"
        )
    frames = (piece[0].permute(1, 2, 3, 0).float() * 0.5 + 0.5).clamp(0, 1)
    return (frames * 255).round().to(torch.uint8).cpu().numpy()
