"""Fits the linear map from the built-in checkpoint's latents to preview colours.

Needs the finished checkpoint and no state of its training: it encodes clips of the world and solves a
least-squares problem. The result is printed; it belongs into the checkpoint's model config.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo

from hunyuan_local.config import LatentPreview
from hunyuan_local.pipeline.preview import preview_frames

from . import autoencoder, world
from .colours import to_latent_grid

CLIPS = 360
CHECK_CLIPS = 72
CLIP_FRAMES = 17
DECIMALS = 4
# Some latent directions hardly vary. A fit without noise relies on them and amplifies what denoising leaves.
NOISE = autoencoder.DECODER_NOISE


def fit_checkpoint(checkpoint: Path, seed: int, clips: int = CLIPS, check_clips: int = CHECK_CLIPS) -> LatentPreview:
    """Fit the map for a checkpoint's autoencoder, and print its PSNR and its lines for a model config.

    Args:
        checkpoint: a folder in diffusers' layout.
        seed: of the clips.
        clips: number of clips to fit on, from the training combinations.
        check_clips: number of clips to measure on, from the held-out combinations.
    """
    vae = AutoencoderKLHunyuanVideo.from_pretrained(checkpoint / "vae", dtype=torch.float32)
    pairs = [_encoded(vae, s) for s in _scenes(world.training_combinations(), clips, np.random.default_rng([seed, 30]))]
    latents, colours = (np.concatenate([_rows(part) for part in parts]) for parts in zip(*pairs, strict=True))
    preview = fit(latents, colours, NOISE)
    held_out = [c for c in world.combinations() if world.is_held_out(c)]
    decibels = [
        psnr(preview, *_encoded(vae, scene))
        for scene in _scenes(held_out, check_clips, np.random.default_rng([seed, 31]))
    ]
    print(f"latent preview: {np.mean(decibels):.1f} dB on held-out clips, the worst {np.min(decibels):.1f} dB")
    print(as_yaml(preview), flush=True)
    return preview


def fit(latents: np.ndarray, colours: np.ndarray, noise: float) -> LatentPreview:
    """The least-squares solution of ``colours = latents @ factors + bias``, rounded, for latents with noise.

    Noise of spread s adds ``n * s^2 * |factors|^2`` to the expected sum of squares, which s * sqrt(n) times the
    identity as further rows of the latents, with the colour 0 and no bias, adds as well.

    Args:
        latents: [n, channels].
        colours: [n, 3] in -1..1.
        noise: standard deviation of the noise added to the latents.
    """
    n, channels = latents.shape
    design = np.block([[latents, np.ones((n, 1))], [noise * np.sqrt(n) * np.eye(channels), np.zeros((channels, 1))]])
    targets = np.concatenate([colours, np.zeros((channels, 3))])
    solution = np.linalg.lstsq(design, targets, rcond=None)[0].round(DECIMALS).tolist()
    return LatentPreview(factors=solution[:-1], bias=solution[-1])


def psnr(preview: LatentPreview, latents: torch.Tensor, colours: torch.Tensor) -> float:
    """PSNR in dB between the preview of a clip and the clip at the latents' resolution."""
    shown = preview_frames(latents, preview, count=latents.shape[2]) / 127.5 - 1
    return float(-10 * np.log10(np.square((shown - colours[0].permute(1, 2, 3, 0).numpy()) / 2).mean()))


def as_yaml(preview: LatentPreview) -> str:
    """The map as the lines of a model config."""
    rows = [f"    - [{', '.join(f'{value:.{DECIMALS}f}' for value in row)}]" for row in preview.factors]
    bias = ", ".join(f"{value:.{DECIMALS}f}" for value in preview.bias)
    return "\n".join(["latent_preview:", "  factors:", *rows, f"  bias: [{bias}]"])


def _scenes(combinations: list[world.Combination], clips: int, rng: np.random.Generator) -> list[world.Scene]:
    """Clips in both orientations, spread evenly over the combinations."""
    scenes = []
    for number in range(clips):
        # 7 is coprime to the 180 and 36 combinations; the second round has the other orientation.
        combination = combinations[number * 7 % len(combinations)]
        size = (world.LANDSCAPE, world.PORTRAIT)[(number + number // len(combinations)) % 2]
        scenes.append(world.sample_scene(rng, combination, size, CLIP_FRAMES))
    return scenes


@torch.no_grad()
def _encoded(vae: AutoencoderKLHunyuanVideo, scene: world.Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled latents [1, 16, T, H, W] of a clip and its colours [1, 3, T, H, W]."""
    pixels = torch.from_numpy(world.render(scene)).permute(3, 0, 1, 2)[None] * 2 - 1
    return autoencoder.encode(vae, pixels) * vae.config.scaling_factor, to_latent_grid(pixels)


def _rows(clip: torch.Tensor) -> np.ndarray:
    return clip[0].flatten(1).T.double().numpy()
