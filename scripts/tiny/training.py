"""The complete training: autoencoder, text encoders and transformer, the checkpoint, its latent preview."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME

from . import autoencoder, denoiser, preview, text
from .export import export


@dataclass(frozen=True)
class Plan:
    """Number of steps per stage, and number of clips for training and measuring."""

    anew: autoencoder.Steps
    continued: autoencoder.Steps
    statistics_clips: int
    check_clips: int
    denoiser_cycles: tuple[denoiser.Cycle, ...]
    buckets: tuple[denoiser.Bucket, ...]
    preview_clips: int
    preview_check_clips: int
    sizes: autoencoder.Sizes


FULL = Plan(
    autoencoder.ANEW,
    autoencoder.CONTINUED,
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
QUICK_STEPS = autoencoder.Steps(2, 1, 1)
QUICK = Plan(
    QUICK_STEPS, replace(QUICK_STEPS, image=0), 2, 1, QUICK_CYCLES, QUICK_BUCKETS, 2, 1, autoencoder.Sizes(4, 2, ((1, 5),), 5)
)


def train(work_dir: Path, output: Path, *, seed: int, threads: int, plan: Plan, start: Path | None = None) -> None:
    """Run or resume all stages and write the checkpoint to ``output``.

    Args:
        start: a finished checkpoint whose weights training continues from; None trains anew.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    vae = train_autoencoder(work_dir, seed, plan, start)
    stack = text.build(seed)
    transformer = denoiser.build(seed)
    denoiser.train(transformer, stack, vae, work_dir, seed, plan.denoiser_cycles, plan.buckets)
    export(output, stack, transformer, vae)
    print(f"written to {output}; crop_start of its template is {stack.crop_start}", flush=True)
    fit_preview(output, seed=seed, threads=threads, plan=plan)


def train_autoencoder(work_dir: Path, seed: int, plan: Plan, start: Path | None) -> AutoencoderKLHunyuanVideo:
    """The trained autoencoder; prints its PSNR on new clips."""
    if start is None:
        vae, steps, origin = autoencoder.build(), plan.anew, "anew"
    else:
        vae = AutoencoderKLHunyuanVideo.from_pretrained(start / "vae", dtype=torch.float32)
        steps, origin = plan.continued, digest(start / "vae" / SAFETENSORS_WEIGHTS_NAME)
    vae.requires_grad_(True)
    autoencoder.train(vae, work_dir, seed, steps, plan.statistics_clips, plan.sizes, origin)
    decibels = autoencoder.psnr(vae, np.random.default_rng([seed, 4]), plan.check_clips, plan.sizes.whole_frames)
    print(f"autoencoder: {decibels:.1f} dB on new clips", flush=True)
    return vae


def digest(path: Path) -> str:
    """SHA-256 of a file, for the plan in the states."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fit_preview(checkpoint: Path, *, seed: int, threads: int, plan: Plan) -> None:
    """Fit and print the latent preview of a finished checkpoint."""
    torch.set_num_threads(threads)
    preview.fit_checkpoint(checkpoint, seed, plan.preview_clips, plan.preview_check_clips)
