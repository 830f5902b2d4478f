"""The tiles in which one video is decoded: as large as the free memory allows, smaller after it ran out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...config import ModelConfig, RuntimeProfile
from ...config.tiling import TILED, UNTILED, Tiling
from ...planner.architecture import Autoencoder
from ...planner.checkpoint import read_architecture
from ...planner.decoding import Decode, trace_decode
from ...planner.memory import Shape
from ...planner.plan import MAX_ELEMENTS
from ...planner.quantization import DTYPE_BYTES
from ...planner.tiles import choose_tiling, needed_bytes, smaller
from ...schema import GenerationRequest

if TYPE_CHECKING:
    from ...pipeline.model import LoadedModel


class Tiles:
    """The choice for one video of one model.

    Args:
        model: its autoencoder's configuration is read when it is first needed.
        request: with its size and length.
    """

    def __init__(self, model: ModelConfig, request: GenerationRequest):
        self._model, self._request = model, request
        self._tiling: Tiling | None = None
        self._limit: Tiling | None = None
        self._profile: RuntimeProfile | None = None

    def choose(self, profile: RuntimeProfile, free_bytes: int | None) -> Tiling:
        """The cheapest tiling that the profile and the free memory allow.

        Args:
            profile: without ``vae_tiling`` the picture is not cut, unless memory ran out before.
            free_bytes: of the device, beside the autoencoder's weights; None where it does not count.
        """
        self._profile = profile
        if self._limit is not None:
            self._tiling = self._limit
        elif profile.vae_tiling:
            self._tiling = choose_tiling(*self._decoding(), free_bytes, max_elements=self._max_elements, default=TILED)
        else:
            self._tiling = choose_tiling(*self._decoding(), None, max_elements=self._max_elements, default=UNTILED)
        return self._tiling

    @property
    def needed_bytes(self) -> int:
        """What must be free for the last tiles chosen, beside the autoencoder's weights."""
        config, latents, each = self._decoding()
        return needed_bytes(trace_decode(config, Decode(latents, each, self._tiling)).peak_bytes)

    @property
    def can_shrink(self) -> bool:
        """Whether there are smaller tiles than the last ones chosen."""
        return self._next() is not None

    def shrink(self) -> str:
        """Choose clearly smaller tiles from now on, and say which."""
        self._limit = self._next() or self._limit
        width, height = self._limit.width or "whole width", self._limit.height or "whole height"
        return f"{width} x {height}, {self._limit.frames} frames"

    def _next(self) -> Tiling | None:
        return (
            None if self._tiling is None else smaller(self._tiling, *self._decoding(), max_elements=self._max_elements)
        )

    @property
    def _max_elements(self) -> int | None:
        """The most that a tensor may have for CUDA's kernels."""
        return MAX_ELEMENTS if self._profile.device == "cuda" else None

    def _decoding(self) -> tuple[Autoencoder, tuple[int, int, int], int]:
        """The autoencoder, the latents' (frames, height, width), and bytes of an activation's element."""
        architecture = read_architecture(self._model)
        width, height = self._model.render_size(self._request.width, self._request.height)
        crop_start = self._model.prompt_template.crop_start
        shape = Shape.of(architecture, width, height, self._request.num_frames, crop_start)
        return architecture.vae, shape.latents, DTYPE_BYTES[self._profile.dtypes.vae]


def choose_for(model: LoadedModel, tiles: Tiles, profile: RuntimeProfile) -> Tiling:
    """The tiles that the free memory allows; a transformer that was to stay leaves if there is no room beside it."""
    from ...pipeline.model import decoding_bytes

    tiling, placement = tiles.choose(profile, free_bytes := decoding_bytes(model)), model.placement
    if placement.has_evictable and free_bytes is not None and tiles.needed_bytes > free_bytes:
        placement.evict()
        tiling = tiles.choose(profile, decoding_bytes(model))
    return tiling
