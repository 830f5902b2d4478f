"""The complete training: autoencoder, text encoders and transformer, the checkpoint, its latent preview."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from . import autoencoder, denoiser, preview, text
from .export import export


@dataclass(frozen=True)
class Plan:
    """Number of steps per stage, and number of clips for training and measuring."""

    image_steps: int
    clip_steps: int
    decoder_cycles: tuple[int, int]
    statistics_clips: int
    check_clips: int
    denoiser_cycles: tuple[denoiser.Cycle, ...]
    buckets: tuple[denoiser.Bucket, ...]
    preview_clips: int
    preview_check_clips: int
    sizes: autoencoder.Sizes


FULL = Plan(
    autoencoder.IMAGE_STEPS,
    autoencoder.CLIP_STEPS,
    autoencoder.DECODER_CYCLES,
    48,
    12,
    denoiser.CYCLES,
    denoiser.BUCKETS,
    preview.CLIPS,
    preview.CHECK_CLIPS,
    autoencoder.Sizes(),
)
QUICK_CYCLES = (denoiser.Cycle(1), denoiser.Cycle(1, peak=0.5, emphasis=2.0))
QUICK_BUCKETS = tuple(replace(bucket, clips=8, batch=2) for bucket in denoiser.BUCKETS[:2])
QUICK = Plan(3, 2, (1, 1), 2, 1, QUICK_CYCLES, QUICK_BUCKETS, 2, 1, autoencoder.Sizes(4, 1, 5, 5))


def train(work_dir: Path, output: Path, *, seed: int, threads: int, plan: Plan) -> None:
    """Run or resume all stages and write the checkpoint to ``output``."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    vae = autoencoder.build()
    autoencoder.train(
        vae, work_dir, seed, plan.image_steps, plan.clip_steps, plan.decoder_cycles, plan.statistics_clips, plan.sizes
    )
    decibels = autoencoder.psnr(vae, np.random.default_rng([seed, 4]), plan.check_clips, plan.sizes.whole_frames)
    print(f"autoencoder: {decibels:.1f} dB on new clips", flush=True)
    stack = text.build(seed)
    transformer = denoiser.build(seed)
    denoiser.train(transformer, stack, vae, work_dir, seed, plan.denoiser_cycles, plan.buckets)
    export(output, stack, transformer, vae)
    print(f"written to {output}; crop_start of its template is {stack.crop_start}", flush=True)
    fit_preview(output, seed=seed, threads=threads, plan=plan)


def fit_preview(checkpoint: Path, *, seed: int, threads: int, plan: Plan) -> None:
    """Fit and print the latent preview of a finished checkpoint."""
    torch.set_num_threads(threads)
    preview.fit_checkpoint(checkpoint, seed, plan.preview_clips, plan.preview_check_clips)
