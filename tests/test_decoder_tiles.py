"""Decoding in given tiles with the built-in checkpoint: equal to diffusers, and fully cleaned up."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config.tiling import UNTILED, Tiling
from hunyuan_local.errors import GpuMemoryError, InvalidOutputError
from hunyuan_local.pipeline.decode import decode
from hunyuan_local.planner.architecture import Autoencoder
from hunyuan_local.planner.tiles import choose_tiling, smaller

IN_BANDS = Tiling(height=128, width=None)


def random_latents(*shape: int) -> torch.Tensor:
    return torch.randn(1, 16, *shape, generator=torch.Generator().manual_seed(0))


def frames_of(tiny: LocalBackend, latents: torch.Tensor, tiling: Tiling | None) -> np.ndarray:
    return np.concatenate(list(decode(tiny.load(), latents, tiling)))


def librarys(vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor) -> np.ndarray:
    """One call of ``vae.decode`` with the autoencoder's current settings."""
    with torch.no_grad():
        whole = vae.decode(latents / vae.config.scaling_factor).sample
    return ((whole[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def settings(vae: AutoencoderKLHunyuanVideo) -> dict[str, object]:
    return {name: value for name, value in vars(vae).items() if name.startswith(("use_", "tile_"))}


@contextmanager
def spatial_tiles(vae: AutoencoderKLHunyuanVideo, **sizes: int) -> Iterator[None]:
    """Set the library's own switch, and restore it afterwards."""
    before = settings(vae)
    vae.enable_tiling(**sizes)
    yield
    vars(vae).update(before)


def test_ample_memory_decodes_exactly_as_the_library_does_untiled(tiny: LocalBackend) -> None:
    vae, latents = tiny.load().pipe.vae, random_latents(5, 4, 20)
    config = Autoencoder.model_validate(dict(vae.config))
    chosen = choose_tiling(config, (5, 4, 20), 4, 2**40)
    np.testing.assert_array_equal(frames_of(tiny, latents, chosen), librarys(vae, latents))


def test_no_spatial_tiles_overrules_an_autoencoder_that_is_set_to_tiles(tiny: LocalBackend) -> None:
    vae, latents = tiny.load().pipe.vae, random_latents(1, 4, 20)
    expected = librarys(vae, latents)
    with spatial_tiles(vae, tile_sample_min_width=128, tile_sample_stride_width=64):
        assert not np.array_equal(librarys(vae, latents), expected)
        np.testing.assert_array_equal(frames_of(tiny, latents, UNTILED), expected)


def test_no_tiling_given_is_what_the_autoencoder_is_set_to(tiny: LocalBackend) -> None:
    vae, latents = tiny.load().pipe.vae, random_latents(1, 4, 20)
    with spatial_tiles(vae, tile_sample_min_width=128, tile_sample_stride_width=64):
        np.testing.assert_array_equal(frames_of(tiny, latents, None), librarys(vae, latents))


@pytest.mark.parametrize(
    ("tiling", "height", "width"),
    [
        (Tiling(height=128, width=None), (128, 64), (72, 72)),
        (Tiling(height=None, width=128), (176, 176), (128, 64)),
        (Tiling(height=136, width=128), (136, 72), (128, 64)),
    ],
)
def test_tiles_are_the_librarys_of_that_height_and_width(
    tiny: LocalBackend, tiling: Tiling, height: tuple[int, int], width: tuple[int, int]
) -> None:
    """A side that is not split is one tile: frames are 176 pixels high and 72 wide, or 176 wide."""
    vae = tiny.load().pipe.vae
    latents = random_latents(1, 22, 9 if tiling.width is None else 22)
    found = frames_of(tiny, latents, tiling)
    with spatial_tiles(
        vae,
        tile_sample_min_height=height[0],
        tile_sample_stride_height=height[1],
        tile_sample_min_width=width[0],
        tile_sample_stride_width=width[1],
    ):
        np.testing.assert_array_equal(found, librarys(vae, latents))


@pytest.mark.parametrize("frames", [8, 12, 20])
@pytest.mark.parametrize("num_latents", [1, 2, 3, 4, 6, 9])
def test_temporal_tiles_of_any_length_are_the_librarys(tiny: LocalBackend, frames: int, num_latents: int) -> None:
    vae, latents = tiny.load().pipe.vae, random_latents(num_latents, 2, 3)
    found = frames_of(tiny, latents, Tiling(height=None, width=None, frames=frames))
    before = settings(vae)
    vae.tile_sample_min_num_frames, vae.tile_sample_stride_num_frames = frames, frames - 4
    expected = librarys(vae, latents)
    vars(vae).update(before)
    np.testing.assert_array_equal(found, expected)


def disc(height: int, width: int) -> torch.Tensor:
    """One frame of a red disc on navy, [1, 3, 1, H, W] in -1..1, with its edge on the seams of most tiles."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    cover = (40.5 - torch.hypot(x - width / 2, y - height / 2)).clamp(0, 1)
    red, navy = (torch.tensor(rgb).view(3, 1, 1) / 127.5 - 1 for rgb in ((220.0, 40.0, 40.0), (18.0, 24.0, 84.0)))
    return (navy + cover * (red - navy))[None, :, None]


@pytest.mark.parametrize(
    ("tiling", "decibels", "levels"),
    [(Tiling(height=None, width=192), 48.1, 13), (Tiling(height=128, width=192), 40.9, 26)],
)
def test_tiled_frames_are_as_close_to_those_in_one_piece_as_was_measured(
    tiny: LocalBackend, tiling: Tiling, decibels: float, levels: int
) -> None:
    vae = tiny.load().pipe.vae
    with torch.no_grad():
        latents = vae.encode(disc(176, 304)).latent_dist.mode() * vae.config.scaling_factor
    found, expected = (frames_of(tiny, latents, each).astype(float) for each in (tiling, UNTILED))
    # Another version of torch rounds differently, which changes few pixels slightly.
    assert 10 * math.log10(255**2 / np.mean((found - expected) ** 2)) > decibels - 1
    assert np.abs(found - expected).max() <= levels + 4


def test_the_autoencoder_is_as_before_after_a_decoding(tiny: LocalBackend) -> None:
    vae = tiny.load().pipe.vae
    before = settings(vae)
    frames_of(tiny, random_latents(3, 17, 4), Tiling(height=128, width=None, frames=8))
    assert settings(vae) == before


def test_the_autoencoder_is_as_before_after_a_decoding_that_was_left(tiny: LocalBackend) -> None:
    vae = tiny.load().pipe.vae
    before = settings(vae)
    with closing(decode(tiny.load(), random_latents(9, 2, 3), Tiling(frames=8))) as pieces:
        next(pieces)
        assert settings(vae) != before
    assert settings(vae) == before


def test_the_autoencoder_is_as_before_after_an_error(tiny: LocalBackend) -> None:
    vae = tiny.load().pipe.vae
    before = settings(vae)
    with pytest.raises(InvalidOutputError):
        frames_of(tiny, torch.full((1, 16, 1, 2, 3), torch.nan), Tiling(frames=8))
    assert settings(vae) == before


class SmallDevice(TorchDispatchMode):
    """A device with limited memory: counts every tensor created inside, and runs out of memory."""

    def __init__(self, size: float = math.inf, error: type[Exception] = torch.OutOfMemoryError):
        super().__init__()
        self.size, self.error = size, error
        self.peak_bytes = 0
        self._sizes: dict[int, int] = {}

    @property
    def taken_bytes(self) -> int:
        return sum(self._sizes.values())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage()._cdata for tensor in tree_leaves(args) if isinstance(tensor, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in (x for x in tree_leaves(result) if isinstance(x, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in given | self._sizes.keys():
                self._sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._sizes.pop, storage._cdata)
        self.peak_bytes = max(self.peak_bytes, self.taken_bytes)
        if self.taken_bytes > self.size:
            raise self.error("no memory")
        return result


@pytest.mark.parametrize(
    ("raised", "becomes"), [(torch.OutOfMemoryError, GpuMemoryError), (RuntimeError, RuntimeError)]
)
def test_an_error_that_is_still_held_keeps_no_tensor_alive(
    tiny: LocalBackend, raised: type[Exception], becomes: type[Exception]
) -> None:
    latents = random_latents(1, 34, 4)
    with SmallDevice() as large:
        frames_of(tiny, latents, IN_BANDS)
    with SmallDevice(0.95 * large.peak_bytes, raised) as small, pytest.raises(becomes, match="no memory") as caught:
        frames_of(tiny, latents, IN_BANDS)
    assert small.peak_bytes > small.size
    assert caught.value.__traceback__ is not None
    assert small.taken_bytes == 0


def test_frames_that_are_refused_keep_no_tensor_alive(tiny: LocalBackend) -> None:
    latents = torch.full((1, 16, 1, 2, 3), torch.nan)
    with SmallDevice() as device, pytest.raises(InvalidOutputError) as caught:
        frames_of(tiny, latents, None)
    assert device.peak_bytes > 0
    assert caught.value.__traceback__ is not None
    assert device.taken_bytes == 0


def test_a_decoding_that_was_left_keeps_no_tensor_alive(tiny: LocalBackend) -> None:
    with SmallDevice() as device:
        pieces = decode(tiny.load(), random_latents(9, 2, 3), Tiling(frames=8))
        next(pieces)
        assert device.taken_bytes > 0
        pieces.close()
    assert device.taken_bytes == 0


def test_between_pieces_only_latents_the_overlap_and_the_piece_itself_are_kept(tiny: LocalBackend) -> None:
    latents = random_latents(9, 2, 3)
    with SmallDevice() as device, closing(decode(tiny.load(), latents)) as pieces:
        frames = next(pieces)
        overlap = 4 * frames[0].size * latents.itemsize
        assert device.taken_bytes == latents.nbytes + overlap + frames.nbytes


def test_after_memory_ran_out_the_same_latents_decode_in_the_next_smaller_tiles(tiny: LocalBackend) -> None:
    vae, latents = tiny.load().pipe.vae, random_latents(1, 34, 4)
    config = Autoencoder.model_validate(dict(vae.config))
    following = smaller(UNTILED, config, (1, 34, 4), 4)
    with SmallDevice() as large:
        frames_of(tiny, latents, UNTILED)
    with SmallDevice(0.8 * large.peak_bytes):
        with pytest.raises(GpuMemoryError):
            frames_of(tiny, latents, UNTILED)
        found = frames_of(tiny, latents, following)
    np.testing.assert_array_equal(found, frames_of(tiny, latents, following))
