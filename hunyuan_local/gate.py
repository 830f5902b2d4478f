"""The last look at the frames: refuses a video that is black, constant or frozen.

Looks at every frame once, as it passes, and keeps only one of them. Knows nothing about models.
"""

from __future__ import annotations

import numpy as np

from .errors import InvalidOutputError

# 8-bit levels. Below the first everything is black to the eye; within the second everything is the
# same to the encoder.
BLACK_LEVEL = 8
SAME_LEVELS = 1


class FrameGate:
    """Collects what says whether a video shows anything; :meth:`finish` judges it."""

    def __init__(self) -> None:
        self._num_frames = 0
        self._brightest = 0
        self._widest_spread = 0
        self._largest_change = 0
        self._last: np.ndarray | None = None

    def check(self, frames: np.ndarray) -> None:
        """Take note of uint8 frames [n, H, W, 3], in order."""
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
        """Judge the whole video.

        Raises:
            InvalidOutputError: naming the fault and its likely causes.
        """
        if self._brightest < BLACK_LEVEL:
            raise InvalidOutputError(
                "the video is black from beginning to end; likely causes: a transformer in float16 (it must be "
                "bfloat16 or float32), an autoencoder in a precision that overflows, or damaged weights; "
                "no file was kept"
            )
        if self._widest_spread <= SAME_LEVELS:
            raise InvalidOutputError(
                "every frame is one plain colour; likely causes: damaged or mismatched weights, or far too few steps "
                "for this model; no file was kept"
            )
        if self._num_frames > 1 and self._largest_change <= SAME_LEVELS:
            raise InvalidOutputError(
                "the video is frozen: all frames are the same; likely causes: damaged or mismatched weights, or a flow "
                "shift that does not fit the number of steps; no file was kept"
            )
