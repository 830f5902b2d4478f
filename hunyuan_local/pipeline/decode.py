"""From latents to frames, a few frames at a time: memory does not grow with the length of the video.

The planner decides how large the tiles are.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Generator, Iterator

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo

from ..config.tiling import SPATIAL_COMPRESSION, Tiling
from ..errors import InvalidOutputError
from .model import LoadedModel, clean_device
from .process_group import ProcessGroup, help_with_tiles, tiles_of_group


@torch.no_grad()
def decode(model: LoadedModel, latents: torch.Tensor, tiling: Tiling | None = None) -> Iterator[np.ndarray]:
    """Decode latents piece by piece, exactly as one call of ``vae.decode`` would with the same tiles.

    diffusers decodes a long video in overlapping temporal tiles, keeps all of them, and blends at the end. Here
    each tile is yielded as soon as its successor is blended into it. In the overlap of n frames, frame k is
    ``(1 - k/n) * previous + (k/n) * next``. Afterwards, even after an error, the autoencoder's settings are
    restored and no tensor is left on the device, not even in the traceback: the same latents can be decoded again
    immediately, in smaller tiles.

    Args:
        model: a loaded model.
        latents: [1, 16, T, H, W] from the denoising.
        tiling: the tiles for this call; None uses the autoencoder's settings.

    Yields:
        uint8 frames [n, 8*H, 8*W, 3], in order; 4*(T-1)+1 in total, without the architecture's extra frames.

    Raises:
        InvalidOutputError: the autoencoder produced NaN or infinite values.
        GpuMemoryError: a tile does not fit in the device's memory.
    """
    vae = model.pipe.vae
    with clean_device(model, "decode", "vae"), _set_up(vae, tiling, latents), _emptied_frames():
        # Latents loaded from a checkpoint are on the CPU.
        device = model.placement.device_of("vae")
        pieces = _pieces(vae, latents.to(device, vae.dtype) / vae.config.scaling_factor, model.process_group)
        yield from _without_first(model.family.extra_frames, pieces)


@torch.no_grad()
def help_decoding(model: LoadedModel, latents: torch.Tensor, tiling: Tiling) -> None:
    """Decode this process's share of the tiles while the leader runs :func:`decode` with the same arguments.

    Returns when the leader needs no more tiles, which may be early.

    Raises:
        GpuMemoryError: a tile does not fit in the device's memory.
    """
    vae = model.pipe.vae
    with clean_device(model, "decode", "vae"), _set_up(vae, tiling, latents), _emptied_frames():
        latents = latents.to(model.placement.device_of("vae"), vae.dtype) / vae.config.scaling_factor
        cuts = _cuts(vae, latents)
        if len(cuts) > 1:
            assert model.process_group is not None  # only a rank of a group calls this
            help_with_tiles(model.process_group, cuts, lambda cut: vae.decode(cut, return_dict=False)[0])


def _without_first(count: int, pieces: Generator[np.ndarray, None, None]) -> Iterator[np.ndarray]:
    """The pieces without their first ``count`` frames."""
    with contextlib.closing(pieces):
        for frames in pieces:
            if len(frames) > count:
                yield frames[count:]
            count = max(0, count - len(frames))


def _pieces(
    vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor, process_group: ProcessGroup | None
) -> Generator[np.ndarray, None, None]:
    """diffusers' temporal tiling (``_temporal_tiled_decode``), one finished piece of frames at a time."""
    num_frames = (latents.shape[2] - 1) * vae.temporal_compression_ratio + 1
    overlap = vae.tile_sample_min_num_frames - vae.tile_sample_stride_num_frames
    cuts = _cuts(vae, latents)
    if len(cuts) == 1:
        yield _to_uint8(vae.decode(latents, return_dict=False)[0])
        return
    tiles: Generator[torch.Tensor, None, None]
    if process_group is None:
        tiles = (vae.decode(cut, return_dict=False)[0] for cut in cuts)
    else:
        tiles = tiles_of_group(process_group, cuts, lambda cut: vae.decode(cut, return_dict=False)[0])
    with contextlib.closing(tiles):
        emitted, previous = 0, None
        for tile in tiles:
            length = vae.tile_sample_stride_num_frames
            if previous is None:
                length += 1
            else:
                # A later tile's first latent only gives context: its frame belongs to the tile before.
                tile = vae.blend_t(previous, tile[:, :, 1:], overlap)
            frames = _to_uint8(tile[:, :, : min(length, num_frames - emitted)])
            emitted += len(frames)
            previous = tile[:, :, -overlap:].clone()
            del tile  # otherwise it would stay in memory while the next one is decoded
            if len(frames):
                yield frames


def _cuts(vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor) -> list[torch.Tensor]:
    """The latents of each temporal tile: ``tile + 1`` every ``stride``; the first of a later tile is context."""
    ratio = vae.temporal_compression_ratio
    tile, stride = vae.tile_sample_min_num_frames // ratio, vae.tile_sample_stride_num_frames // ratio
    if latents.shape[2] <= tile:
        return [latents]
    return [latents[:, :, start : start + tile + 1] for start in range(0, latents.shape[2], stride)]


@contextlib.contextmanager
def _set_up(vae: AutoencoderKLHunyuanVideo, tiling: Tiling | None, latents: torch.Tensor) -> Iterator[None]:
    """Set the spatial tiles, and make ``vae.decode`` decode one temporal tile; restores the settings afterwards."""
    changes = {"use_framewise_decoding": False} | ({} if tiling is None else _attributes(tiling, *latents.shape[3:]))
    before = {name: getattr(vae, name) for name in changes}
    try:
        for name, value in changes.items():
            setattr(vae, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)


def _attributes(tiling: Tiling, height: int, width: int) -> dict[str, int | bool]:
    """The autoencoder's attributes for these tiles; ``height`` and ``width`` of the frame are in latents.

    It has no setting for a side without tiles; a tile and stride as long as the side have the same effect.
    """
    sides = {"height": (tiling.height, height), "width": (tiling.width, width)}
    found: dict[str, int | bool] = {
        "use_tiling": True,
        "tile_sample_min_num_frames": tiling.frames,
        "tile_sample_stride_num_frames": tiling.frames_stride,
    }
    for name, (tile, latents) in sides.items():
        whole = latents * SPATIAL_COMPRESSION
        found[f"tile_sample_min_{name}"] = whole if tile is None else tile
        found[f"tile_sample_stride_{name}"] = whole if tile is None else tile - tiling.overlap
    return found


@contextlib.contextmanager
def _emptied_frames() -> Iterator[None]:
    """Clear the frames of an error's traceback before it propagates: their local variables hold tiles."""
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise


def _to_uint8(piece: torch.Tensor) -> np.ndarray:
    """[1, 3, n, H, W] in -1..1 to uint8 [n, H, W, 3], rounded as in diffusers' video processor."""
    if not torch.isfinite(piece).all():
        raise InvalidOutputError(
            "the decoded frames are NaN or infinite although the latents are finite; likely causes: the autoencoder's "
            "precision overflows (use a profile with vae: float32), or its weights are damaged"
        )
    frames = (piece[0].permute(1, 2, 3, 0).float() * 0.5 + 0.5).clamp(0, 1)
    return (frames * 255).round().to(torch.uint8).cpu().numpy()
