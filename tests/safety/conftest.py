"""Safety checks with a classifier of red and blue images, and clips of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from colour_classifier import picture

from hunyuan_local.config import SafetyConfig


@pytest.fixture(scope="session")
def check(classifier: Path) -> Callable[..., SafetyConfig]:
    """Makes the config of a check for red; keyword arguments replace or add."""

    def make(mode: str = "flag", **more: object) -> SafetyConfig:
        return SafetyConfig(**({"mode": mode, "model_id": str(classifier), "labels": ("red",)} | more))

    return make


@pytest.fixture(scope="session")
def clip() -> Callable[..., np.ndarray]:
    """Makes frames of these labels, uint8 [n, 80, 144, 3]."""

    def make(*labels: str) -> np.ndarray:
        rng = np.random.default_rng(5)
        return np.stack([picture(rng, label) for label in labels])

    return make
