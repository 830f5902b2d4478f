"""Puts the mean colours of their pixels into the latents, where a linear map, the latent preview, can read them.

Training leaves several directions of the latent space almost constant. Three of them take the colours, as a linear
function of the encoder's last features that least squares finds; the other thirteen stay as they are.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo

from . import world

LENGTHS = (17, 17, 33, 17, 5, 1)
# Weight of the latents that show some of the shape, which are few, against those of the background.
SHAPE_WEIGHT = 8.0
RIDGE = 1e-2
# Logarithm of the posterior's variance: as good as none, since sampling is never wanted.
LOG_VARIANCE = -20.0


def to_latent_grid(pixels: torch.Tensor) -> torch.Tensor:
    """Mean of the pixels of each latent: [B, C, F, H, W] to [B, C, (F-1)/4+1, H/8, W/8].

    The first latent stands for one frame, every other one for four; each for 8x8 pixels.
    """
    three_more_of_the_first = pixels[:, :, :1].expand(-1, -1, 3, -1, -1)
    return F.avg_pool3d(torch.cat([three_more_of_the_first, pixels], dim=2), (4, 8, 8))


@torch.no_grad()
def put_into_latents(vae: AutoencoderKLHunyuanVideo, rng: np.random.Generator, clips: int) -> None:
    """Rewrite the last convolution of the encoder and the first of the decoder, both in place.

    Expects latents of zero mean. Afterwards ``latents * scaling_factor`` has the whitened colours, of mean 0 and
    standard deviation 1, along the three directions in which it varied least, and the decoder ignores these
    directions until it is trained further.

    Args:
        clips: number of clips for the statistics and the least-squares problem.
    """
    last = _LastConvolution(vae)
    channels = vae.config.latent_channels
    features = last.inputs + 1
    gram, cross = (torch.zeros(features, columns, dtype=torch.float64) for columns in (features, 3))
    latent_moments, colour_moments = (torch.zeros(n, n, dtype=torch.float64) for n in (channels, 4))
    for pixels in _clips(rng, clips):
        rows = last.rows(pixels)
        colours = to_latent_grid(pixels)[0].flatten(1).T
        away = (colours - colours.median(dim=0).values).abs().amax(dim=1, keepdim=True) > 0.02
        weighted = (rows * (1 + SHAPE_WEIGHT * away)).T.double()
        gram += weighted @ rows.double()
        cross += weighted @ colours.double()
        latents = (rows @ last.weight.T).double()
        latent_moments += latents.T @ latents
        with_one = F.pad(colours, (0, 1), value=1.0).double()
        colour_moments += with_one.T @ with_one
    solution = torch.linalg.solve(gram + RIDGE * torch.eye(features), cross)
    count = colour_moments[3, 3]
    mean = colour_moments[3, :3] / count
    spread, axes = torch.linalg.eigh(colour_moments[:3, :3] / count - torch.outer(mean, mean))
    whitening = axes @ torch.diag(spread.rsqrt()) @ axes.T
    solution[-1] -= mean
    directions = torch.linalg.eigh(latent_moments).eigenvectors[:, :3]  # in the order of their variance
    kept = torch.eye(channels, dtype=torch.float64) - directions @ directions.T
    colour_rows = directions @ whitening @ solution.T / vae.config.scaling_factor
    last.set(kept @ last.weight.double() + colour_rows)
    first = vae.post_quant_conv
    first.weight.copy_((first.weight.flatten(1).double() @ kept)[..., None, None, None])


class _LastConvolution:
    """The encoder's last convolution and the 1x1x1 convolution behind it, as one matrix over patches of features.

    Attributes:
        weight: [channels, features of a patch + 1]; the last column is the bias.
    """

    def __init__(self, vae: AutoencoderKLHunyuanVideo):
        self.vae = vae
        self.causal = vae.encoder.conv_out
        self.inputs = self.causal.conv.weight[0].numel()
        channels = vae.config.latent_channels
        outer = vae.quant_conv.weight.flatten(1)[:channels]
        bias = outer @ self.causal.conv.bias + vae.quant_conv.bias[:channels]
        self.weight = torch.cat([outer @ self.causal.conv.weight.flatten(1), bias[:, None]], dim=1)

    def rows(self, pixels: torch.Tensor) -> torch.Tensor:
        """The patches of a clip's latents and a column of ones: [1, 3, F, H, W] to [latents, features + 1]."""
        seen: list[torch.Tensor] = []
        hook = self.causal.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        self.vae.encoder(pixels)
        hook.remove()
        patches = F.pad(seen[0], self.causal.time_causal_padding, mode=self.causal.pad_mode)
        for dimension in (2, 3, 4):
            patches = patches.unfold(dimension, self.causal.conv.kernel_size[dimension - 2], 1)
        rows = patches[0].permute(1, 2, 3, 0, 4, 5, 6).flatten(3).flatten(0, 2)
        return F.pad(rows, (0, 1), value=1.0)

    def set(self, weight: torch.Tensor) -> None:
        """Put a matrix like ``weight`` into the first of the two convolutions; the second passes its output on."""
        channels = len(weight)
        inner, outer = self.causal.conv, self.vae.quant_conv
        for parameter in (inner.weight, inner.bias, outer.weight, outer.bias):
            parameter.zero_()
        inner.weight[:channels] = weight[:, :-1].reshape(inner.weight[:channels].shape)
        inner.bias[:channels] = weight[:, -1]
        outer.weight[:channels, :channels, 0, 0, 0] = torch.eye(channels)
        outer.bias[channels:] = LOG_VARIANCE


def _clips(rng: np.random.Generator, count: int):
    """Clips of the training combinations, [1, 3, F, H, W] in -1..1, in both orientations and several lengths."""
    combinations = world.training_combinations()
    for number in range(count):
        scene = world.sample_scene(
            rng,
            combinations[number * 7 % len(combinations)],
            (world.LANDSCAPE, world.PORTRAIT)[number % 2],
            LENGTHS[number // 2 % len(LENGTHS)],
            anywhere=number % 4 > 1,
        )
        yield torch.from_numpy(world.render(scene)).permute(3, 0, 1, 2)[None] * 2 - 1
