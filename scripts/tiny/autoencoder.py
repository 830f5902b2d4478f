"""Trains the video autoencoder of the built-in checkpoint: on single frames, on clips, then its decoder alone.

A plain autoencoder on the mode of the posterior: no sampling and no KL term. Its latents are
brought to zero mean and unit spread, channel by channel, inside its own 1x1x1 convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import HunyuanVideoCausalConv3d

from . import world
from .optimisation import Optimiser, autocast, run_stage

IMAGE_STEPS = 1500
CLIP_STEPS = 850
# The norms depend on the whole frame, so crops give them other statistics: after the clip stage, green on
# grey decoded as yellow in whole frames, which the mean PSNR over all clips does not show. Training on
# these clips alone broke red on grey, so the second cycle uses everything on grey.
DECODER_CYCLES = (240, 240)
WEAK = (("green",), tuple(world.COLOURS))
WEAK_BACKGROUND, WEAK_SHARES = "grey", (0.4, 0.6)
# In units of the latents' spread: noise that denoising leaves must not change the decoded video.
DECODER_NOISE = 0.1
CROP = 64


@dataclass(frozen=True)
class Sizes:
    """Crops per step of the first two stages, and length of the clips in each stage."""

    images: int = 16
    clips: int = 4
    crop_frames: int = 9
    whole_frames: int = 17


def build() -> AutoencoderKLHunyuanVideo:
    """The 13 B checkpoint's autoencoder class with few channels (2.5 M parameters)."""
    vae = AutoencoderKLHunyuanVideo(
        block_out_channels=(16, 32, 48, 64), layers_per_block=1, norm_num_groups=1, mid_block_add_attention=False
    )
    # Only the newest temporal tap starts non-zero: clips are then coded frame by frame, and what the
    # image stage learns applies to clips unchanged.
    for convolution in _causal_convolutions(vae):
        convolution.conv.weight.data[:, :, :-1] = 0
    return vae


def encode(vae: AutoencoderKLHunyuanVideo, pixels: torch.Tensor) -> torch.Tensor:
    """Mode of the posterior, unscaled: [B, 3, F, H, W] in -1..1 to [B, 16, (F-1)/4+1, H/8, W/8]."""
    return vae.quant_conv(vae.encoder(pixels)).chunk(2, dim=1)[0]


def decode(vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor) -> torch.Tensor:
    """Inverse of :func:`encode`, without tiling."""
    return vae.decoder(vae.post_quant_conv(latents))


def train(
    vae: AutoencoderKLHunyuanVideo,
    work_dir: Path,
    seed: int,
    image_steps: int,
    clip_steps: int,
    decoder_cycles: tuple[int, ...],
    clips: int,
    sizes: Sizes,
) -> None:
    """Run all stages; before the last one, normalise the latents by the statistics of ``clips`` clips."""
    kernels = [p for p in vae.parameters() if p.dim() == 5]
    others = [p for p in vae.parameters() if p.dim() != 5]
    with _single_frame_convolutions(vae):
        run_stage(
            "autoencoder-image",
            image_steps,
            work_dir,
            {"vae": vae},
            Optimiser(kernels, others, muon_lr=5e-3, adamw_lr=1e-3, newest_tap_only=True),
            lambda step: _image_loss(vae, np.random.default_rng([seed, 1, step]), sizes),
        )
    with _last_upsampling_in_float32(vae):
        run_stage(
            "autoencoder-clip",
            clip_steps,
            work_dir,
            {"vae": vae},
            Optimiser(kernels, others, muon_lr=8e-4, adamw_lr=1.6e-4),
            lambda step: _clip_loss(vae, np.random.default_rng([seed, 2, step]), sizes),
        )
    normalise_latents(vae, np.random.default_rng([seed, 3]), clips, sizes.whole_frames)
    decoding = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    first = 0
    with _last_upsampling_in_float32(vae):
        for steps, colours, share in zip(decoder_cycles, WEAK, WEAK_SHARES, strict=True):
            weak = [c for c in world.training_combinations() if c.colour in colours and c.background == WEAK_BACKGROUND]
            run_stage(
                "autoencoder-decoder",
                first + steps,
                work_dir,
                {"vae": vae},
                Optimiser(
                    [p for p in decoding if p.dim() == 5],
                    [p for p in decoding if p.dim() != 5],
                    muon_lr=8e-4,
                    adamw_lr=1.6e-4,
                ),
                lambda step, weak=weak, share=share: _decoder_loss(
                    vae, np.random.default_rng([seed, 5, step]), weak, share, sizes.whole_frames
                ),
                rate_from=first,
            )
            first += steps


@torch.no_grad()
def normalise_latents(vae: AutoencoderKLHunyuanVideo, rng: np.random.Generator, clips: int, num_frames: int) -> None:
    """Fold zero mean and unit spread per channel into the two 1x1x1 convolutions.

    Afterwards ``latents * scaling_factor`` has mean 0 and standard deviation 1 in every channel,
    with the scaling factor of the 13 B checkpoint, and the reconstruction is unchanged.
    """
    sizes = [size for size in (world.LANDSCAPE, world.PORTRAIT) for _ in range(clips // 2)]
    pixels = [_draw_clip(rng, size, num_frames)[0] for size in sizes]
    latents = torch.cat([encode(vae, p[None]).transpose(0, 1).flatten(1) for p in pixels], dim=1)
    mean = latents.mean(dim=1)
    gain = 1 / (latents.std(dim=1) * vae.config.scaling_factor)
    channels = vae.config.latent_channels
    vae.quant_conv.weight[:channels] *= gain.view(-1, 1, 1, 1, 1)
    vae.quant_conv.bias[:channels] = (vae.quant_conv.bias[:channels] - mean) * gain
    weight = vae.post_quant_conv.weight
    vae.post_quant_conv.bias += weight.flatten(1) @ mean
    weight /= gain.view(1, -1, 1, 1, 1)


@torch.no_grad()
def psnr(vae: AutoencoderKLHunyuanVideo, rng: np.random.Generator, clips: int, num_frames: int) -> float:
    """Mean PSNR in dB of full-size clips after the library's own encode and decode."""
    values = []
    for i in range(clips):
        pixels = _draw_clip(rng, (world.LANDSCAPE, world.PORTRAIT)[i % 2], num_frames)[0][None]
        again = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
        values.append(-10 * torch.log10(((again - pixels) / 2).square().mean()).item())
    return float(np.mean(values))


def _image_loss(vae: AutoencoderKLHunyuanVideo, rng: np.random.Generator, sizes: Sizes) -> torch.Tensor:
    pixels, masks = _batch_of_crops(rng, sizes.images, 1)
    with autocast():
        latents = encode(vae, pixels)
        again = decode(vae, latents + 0.1 * _noise_like(latents, rng))
    return _weighted_l1(again, pixels, 1 + 4 * masks) + 1e-3 * latents.float().square().mean()


def _clip_loss(vae: AutoencoderKLHunyuanVideo, rng: np.random.Generator, sizes: Sizes) -> torch.Tensor:
    pixels, masks = _batch_of_crops(rng, sizes.clips, sizes.crop_frames)
    with autocast():
        latents = encode(vae, pixels)
    noisy = latents + 0.05 * _noise_like(latents, rng)
    return _decoded_loss(vae, noisy, pixels, masks, rng) + 1e-4 * latents.float().square().mean()


def _decoder_loss(
    vae: AutoencoderKLHunyuanVideo,
    rng: np.random.Generator,
    weak: list[world.Combination],
    share: float,
    num_frames: int,
) -> torch.Tensor:
    size = (world.LANDSCAPE, world.PORTRAIT)[rng.integers(2)]
    combinations = weak if rng.uniform() < share else world.training_combinations()
    pixels, masks = (part[None] for part in _draw_clip(rng, size, num_frames, combinations)[:2])
    with torch.no_grad(), autocast():
        latents = encode(vae, pixels)
    noise = DECODER_NOISE / vae.config.scaling_factor * _noise_like(latents, rng)
    return _decoded_loss(vae, latents + noise, pixels, masks, rng)


def _decoded_loss(
    vae: AutoencoderKLHunyuanVideo,
    latents: torch.Tensor,
    pixels: torch.Tensor,
    masks: torch.Tensor,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Distance of the decoded clip from ``pixels``; motion and the object have more weight."""
    changing = (pixels.amax(dim=2, keepdim=True) - pixels.amin(dim=2, keepdim=True)).amax(dim=1, keepdim=True) > 0.1
    changing = changing.float()
    weight = 1 + 4 * torch.maximum(masks, changing) + 4 * changing
    with autocast():
        if rng.uniform() < 0.3:
            # The library decodes long clips in pieces whose first latent stands for four frames and
            # whose first frame is dropped; train for this with the last two latents.
            first = latents.shape[2] - 2
            again = decode(vae, latents[:, :, first:])[:, :, 1:]
            pixels, weight = pixels[:, :, 4 * first + 1 :], weight.expand_as(masks)[:, :, 4 * first + 1 :]
        else:
            again = decode(vae, latents)
    return _weighted_l1(again, pixels, weight)


def _weighted_l1(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return ((prediction.float() - target).abs() * weight).mean()


def _noise_like(tensor: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(tensor.shape), dtype=np.float32)).to(tensor.dtype)


def _draw_clip(
    rng: np.random.Generator,
    size: tuple[int, int],
    num_frames: int,
    combinations: list[world.Combination] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, world.Scene]:
    """A random clip of the training world: pixels [3, F, H, W] in -1..1 and object mask [1, F, H, W]."""
    combinations = combinations or world.training_combinations()
    combination = combinations[rng.integers(len(combinations))]
    scene = world.sample_scene(rng, combination, size, num_frames)
    frames = world.render(scene)
    masks = np.abs(frames - frames[:, :1, :1]).max(axis=-1, keepdims=True) > 0.05
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2) * 2 - 1
    return pixels, torch.from_numpy(masks.astype(np.float32)).permute(3, 0, 1, 2), scene


def _batch_of_crops(rng: np.random.Generator, batch: int, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Square crops that contain the object at a random position."""
    pixels, masks = [], []
    for _ in range(batch):
        clip, mask, scene = _draw_clip(rng, (world.LANDSCAPE, world.PORTRAIT)[rng.integers(2)], num_frames)
        left = _crop_start(rng, scene.middle_x, scene.width)
        top = _crop_start(rng, scene.middle_y, scene.height)
        pixels.append(clip[:, :, top : top + CROP, left : left + CROP])
        masks.append(mask[:, :, top : top + CROP, left : left + CROP])
    return torch.stack(pixels), torch.stack(masks)


def _crop_start(rng: np.random.Generator, middle: float, length: int) -> int:
    return int(np.clip(middle - CROP / 2 + rng.uniform(-14, 14), 0, length - CROP))


def _causal_convolutions(vae: AutoencoderKLHunyuanVideo) -> Iterator[HunyuanVideoCausalConv3d]:
    return (m for m in vae.modules() if isinstance(m, HunyuanVideoCausalConv3d))


@contextmanager
def _single_frame_convolutions(vae: AutoencoderKLHunyuanVideo) -> Iterator[None]:
    """Run every causal convolution on a single frame as the 2-D convolution of its newest tap.

    Exact while the older taps are zero, and about three times faster.
    """

    def forward(self: HunyuanVideoCausalConv3d, hidden_states: torch.Tensor) -> torch.Tensor:
        left, right, top, bottom, _, _ = self.time_causal_padding
        frame = F.pad(hidden_states[:, :, 0], (left, right, top, bottom), mode=self.pad_mode)
        return F.conv2d(frame, self.conv.weight[:, :, -1], self.conv.bias, self.conv.stride[1:]).unsqueeze(2)

    for convolution in _causal_convolutions(vae):
        convolution.forward = forward.__get__(convolution)
    try:
        yield
    finally:
        for convolution in _causal_convolutions(vae):
            del convolution.forward


@contextmanager
def _last_upsampling_in_float32(vae: AutoencoderKLHunyuanVideo) -> Iterator[None]:
    """Keep one convolution out of bfloat16 autocast while training.

    Its bfloat16 weight gradient comes out infinite now and then on processors with AMX (seen with
    torch 2.13); in float32 it does not.
    """
    convolution = vae.decoder.up_blocks[2].upsamplers[0].conv.conv

    def forward(self: torch.nn.Conv3d, hidden_states: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return type(self).forward(self, hidden_states.float())

    convolution.forward = forward.__get__(convolution)
    try:
        yield
    finally:
        del convolution.forward
