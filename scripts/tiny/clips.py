"""Encoded clips of one size and length, kept in the work directory: what the transformers are trained on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo

from . import autoencoder, world
from .optimisation import autocast, save_atomically

SAVE_SECONDS = 120.0


@dataclass(frozen=True)
class Bucket:
    """Clips of one size and length; ``share`` is their fraction of all steps.

    With ``anywhere`` the paths begin at any place that leaves the shape inside, not near the middle alone. A picture
    shows the place, so the direction must not follow from it.
    """

    size: tuple[int, int]
    num_frames: int
    clips: int
    batch: int
    share: float
    anywhere: bool = False

    @property
    def name(self) -> str:
        return f"{self.size[0]}x{self.size[1]}x{self.num_frames}{'-anywhere' if self.anywhere else ''}"


@dataclass(frozen=True)
class Batch:
    """Clips of a training step.

    Attributes:
        latents: scaled, float32 [B, 16, T, H, W].
        first: scaled latents of the first frame alone, float32 [B, 16, 1, H, W].
        pictures: the first frames, uint8 [B, height, width, 3].
        combinations: what each clip shows.
        heat: for each of the four directions, where its objects can be, 0..1: [4, 1, T, H, W].
    """

    latents: torch.Tensor
    first: torch.Tensor
    pictures: np.ndarray
    combinations: list[world.Combination]
    heat: torch.Tensor


class ClipSet:
    """Encoded clips of one bucket; encodes those that the work directory lacks."""

    def __init__(self, bucket: Bucket, vae: AutoencoderKLHunyuanVideo, work_dir: Path, seed: int):
        self.bucket = bucket
        self.combinations = world.training_combinations()
        path = work_dir / f"latents-{bucket.name}.pt"
        state = _encode(bucket, vae, path, seed)
        self.latents, self.first = state["latents"], state["first"]
        self.pictures = state["pictures"].numpy()
        heat = torch.stack([state["masks"][i == state["directions"]].float().mean(dim=0) for i in range(4)])
        self.heat = (heat / heat.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)).unsqueeze(1)

    def draw(self, rng: np.random.Generator) -> Batch:
        chosen = rng.integers(len(self.latents), size=self.bucket.batch)
        return Batch(
            latents=self.latents[chosen].float(),
            first=self.first[chosen].float(),
            pictures=self.pictures[chosen],
            combinations=[self.combinations[_combination_of(i)] for i in chosen],
            heat=self.heat,
        )


def _combination_of(clip: int) -> int:
    """7 and 180 are coprime, so any number of clips spreads evenly over the combinations."""
    return int(clip) * 7 % len(world.training_combinations())


@torch.no_grad()
def _encode(bucket: Bucket, vae: AutoencoderKLHunyuanVideo, path: Path, seed: int) -> dict[str, torch.Tensor]:
    """The encoded clips: each clip has its own seed, so that encoding resumes at any clip."""
    state = torch.load(path, weights_only=True) if path.exists() else {}
    done = len(state["latents"]) if state else 0
    if done < bucket.clips:
        print(f"encoding clips {done} to {bucket.clips} of {bucket.name}", flush=True)
    made: list[dict[str, torch.Tensor]] = []
    saved = time.monotonic()
    for clip in range(done, bucket.clips):
        made.append(
            _encoded_clip(bucket, vae, np.random.default_rng([seed, 21, *bucket.size, bucket.num_frames, clip]), clip)
        )
        if clip + 1 == bucket.clips or time.monotonic() - saved > SAVE_SECONDS:
            parts = [state, *made] if state else made
            state, made = {key: torch.cat([part[key] for part in parts]) for key in made[0]}, []
            save_atomically(state, path)
            saved = time.monotonic()
    return {key: value[: bucket.clips] for key, value in state.items()}


def _encoded_clip(
    bucket: Bucket, vae: AutoencoderKLHunyuanVideo, rng: np.random.Generator, clip: int
) -> dict[str, torch.Tensor]:
    combination = world.training_combinations()[_combination_of(clip)]
    scene = world.sample_scene(rng, combination, bucket.size, bucket.num_frames, anywhere=bucket.anywhere)
    frames = world.render(scene)
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] * 2 - 1
    # The norms see all frames, so the latents of the first frame alone are not those of the clip's first frame.
    with autocast():
        latents, first = (autoencoder.encode(vae, part) for part in (pixels, pixels[:, :, :1]))
    covered = np.abs(frames - frames[:, :1, :1]).max(axis=-1) > 0.05
    return {
        "latents": (latents * vae.config.scaling_factor).half(),
        "first": (first * vae.config.scaling_factor).half(),
        "pictures": torch.from_numpy((frames[:1] * 255).round().astype(np.uint8)),
        "masks": _to_latent_grid(torch.from_numpy(covered).float())[None] > 0,
        "directions": torch.tensor([list(world.DIRECTIONS).index(combination.direction)]),
    }


def _to_latent_grid(masks: torch.Tensor) -> torch.Tensor:
    """Max-pool object masks [F, H, W] to the latents' grid [(F-1)/4+1, H/8, W/8]."""
    first, rest = masks[:1], masks[1:]
    grouped = rest.unflatten(0, (-1, 4)).amax(dim=1)
    return F.max_pool2d(torch.cat([first, grouped])[:, None], 8)[:, 0]
