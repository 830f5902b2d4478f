"""Input images: checks files from strangers, fits them to a video's size, and keeps them by their digest.

Uses Pillow, and neither torch nor the network. Does not know requests or models.
"""

from __future__ import annotations

from .fitting import DEFAULT_FIT, ImageFit, fit_image, nearest_size
from .input_image import MAX_BYTES, MAX_PIXELS, InputImage, check_image, open_image
from .kept import ImageFolder

__all__ = [
    "DEFAULT_FIT",
    "MAX_BYTES",
    "MAX_PIXELS",
    "ImageFit",
    "ImageFolder",
    "InputImage",
    "check_image",
    "fit_image",
    "nearest_size",
    "open_image",
]
