"""A few frames side by side in one PNG file.

Knows nothing of what the frames show. The file is whole or not there, so that it may be read while the next
one is written; it is not forced to the disk, since losing it to a power cut costs nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..durable import begin_partial, discard


def write_picture(frames: np.ndarray, path: Path, scale: int = 1) -> None:
    """Write frames from left to right, each enlarged by a whole number, in the place of what is at ``path``.

    Enlarging is bilinear and frame by frame: no colour runs from one frame into its neighbour.

    Args:
        frames: uint8 [n, height, width, 3], one or more.
        path: the file, PNG whatever its suffix.
        scale: pixels of the picture for a pixel of a frame, from 1.

    Raises:
        ValueError: not such frames, or not such a scale.
        OSError: the disk or the folder does not allow it; what was at ``path`` is as it was.
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
