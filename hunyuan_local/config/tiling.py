"""How latents are split into overlapping tiles that the autoencoder decodes one by one."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from ..schema import TEMPORAL_COMPRESSION

# Pixels per latent in height and width.
SPATIAL_COMPRESSION = 8


@dataclass(frozen=True)
class Tiling:
    """Tile sizes; the defaults are those of diffusers' ``AutoencoderKLHunyuanVideo``.

    Attributes:
        height, width: size of a spatial tile in pixels; None does not split that side.
        overlap: overlap of adjacent spatial tiles in pixels, over which they are blended.
        frames: length of a temporal tile, which is decoded together with the one latent before it.
        frames_overlap: overlap of adjacent temporal tiles in frames.

    Raises:
        ConfigError: a size is not a multiple of a latent, or more than two tiles would overlap.
    """

    height: int | None = 256
    width: int | None = 256
    overlap: int = 64
    frames: int = 16
    frames_overlap: int = 4

    def __post_init__(self) -> None:
        for name in ("height", "width", "overlap"):
            _check_grid(name, getattr(self, name), SPATIAL_COMPRESSION, "pixels")
        for name in ("frames", "frames_overlap"):
            _check_grid(name, getattr(self, name), TEMPORAL_COMPRESSION, "frames")
        for name, overlap in (("height", self.overlap), ("width", self.overlap), ("frames", self.frames_overlap)):
            size = getattr(self, name)
            if size is not None and size < 2 * overlap:
                raise ConfigError(
                    f"{name}={size}: tiles that overlap by {overlap} must be at least {2 * overlap}, "
                    "or a third tile would overlap the seam of two"
                )

    @property
    def frames_stride(self) -> int:
        """Frames between the starts of adjacent temporal tiles."""
        return self.frames - self.frames_overlap

    def cuts_picture(self, height: int, width: int) -> bool:
        """Whether a frame of ``height`` x ``width`` latents is larger than one tile."""
        sides = ((height, self.height), (width, self.width))
        return any(tile is not None and side > tile // SPATIAL_COMPRESSION for side, tile in sides)

    def areas(self, height: int, width: int) -> list[tuple[int, int]]:
        """(height, width) in latents of the spatial tiles, row by row, as diffusers' ``tiled_decode`` splits them."""
        if not self.cuts_picture(height, width):
            return [(height, width)]
        columns = self._cuts(width, self.width)
        return [(row, column) for row in self._cuts(height, self.height) for column in columns]

    def lengths(self, frames: int) -> list[int]:
        """Lengths in latents of the temporal tiles, in order, as ``_temporal_tiled_decode`` splits them."""
        whole, stride = self.frames // TEMPORAL_COMPRESSION, self.frames_stride // TEMPORAL_COMPRESSION
        if frames <= whole:
            return [frames]
        return [min(whole + 1, frames - start) for start in range(0, frames, stride)]

    def _cuts(self, side: int, tile: int | None) -> list[int]:
        if tile is None:
            return [side]
        stride = (tile - self.overlap) // SPATIAL_COMPRESSION
        return [min(tile // SPATIAL_COMPRESSION, side - start) for start in range(0, side, stride)]


def _check_grid(name: str, size: int | None, step: int, unit: str) -> None:
    if size is not None and (size < step or size % step):
        raise ConfigError(f"{name}={size}: must be a multiple of {step} {unit}, the size of one latent")


TILED = Tiling()
UNTILED = Tiling(height=None, width=None)
