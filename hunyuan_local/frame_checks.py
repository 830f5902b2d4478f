"""Final check of the frames: refuses a video that is black, constant or frozen.

Streams over the frames and keeps only the last one in memory. This module knows nothing about models.
"""

from __future__ import annotations

import numpy as np

from .errors import InvalidOutputError

# 8-bit levels. Values below BLACK_LEVEL look black; differences up to SAME_LEVELS vanish in the encoder.
BLACK_LEVEL = 8
SAME_LEVELS = 1


class FrameGate:
    """Collects statistics of the frames; :meth:`finish` decides whether the video is valid."""

    def __init__(self) -> None:
        self._num_frames = 0
        self._brightest = 0
        self._widest_spread = 0
        self._largest_change = 0
        self._last: np.ndarray | None = None

    def check(self, frames: np.ndarray) -> None:
        """Add uint8 frames [n, H, W, 3], in order."""
        for frame in frames:
            low, high = frame.min(axis=(0, 1)), frame.max(axis=(0, 1))
            self._brightest = max(self._brightest, int(high.max()))
            self._widest_spread = max(self._widest_spread, int((high - low).max()))
            if self._last is not None and self._largest_change <= SAME_LEVELS:
                change = np.abs(frame.astype(np.int16) - self._last.astype(np.int16))
                self._largest_change = max(self._largest_change, int(change.max()))
            self._last = frame
            self._num_frames += 1

    def finish(self) -> None:
        """Check the whole video.

        Raises:
            InvalidOutputError: the video is invalid; names the likely causes.
        """
        if self._brightest < BLACK_LEVEL:
            raise InvalidOutputError(
                "the whole video is black; likely causes: a transformer in float16 (it must be "
                "bfloat16 or float32), an autoencoder in a precision that overflows, or damaged weights; "
                "no file was kept"
            )
        if self._widest_spread <= SAME_LEVELS:
            raise InvalidOutputError(
                "every frame is a single colour; likely causes: damaged or mismatched weights, or far too few steps "
                "for this model; no file was kept"
            )
        if self._num_frames > 1 and self._largest_change <= SAME_LEVELS:
            raise InvalidOutputError(
                "the video is frozen: all frames are identical; likely causes: damaged or mismatched weights, or a "
                "flow shift that does not fit the number of steps; no file was kept"
            )
