"""Writes a few frames side by side to a PNG file.

The file is replaced atomically, so it can be read while the next one is written. It is not synced to disk, since
losing it in a power cut does no harm.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..durable import begin_partial, discard


def write_picture(frames: np.ndarray, path: Path, scale: int = 1) -> None:
    """Write frames from left to right into one image, each enlarged by an integer factor; replaces ``path``.

    Each frame is enlarged separately (bilinear), so that colours do not bleed into the next frame.

    Args:
        frames: uint8 [n, height, width, 3] with n of 1 or more.
        path: the file, which is PNG regardless of its suffix.
        scale: factor of enlargement, 1 or more.

    Raises:
        ValueError: invalid frames or scale.
        OSError: the file cannot be written; an existing file at ``path`` is unchanged.
    """
    from PIL import Image

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(f"frames must be uint8 [n, height, width, 3], not {frames.dtype} {[*frames.shape]}")
    if scale < 1:
        raise ValueError(f"scale must be 1 or more, not {scale}")
    count, height, width = frames.shape[:3]
    picture = Image.new("RGB", (count * width * scale, height * scale))
    for place, frame in enumerate(frames):
        enlarged = Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.BILINEAR)
        picture.paste(enlarged, (place * width * scale, 0))
    partial = begin_partial(path)
    try:
        picture.save(partial, format="PNG")
        os.replace(partial, path)
    finally:
        discard(partial)
