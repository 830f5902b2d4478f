"""Difference between our frames and the plain script's, with the same weights, seed and precision, before encoding.

Run as ``python -m versus.difference JOB.json RECORD.json``, in a separate process.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
from frame_distance import psnr, squared_error

from . import ours, stock
from .job import Job


def stock_frames(job: Job) -> np.ndarray:
    """uint8 frames [n, H, W, 3] of the plain script."""
    frames = stock.call(stock.make_pipeline(job), job, output_type="np")
    return (frames * 255).round().astype(np.uint8)


def our_frames(job: Job) -> np.ndarray:
    """uint8 frames [n, H, W, 3] of this package."""
    from hunyuan_local.pipeline.decode import decode
    from hunyuan_local.pipeline.denoise import denoise
    from hunyuan_local.schema import GenerationRequest

    backend = ours.make_backend(job)
    model, request = backend.load(), GenerationRequest(**job.request)
    size = (request.width, request.height)
    denoised = denoise(model, request, size, lambda value: None, lambda value: None, lambda: False)
    return np.concatenate(list(decode(model, denoised.latents)))


def distance(found: np.ndarray, expected: np.ndarray) -> dict[str, float | None]:
    """Largest difference of 255 levels, and PSNR in dB; None if the frames are equal."""
    error = squared_error(found, expected)
    largest = int(np.abs(found.astype(int) - expected).max())
    return {"largest": largest, "psnr_db": psnr(error) if error else None}


def main() -> None:
    """Compare the frames; in half precision also the plain script with itself in float32, to show rounding alone."""
    job = Job.load(Path(sys.argv[1]))
    expected = stock_frames(job)
    found = {"ours": distance(our_frames(job), expected)}
    if job.transformer != "float32":
        exact = stock_frames(dataclasses.replace(job, transformer="float32"))
        found["stock in float32"] = distance(exact, expected)
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
