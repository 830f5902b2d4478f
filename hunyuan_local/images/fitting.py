"""Fits an image to the size of a video, and picks the size that suits an image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

ImageFit = Literal["cover", "pad", "stretch"]
DEFAULT_FIT: ImageFit = "cover"


def fit_image(image: Image, size: tuple[int, int], how: ImageFit = DEFAULT_FIT) -> Image:
    """Return an RGB image of exactly this size, resampled with Lanczos.

    Args:
        size: (width, height) in pixels.
        how: ``cover`` scales until the image covers the size and crops the centre, as Tencent's image-to-video code
            does; ``pad`` scales until it fits inside and fills the rest with black; ``stretch`` scales each side by
            itself, as diffusers does.
    """
    from PIL import Image

    width, height = size
    if how == "stretch":
        return image.resize(size, Image.Resampling.LANCZOS)
    if how == "cover":
        # The part of the image that stays is cut out first: scaling a long strip as a whole would need much memory.
        scale = max(width / image.width, height / image.height)
        kept_width, kept_height = min(image.width, width / scale), min(image.height, height / scale)
        left, top = (image.width - kept_width) / 2, (image.height - kept_height) / 2
        return image.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + kept_width, top + kept_height))
    scale = min(width / image.width, height / image.height)
    inside = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", size)
    canvas.paste(image.resize(inside, Image.Resampling.LANCZOS), ((width - inside[0]) // 2, (height - inside[1]) // 2))
    return canvas


def nearest_size(image: tuple[int, int], sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the (width, height) whose shape is nearest to the image's: the smallest ratio of the two aspect ratios.

    Among equals, the first one.
    """
    shape = math.log(image[0] / image[1])
    return min(sizes, key=lambda size: round(abs(math.log(size[0] / size[1]) - shape), 9))
