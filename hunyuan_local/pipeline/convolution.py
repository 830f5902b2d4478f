"""Makes the autoencoder decode faster and in less memory on a CPU; frames differ only by rounding.

- oneDNN computes 3D convolutions where torch would not, because it takes the input for small. torch's heuristic
  (``use_mkldnn`` in ATen/native/Convolution.cpp) counts the elements of the first four dimensions and ignores the
  width, so a small frame, or a tile of one, gets the slow kernel. With oneDNN the built-in model's autoencoder decodes
  in half the time.
- Padding, upsampling and convolution run on a few frames at a time. diffusers makes a padded copy of all frames, and an
  upsampled one before it, and oneDNN reorders input and output; for the frames of one slice these are small.
- Activations are computed in place: their input is always the output of a normalization.

Knows nothing about GPUs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F

from .diffusers_private import HunyuanVideoCausalConv3d, HunyuanVideoUpsampleCausal3D
from .torch_private import convolve_by_onednn, replace_convolution

# A slice has frames for this many bytes of input and output, and at least a few: each slice pads again the two frames
# before it, on which its first ones depend.
_SLICE_BYTES = 64 * 2**20
_LEAST_FRAMES = 4


def decode_in_slices(decoder: torch.nn.Module) -> None:
    """Run a decoder's causal convolutions and upsampling on a few frames at a time, and its activations in place."""
    for module in decoder.modules():
        layer: Any = module
        if isinstance(module, HunyuanVideoUpsampleCausal3D):
            layer.forward = functools.partial(_upsample, module)
        elif isinstance(module, HunyuanVideoCausalConv3d):
            layer.forward = functools.partial(_convolve_frames, module)
        elif isinstance(module, torch.nn.SiLU):
            module.inplace = True


def _convolve_frames(layer: HunyuanVideoCausalConv3d, frames: torch.Tensor) -> torch.Tensor:
    """diffusers' ``HunyuanVideoCausalConv3d.forward``."""
    return _in_slices(layer, lambda start, stop: frames[:, :, start:stop], frames.shape[2])


def _upsample(layer: HunyuanVideoUpsampleCausal3D, frames: torch.Tensor) -> torch.Tensor:
    """diffusers' ``HunyuanVideoUpsampleCausal3D.forward``: each frame but the first is repeated in time."""
    times, *sides = layer.upsample_factor

    def upsampled(start: int, stop: int) -> torch.Tensor:
        sources = torch.arange(start, stop, device=frames.device).sub_(1).div_(times, rounding_mode="floor").add_(1)
        return F.interpolate(frames.index_select(2, sources), scale_factor=(1, *sides), mode="nearest")

    return _in_slices(layer.conv, upsampled, 1 + (frames.shape[2] - 1) * times)


def _in_slices(layer: HunyuanVideoCausalConv3d, take: Callable[[int, int], torch.Tensor], total: int) -> torch.Tensor:
    """Pad and convolve ``total`` frames, slice by slice; ``take(start, stop)`` returns frames of the input."""
    *sides, before, _ = layer.time_causal_padding
    found: torch.Tensor | None = None
    start, stop = 0, min(_LEAST_FRAMES, total)
    while start < total:
        first = start - before
        frames = take(max(first, 0), stop)
        if any(sides) or before:
            frames = F.pad(frames, (*sides, max(-first, 0), 0), mode=layer.pad_mode)
        piece: torch.Tensor = layer.conv(frames)
        if stop - start == total:
            return piece
        if found is None:
            found = piece.new_empty(*piece.shape[:2], total, *piece.shape[3:])
            each = (frames.nbytes + piece.nbytes) // frames.shape[2]
            step = max(_SLICE_BYTES // each, _LEAST_FRAMES)
        found[:, :, start:stop] = piece
        start, stop = stop, min(stop + step, total)
    assert found is not None  # total is at least 1
    return found


def prefer_onednn(module: torch.nn.Module) -> None:
    """Run every 3D convolution of a module on the CPU with oneDNN, if this build of torch has it."""
    if not cast("Callable[[], bool]", torch.backends.mkldnn.is_available)():
        return
    for convolution in module.modules():
        if isinstance(convolution, torch.nn.Conv3d) and convolution.padding_mode == "zeros":
            replace_convolution(convolution, functools.partial(_convolve, convolution))


def _convolve(
    convolution: torch.nn.Conv3d, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The layer's convolution; inputs that oneDNN does not support use torch's default."""
    if input.device.type != "cpu" or input.dtype != torch.float32 or isinstance(convolution.padding, str):
        stride, padding = convolution.stride, convolution.padding
        return torch.nn.functional.conv3d(
            input, weight, bias, stride, padding, convolution.dilation, convolution.groups
        )
    return convolve_by_onednn(input, weight, bias, convolution)
