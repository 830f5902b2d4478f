"""Trains the video autoencoder of the built-in checkpoint: on single frames, on clips, then its decoder alone.

A plain autoencoder on the mode of the posterior: no sampling and no KL term. Its latents are
brought to zero mean and unit spread, channel by channel, inside its own 1x1x1 convolutions. Then ``colours`` puts the
mean colours into directions of theirs that hardly vary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import HunyuanVideoCausalConv3d

from . import colours, world
from .optimisation import Optimiser, autocast, run_stage, save_atomically

# In units of the latents' spread: noise that denoising leaves must not change the decoded video.
DECODER_NOISE = 0.1
JOINT_NOISE = 0.05
CROP = 64


@dataclass(frozen=True)
class Sizes:
    """Crops or whole pictures per step of the first stage; (clips, frames) per step of the second, in turn; frames of
    the last."""

    crops: int = 16
    pictures: int = 6
    clips: tuple[tuple[int, int], ...] = ((2, 5), (1, 13))
    whole_frames: int = 17


@dataclass(frozen=True)
class Steps:
    """Steps of each stage: on single frames, on clips, and of the decoder alone."""

    image: int
    clip: int
    decoder: int


# From scratch, and from the weights of a finished checkpoint.
FROM_SCRATCH = Steps(1500, 850, 480)
CONTINUED = Steps(0, 0, 0)


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
    vae: AutoencoderKLHunyuanVideo, work_dir: Path, seed: int, steps: Steps, clips: int, sizes: Sizes, origin: str
) -> None:
    """Run all stages; before the last one, normalise the latents if they have changed, and put the colours into them.

    Args:
        clips: number of clips for the latents' statistics; the colours take five times as many.
        origin: what the weights of ``vae`` are before training, for the plan in the states.
    """
    kernels = [p for p in vae.parameters() if p.dim() == 5]
    others = [p for p in vae.parameters() if p.dim() != 5]
    plan = {"seed": seed, "origin": origin, "sizes": asdict(sizes)}
    with _single_frame_convolutions(vae):
        run_stage(
            "autoencoder-image",
            steps.image,
            work_dir,
            {"vae": vae},
            Optimiser(kernels, others, muon_lr=5e-3, adamw_lr=1e-3, newest_tap_only=True),
            lambda step: _image_loss(vae, np.random.default_rng([seed, 1, step]), sizes),
            plan=plan,
        )
    with _last_upsampling_in_float32(vae):
        run_stage(
            "autoencoder-clip",
            steps.clip,
            work_dir,
            {"vae": vae},
            Optimiser(kernels, others, muon_lr=1.2e-3, adamw_lr=2.4e-4),
            lambda step: _clip_loss(vae, np.random.default_rng([seed, 2, step]), sizes),
            plan=plan,
        )
    finished = work_dir / "autoencoder-latents.pt"
    if finished.exists():
        vae.load_state_dict(torch.load(finished, weights_only=True))
    else:
        if steps.image or steps.clip:
            normalise_latents(vae, np.random.default_rng([seed, 3]), clips, sizes.whole_frames)
        colours.put_into_latents(vae, np.random.default_rng([seed, 6]), 5 * clips)
        save_atomically(vae.state_dict(), finished)
    decoding = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    kernels, others = ([p for p in decoding if (p.dim() == 5) == is_kernel] for is_kernel in (True, False))
    with _last_upsampling_in_float32(vae):
        run_stage(
            "autoencoder-decoder",
            steps.decoder,
            work_dir,
            {"vae": vae},
            Optimiser(kernels, others, muon_lr=8e-4, adamw_lr=1.6e-4),
            lambda step: _decoder_loss(vae, np.random.default_rng([seed, 5, step]), sizes.whole_frames),
            plan=plan,
        )


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
    """On crops and on whole pictures in turn.

    The norms depend on the whole frame, and crops give them other statistics: trained on crops alone, green on
    grey decoded as yellow in whole frames.
    """
    crops = rng.uniform() < 0.5
    pixels, masks = _batch_of_crops(rng, sizes.crops, 1) if crops else _batch(rng, sizes.pictures, 1)
    with autocast():
        latents = encode(vae, pixels)
        again = decode(vae, latents + 0.1 * _noise_like(latents, rng))
    distance = _weighted_l1(again, pixels, 1 + 4 * masks)
    return distance + 1e-3 * latents.float().square().mean()


def _clip_loss(vae: AutoencoderKLHunyuanVideo, rng: np.random.Generator, sizes: Sizes) -> torch.Tensor:
    pixels, masks = _batch(rng, *sizes.clips[rng.integers(len(sizes.clips))])
    with autocast():
        latents = encode(vae, pixels)
    noisy = latents + JOINT_NOISE / vae.config.scaling_factor * _noise_like(latents, rng)
    distance = _decoded_loss(vae, noisy, pixels, masks, rng)
    return distance + 1e-4 * latents.float().square().mean()


def _decoder_loss(vae: AutoencoderKLHunyuanVideo, rng: np.random.Generator, num_frames: int) -> torch.Tensor:
    pixels, masks = _batch(rng, 1, num_frames)
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
    rng: np.random.Generator, size: tuple[int, int], num_frames: int
) -> tuple[torch.Tensor, torch.Tensor, world.Scene]:
    """A random clip of the training world: pixels [3, F, H, W] in -1..1 and object mask [1, F, H, W]."""
    combinations = world.training_combinations()
    scene = world.sample_scene(rng, combinations[rng.integers(len(combinations))], size, num_frames)
    frames = world.render(scene)
    masks = np.abs(frames - frames[:, :1, :1]).max(axis=-1, keepdims=True) > 0.05
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2) * 2 - 1
    return pixels, torch.from_numpy(masks.astype(np.float32)).permute(3, 0, 1, 2), scene


def _batch(rng: np.random.Generator, batch: int, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole clips in one of the two orientations."""
    size = (world.LANDSCAPE, world.PORTRAIT)[rng.integers(2)]
    pixels, masks = zip(*(_draw_clip(rng, size, num_frames)[:2] for _ in range(batch)), strict=True)
    return torch.stack(pixels), torch.stack(masks)


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
