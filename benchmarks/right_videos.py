"""Number of correct videos from a backend, by the judge of the quality table."""

from __future__ import annotations

import tempfile
from pathlib import Path

from quality_records import generate_with, measure
from quality_tasks import Run, make_tasks

from hunyuan_local.backends.base import Backend
from hunyuan_local.video import read_frames


def count_right(backend: Backend, steps: int, count: int) -> int:
    """Number of combinations with correct colour, shape, direction and background, in videos of 17 frames.

    Args:
        count: number of combinations to generate, at most 216.
    """
    tasks, generate = make_tasks(Run(steps, 17, "alternating"), seed=1, limit=count), generate_with(backend)
    with tempfile.TemporaryDirectory() as folder:
        return sum(record.right["all"] for record in measure(tasks, Path(folder), generate, read_frames, keep=False))
