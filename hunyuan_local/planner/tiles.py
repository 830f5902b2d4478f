"""Which tiles to decode in: the cheapest that the free memory holds, from the whole picture down to small ones.

Tiles overlap, so the more there are, the more pixels are computed twice. Those considered cut each side
of the picture into equal steps, which leaves no sliver at its edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import TypeVar

from ..config import ModelConfig, RuntimeProfile
from ..config.tiling import SPATIAL_COMPRESSION, TILED, UNTILED, Tiling
from ..resolved import FilledRequest
from ..schema import TEMPORAL_COMPRESSION
from .architecture import Autoencoder
from .checkpoint import read_architecture
from .decoding import Decode, largest_tensor, trace_decode
from .memory import FRAGMENTATION, Shape
from .plan import MAX_ELEMENTS
from .quantization import DTYPE_BYTES

T = TypeVar("T")

# Frames of a temporal tile: the library's, then fewer.
FRAMES = (16, 12, 8)
# A side is cut if the tiles are at most this share of it: longer ones would save little, and be computed twice.
LARGEST_CUT = 0.75
# After memory ran out, the next tiles need at most this share of what the last did: an attempt costs minutes.
SHRINK = 0.7


@dataclass(frozen=True)
class TilingCost:
    """One way to cut a video, with what it costs.

    Attributes:
        flops: operations of the whole decoding.
        peak_bytes: the most that lives at once beside the weights.
    """

    tiling: Tiling
    flops: int
    peak_bytes: int


def choose_tiling(
    config: Autoencoder,
    latents: tuple[int, int, int],
    each: int,
    free_bytes: int | None,
    *,
    max_elements: int | None = None,
    default: Tiling = UNTILED,
) -> Tiling:
    """The tiling with the fewest operations whose peak, with a share for fragmentation, is free.

    Args:
        config: the autoencoder.
        latents: (frames, height, width) of the latents.
        each: bytes of an activation's element.
        free_bytes: of the device, with the autoencoder's weights already there; None is not known.
        max_elements: the most that a tensor may have; None sets no limit.
        default: what to take when the free memory is not known, if ``max_elements`` allows.

    Returns:
        The smallest tiles that are considered, if even those need more.
    """
    if free_bytes is None:
        run = Decode(latents, each, default)
        if max_elements is None or largest_tensor(config, run) <= max_elements:
            return default
    costs = tile_costs(config, latents, each, max_elements)
    fitting = (cost.tiling for cost in costs if free_bytes is None or needed_bytes(cost.peak_bytes) <= free_bytes)
    return next(fitting, costs[-1].tiling)


def smaller(
    tiling: Tiling,
    config: Autoencoder,
    latents: tuple[int, int, int],
    each: int,
    *,
    max_elements: int | None = None,
) -> Tiling | None:
    """What to try after memory ran out in these tiles: clearly smaller ones; None if there are none.

    Args:
        tiling: that ran out; any, not just one of the candidates.
        config, latents, each, max_elements: as for :func:`choose_tiling`.
    """
    peak = trace_decode(config, Decode(latents, each, tiling)).peak_bytes
    costs = tile_costs(config, latents, each, max_elements)
    below = (cost.tiling for cost in costs if cost.peak_bytes <= SHRINK * peak)
    last = costs[-1].tiling if costs[-1].peak_bytes < peak else None
    return next(below, last)


def needed_bytes(peak_bytes: int) -> int:
    """What must be free for a peak of tensors: the allocator cannot use a share of it for being in pieces."""
    return round(peak_bytes * (1 + FRAGMENTATION))


@lru_cache(maxsize=64)
def tile_costs(
    config: Autoencoder, latents: tuple[int, int, int], each: int, max_elements: int | None = None
) -> tuple[TilingCost, ...]:
    """The tilings worth considering, from the cheapest to that of the least memory; never empty.

    Each costs more operations than the one before it and needs less memory.
    """
    # Of tilings, both numbers grow with the pixels in all tiles and in the largest; few are left to be traced.
    worthwhile = _front(candidates(latents), lambda tiling: _pixels(tiling, latents))
    runs = [Decode(latents, each, tiling) for tiling in worthwhile]
    runs = [run for run in runs if max_elements is None or largest_tensor(config, run) <= max_elements] or runs[-1:]
    traced = ((run.tiling, trace_decode(config, run)) for run in runs)
    costs = [TilingCost(tiling, cost.flops, cost.peak_bytes) for tiling, cost in traced]
    return tuple(_front(costs, lambda cost: (cost.flops, cost.peak_bytes)))


def candidates(latents: tuple[int, int, int]) -> Iterator[Tiling]:
    """The whole picture, and every way to cut it into equal steps, in the library's temporal tiles and in shorter."""
    for frames, height, width in product(FRAMES, _sides(latents[1]), _sides(latents[2])):
        yield replace(UNTILED, frames=frames, height=height, width=width)


def _sides(latents: int) -> Iterator[int | None]:
    """Sides of tiles in pixels, from the whole side of the picture down.

    The library begins a tile at every step, so a step is an equal part of the whole side, and a tile is
    longer by the overlap. The last tile is that much shorter; it must not be all overlap.
    """
    yield None
    overlap = UNTILED.overlap // SPATIAL_COMPRESSION
    for count in range(2, latents // overlap + 1):
        step = math.ceil(latents / count)
        last = latents - (count - 1) * step
        if min(step, last) >= overlap and step + overlap <= LARGEST_CUT * latents:
            yield (step + overlap) * SPATIAL_COMPRESSION


def _pixels(tiling: Tiling, latents: tuple[int, int, int]) -> tuple[int, int]:
    """What is decoded in all tiles together, and in the largest: frames times latents of a picture."""
    frames = [(length - 1) * TEMPORAL_COMPRESSION + 1 for length in tiling.lengths(latents[0])]
    areas = [height * width for height, width in tiling.areas(*latents[1:])]
    return sum(frames) * sum(areas), max(frames) * max(areas)


def _front(items: Iterable[T], numbers: Callable[[T], tuple[int, int]]) -> list[T]:
    """Those that no other beats in both numbers: the first grows along the list, and the second shrinks."""
    front: list[T] = []
    for item in sorted(items, key=numbers):
        if not front or numbers(item)[1] < numbers(front[-1])[1]:
            front.append(item)
    return front


class Tiles:
    """The choice for one video of one model.

    Args:
        model: its autoencoder's configuration is read when it is first needed.
        request: with its size and length.
    """

    def __init__(self, model: ModelConfig, request: FilledRequest):
        self._model, self._request = model, request
        self._last: tuple[RuntimeProfile, Tiling] | None = None
        self._limit: Tiling | None = None

    def choose(self, profile: RuntimeProfile, free_bytes: int | None) -> Tiling:
        """The cheapest tiling that the profile and the free memory allow.

        Args:
            profile: without ``vae_tiling`` the picture is not cut, unless memory ran out before.
            free_bytes: of the device, beside the autoencoder's weights; None where it does not count.
        """
        decoding, most = self._decoding(profile), _max_elements(profile)
        if self._limit is not None:
            tiling = self._limit
        elif profile.vae_tiling:
            tiling = choose_tiling(*decoding, free_bytes, max_elements=most, default=TILED)
        else:
            tiling = choose_tiling(*decoding, None, max_elements=most, default=UNTILED)
        self._last = profile, tiling
        return tiling

    @property
    def needed_bytes(self) -> int:
        """What must be free for the last tiles chosen, beside the autoencoder's weights."""
        assert self._last is not None  # some were chosen
        profile, tiling = self._last
        config, latents, each = self._decoding(profile)
        return needed_bytes(trace_decode(config, Decode(latents, each, tiling)).peak_bytes)

    @property
    def can_shrink(self) -> bool:
        """Whether there are smaller tiles than the last ones chosen."""
        return self._next() is not None

    def shrink(self) -> str:
        """Choose clearly smaller tiles from now on, and say which."""
        self._limit = limit = self._next() or self._limit
        assert limit is not None  # it can shrink, or has before
        width, height = limit.width or "whole width", limit.height or "whole height"
        return f"{width} x {height}, {limit.frames} frames"

    def _next(self) -> Tiling | None:
        if self._last is None:
            return None
        profile, tiling = self._last
        return smaller(tiling, *self._decoding(profile), max_elements=_max_elements(profile))

    def _decoding(self, profile: RuntimeProfile) -> tuple[Autoencoder, tuple[int, int, int], int]:
        """The autoencoder, the latents' (frames, height, width), and bytes of an activation's element."""
        architecture = read_architecture(self._model)
        width, height = self._model.render_size(self._request.width, self._request.height)
        crop_start = self._model.prompt_template.crop_start
        shape = Shape.of(architecture, width, height, self._request.num_frames, crop_start)
        return architecture.vae, shape.latents, DTYPE_BYTES[profile.dtypes.vae]


def _max_elements(profile: RuntimeProfile) -> int | None:
    """The most that a tensor may have for CUDA's kernels."""
    return MAX_ELEMENTS if profile.device == "cuda" else None
