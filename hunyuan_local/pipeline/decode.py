"""From latents to frames, a few at a time: the memory does not grow with the length of the video.

How large the tiles should be is the planner's matter.
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
    """Decode latents piece by piece, exactly as ``vae.decode`` would in one call with the same tiles.

    The library decodes long videos in overlapping temporal tiles, keeps all of them, and blends at
    the end. Here each tile is handed on as soon as its successor is blended into it. However it ends,
    the autoencoder is then as it was before, and of its tensors none is left, not even in the
    traceback of an error: the same latents can be decoded again at once, in smaller tiles.

    Args:
        model: a loaded pipeline.
        latents: [1, 16, T, H, W] as the denoising leaves them.
        tiling: the tiles of this decoding alone; None is what the autoencoder is set to.

    Yields:
        uint8 frames [n, 8*H, 8*W, 3], in order; 4*(T-1)+1 in all.

    Raises:
        InvalidOutputError: the autoencoder produced NaN or infinite values.
        GpuMemoryError: the device's memory does not hold a tile.
    """
    vae = model.pipe.vae
    with clean_device(model, "decode", "vae"), _set_up(vae, tiling, latents), _emptied_frames():
        # Latents that were saved on disk come on the CPU.
        device = model.placement.device_of("vae")
        yield from _pieces(vae, latents.to(device, vae.dtype) / vae.config.scaling_factor, model.process_group)


@torch.no_grad()
def help_decoding(model: LoadedModel, latents: torch.Tensor, tiling: Tiling) -> None:
    """Decode this process's share of the tiles, while the leader of the group runs :func:`decode` with the very same.

    Returns when the leader has all it wants, which may be early.

    Raises:
        GpuMemoryError: the device's memory does not hold a tile.
    """
    vae = model.pipe.vae
    with clean_device(model, "decode", "vae"), _set_up(vae, tiling, latents), _emptied_frames():
        latents = latents.to(model.placement.device_of("vae"), vae.dtype) / vae.config.scaling_factor
        cuts = _cuts(vae, latents)
        if len(cuts) > 1:
            assert model.process_group is not None  # a model alone has nobody to help
            help_with_tiles(model.process_group, cuts, lambda cut: vae.decode(cut, return_dict=False)[0])


def _pieces(
    vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor, process_group: ProcessGroup | None
) -> Iterator[np.ndarray]:
    """The library's temporal tiling (``_temporal_tiled_decode``), one finished piece at a time."""
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
                # The first latent of a later tile only gives context: its frame is the tile before's.
                tile = vae.blend_t(previous, tile[:, :, 1:], overlap)
            frames = _to_uint8(tile[:, :, : min(length, num_frames - emitted)])
            emitted += len(frames)
            previous = tile[:, :, -overlap:].clone()
            del tile  # or it would be there while the next one is decoded
            if len(frames):
                yield frames


def _cuts(vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor) -> list[torch.Tensor]:
    """The latents of each temporal tile, in order; a later one begins with a latent of the one before."""
    ratio = vae.temporal_compression_ratio
    tile, stride = vae.tile_sample_min_num_frames // ratio, vae.tile_sample_stride_num_frames // ratio
    if latents.shape[2] <= tile:
        return [latents]
    return [latents[:, :, start : start + tile + 1] for start in range(0, latents.shape[2], stride)]


@contextlib.contextmanager
def _set_up(vae: AutoencoderKLHunyuanVideo, tiling: Tiling | None, latents: torch.Tensor) -> Iterator[None]:
    """Have ``vae.decode`` decode just one temporal tile, in these spatial tiles; afterwards as before."""
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
    """The autoencoder's attributes for these tiles of a picture of so many latents.

    It has no tile that leaves one side whole; one as long as the picture, stride and all, is the same.
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
    """Let an error go on without the variables of the functions that it ended, which hold tiles."""
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise


def _to_uint8(piece: torch.Tensor) -> np.ndarray:
    """[1, 3, n, H, W] in -1..1 to uint8 [n, H, W, 3], rounded as the library's video processor does."""
    if not torch.isfinite(piece).all():
        raise InvalidOutputError(
            "the decoded frames are NaN or infinite although the latents are finite; likely causes: the autoencoder "
            "in a precision that overflows (use a profile with vae: float32), or damaged autoencoder weights"
        )
    frames = (piece[0].permute(1, 2, 3, 0).float() * 0.5 + 0.5).clamp(0, 1)
    return (frames * 255).round().to(torch.uint8).cpu().numpy()
