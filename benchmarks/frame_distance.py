"""Difference between the frames of two videos: PSNR and SSIM, with 8 bits per channel."""

from __future__ import annotations

import math

import numpy as np

LEVELS = 255
# The window and the constants of Wang et al., Image Quality Assessment: From Error Visibility to Structural
# Similarity, IEEE Transactions on Image Processing 13 (4), 2004: 11 pixels wide, sigma 1.5, K1 and K2.
SIGMA, RADIUS, K1, K2 = 1.5, 5, 0.01, 0.03


def squared_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean squared error over all frames, pixels and channels, in squared levels."""
    return float(np.mean((found.astype(float) - expected) ** 2))


def psnr(error: float) -> float:
    """PSNR in dB from a mean squared error; infinite if it is 0."""
    return math.inf if error == 0 else 10 * math.log10(LEVELS**2 / error)


def ssim(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean structural similarity of uint8 frames [n, H, W, channels], per frame and channel; 1 means equal.

    As in the paper, only windows fully inside the image count.

    Raises:
        ValueError: the shapes differ, or a frame is smaller than a window.
    """
    if found.shape != expected.shape or min(found.shape[1:3]) <= 2 * RADIUS:
        raise ValueError(
            f"frames {found.shape} and {expected.shape}: must have the same shape, with sides above {2 * RADIUS} pixels"
        )
    a, b = found.astype(float), expected.astype(float)
    mean_a, mean_b = _local_mean(a), _local_mean(b)
    variance_a, variance_b = _local_mean(a * a) - mean_a**2, _local_mean(b * b) - mean_b**2
    covariance = _local_mean(a * b) - mean_a * mean_b
    c1, c2 = (K1 * LEVELS) ** 2, (K2 * LEVELS) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return float(similarity.mean())


def _local_mean(frames: np.ndarray) -> np.ndarray:
    """Weighted means over the windows, [n, H-10, W-10, channels]."""
    from scipy.ndimage import gaussian_filter  # takes a second; PSNR needs none

    means = gaussian_filter(frames, sigma=(0, SIGMA, SIGMA, 0), radius=(0, RADIUS, RADIUS, 0))
    return means[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
