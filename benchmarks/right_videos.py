"""How many of the videos that a backend makes are right, by the judge of the quality table."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tiny_quality import Run, generate_with, make_tasks, measure

from hunyuan_local.backends.base import Backend
from hunyuan_local.video import read_frames


def count_right(backend: Backend, steps: int, count: int) -> int:
    """How many of so many combinations, in 17 frames, are right in colour, shape, direction and background.

    Args:
        count: at most the 216 that there are.
    """
    tasks, generate = make_tasks(Run(steps, 17, "alternating"), seed=1, limit=count), generate_with(backend)
    with tempfile.TemporaryDirectory() as folder:
        return sum(record.right["all"] for record in measure(tasks, Path(folder), generate, read_frames, keep=False))
