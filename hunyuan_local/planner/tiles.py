"""Chooses the tiles to decode in: the cheapest that fit in free memory, from the whole frame down to small tiles.

Tiles overlap, so more tiles mean more pixels computed twice. Candidates divide each side of the frame into equal steps,
which leaves no narrow tile at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import TypeVar

from ..config import ModelConfig, RuntimeProfile
from ..config.allocator import this_allocator
from ..config.tiling import SPATIAL_COMPRESSION, TILED, UNTILED, Tiling
from ..resolved import FilledRequest
from ..schema import TEMPORAL_COMPRESSION
from .architecture import Autoencoder
from .checkpoint import read_architecture
from .decoding import Decode, largest_tensor, trace_decode
from .fragmentation import factor_of
from .plan import MAX_ELEMENTS
from .quantization import DTYPE_BYTES
from .setup import Shape

T = TypeVar("T")

# Frames of a temporal tile: diffusers' default, then fewer.
FRAMES = (16, 12, 8)
# Largest tile as a share of a side that is cut: longer tiles would save little and recompute much.
LARGEST_CUT = 0.75
# After an out-of-memory error, the next tiles need at most this share of the last ones: an attempt costs minutes.
SHRINK = 0.7


@dataclass(frozen=True)
class TilingCost:
    """One way to tile a video, and its cost.

    Attributes:
        tiling: the tiles.
        flops: operations of the whole decoding.
        peak_bytes: peak of all tensors other than the weights.
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
    """The tiling with the fewest operations for which ``needed_bytes(peak) <= free_bytes``.

    Args:
        config: the autoencoder.
        latents: (frames, height, width) of the latents.
        each: bytes per element of an activation.
        free_bytes: free device memory, with the autoencoder's weights already there; None if unknown.
        max_elements: limit for the elements of a tensor; None for no limit.
        default: the result if the free memory is unknown and ``max_elements`` allows it.

    Returns:
        The tiling; the smallest candidate if nothing fits.
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
    """The tiling to try after these tiles ran out of memory: clearly smaller ones; None if there are none.

    Args:
        tiling: the tiles that ran out; not necessarily one of the candidates.
        config, latents, each, max_elements: as for :func:`choose_tiling`.
    """
    peak = trace_decode(config, Decode(latents, each, tiling)).peak_bytes
    costs = tile_costs(config, latents, each, max_elements)
    below = (cost.tiling for cost in costs if cost.peak_bytes <= SHRINK * peak)
    last = costs[-1].tiling if costs[-1].peak_bytes < peak else None
    return next(below, last)


def needed_bytes(peak_bytes: int) -> int:
    """Free bytes needed for a peak of tensors: what torch reserves for them by its settings in this process.

    If it reserves more and memory runs out, the decoding is tried again in smaller tiles.
    """
    return round(peak_bytes * factor_of("decode", this_allocator().expandable).usual)


@lru_cache(maxsize=64)
def tile_costs(
    config: Autoencoder, latents: tuple[int, int, int], each: int, max_elements: int | None = None
) -> tuple[TilingCost, ...]:
    """The useful tilings, from the cheapest to the one with the least memory; never empty.

    Each needs more operations and less memory than the one before (a Pareto front).
    """
    # Operations and memory grow with the pixels in all tiles and in the largest tile, so preselect by those.
    worthwhile = _front(candidates(latents), lambda tiling: _pixels(tiling, latents))
    runs = [Decode(latents, each, tiling) for tiling in worthwhile]
    runs = [run for run in runs if max_elements is None or largest_tensor(config, run) <= max_elements] or runs[-1:]
    traced = ((run.tiling, trace_decode(config, run)) for run in runs)
    costs = [TilingCost(tiling, cost.flops, cost.peak_bytes) for tiling, cost in traced]
    return tuple(_front(costs, lambda cost: (cost.flops, cost.peak_bytes)))


def candidates(latents: tuple[int, int, int]) -> Iterator[Tiling]:
    """The whole frame, and every division into equal steps, with diffusers' temporal tile length and shorter ones."""
    for frames, height, width in product(FRAMES, _sides(latents[1]), _sides(latents[2])):
        yield replace(UNTILED, frames=frames, height=height, width=width)


def _sides(latents: int) -> Iterator[int | None]:
    """Lengths of a tile's side in pixels, from the whole side down.

    diffusers starts a tile at every step, so with n tiles the step is ``ceil(side / n)`` and a tile's length
    ``step + overlap``. The last tile is shorter by the overlap or more; it must not consist only of overlap.
    """
    yield None
    overlap = UNTILED.overlap // SPATIAL_COMPRESSION
    for count in range(2, latents // overlap + 1):
        step = math.ceil(latents / count)
        last = latents - (count - 1) * step
        if min(step, last) >= overlap and step + overlap <= LARGEST_CUT * latents:
            yield (step + overlap) * SPATIAL_COMPRESSION


def _pixels(tiling: Tiling, latents: tuple[int, int, int]) -> tuple[int, int]:
    """Frames times latent area: decoded in all tiles together, and in the largest tile."""
    frames = [(length - 1) * TEMPORAL_COMPRESSION + 1 for length in tiling.lengths(latents[0])]
    areas = [height * width for height, width in tiling.areas(*latents[1:])]
    return sum(frames) * sum(areas), max(frames) * max(areas)


def _front(items: Iterable[T], numbers: Callable[[T], tuple[int, int]]) -> list[T]:
    """The Pareto front: items that no other beats in both numbers; the first number grows, the second shrinks."""
    front: list[T] = []
    for item in sorted(items, key=numbers):
        if not front or numbers(item)[1] < numbers(front[-1])[1]:
            front.append(item)
    return front


class Tiles:
    """The tiling of one video of one model.

    Args:
        model: the autoencoder's configuration is read on first use.
        request: defines size and length.
    """

    def __init__(self, model: ModelConfig, request: FilledRequest):
        self._model, self._request = model, request
        self._last: tuple[RuntimeProfile, Tiling] | None = None
        self._limit: Tiling | None = None

    def choose(self, profile: RuntimeProfile, free_bytes: int | None) -> Tiling:
        """Choose the cheapest tiling that the profile and the free memory allow.

        Args:
            profile: without ``vae_tiling`` the frame is not cut, unless memory ran out before.
            free_bytes: free device memory, with the autoencoder's weights already there; None on a CPU.
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
        """Free bytes that the last chosen tiles need, in addition to the autoencoder's weights."""
        assert self._last is not None  # choose was called before
        profile, tiling = self._last
        config, latents, each = self._decoding(profile)
        return needed_bytes(trace_decode(config, Decode(latents, each, tiling)).peak_bytes)

    @property
    def can_shrink(self) -> bool:
        """Whether there are smaller tiles than the last chosen ones."""
        return self._next() is not None

    def shrink(self) -> str:
        """Choose clearly smaller tiles from now on; returns their description."""
        self._limit = limit = self._next() or self._limit
        assert limit is not None  # can_shrink is True, or an earlier call set a limit
        width, height = limit.width or "whole width", limit.height or "whole height"
        return f"{width} x {height}, {limit.frames} frames"

    def _next(self) -> Tiling | None:
        if self._last is None:
            return None
        profile, tiling = self._last
        return smaller(tiling, *self._decoding(profile), max_elements=_max_elements(profile))

    def _decoding(self, profile: RuntimeProfile) -> tuple[Autoencoder, tuple[int, int, int], int]:
        """The autoencoder, the latents' (frames, height, width), and bytes per element of an activation."""
        architecture = read_architecture(self._model)
        width, height = self._model.render_size(self._request.width, self._request.height)
        crop_start = self._model.prompt_template.crop_start
        shape = Shape.of(architecture, width, height, self._request.num_frames, crop_start)
        return architecture.vae, shape.latents, DTYPE_BYTES[profile.dtypes.vae]


def _max_elements(profile: RuntimeProfile) -> int | None:
    """Limit for the elements of a tensor in CUDA kernels; None on a CPU."""
    return MAX_ELEMENTS if profile.device == "cuda" else None


class TilesBySize:
    """The tiles of one model's videos: each size and length stays at what an earlier video of it shrank to."""

    def __init__(self, model: ModelConfig):
        self._model = model
        self._by_size: dict[tuple[int, int, int], Tiles] = {}

    def of(self, request: FilledRequest) -> Tiles:
        """The tiles for the size and length of a request."""
        size = (*self._model.render_size(request.width, request.height), request.num_frames)
        return self._by_size.setdefault(size, Tiles(self._model, request))
