"""Convolutions over time and space by oneDNN, which torch leaves aside on a CPU where the input seems small to it.

torch asks how many elements the first four dimensions have, and does not look at the width: a small picture, or a tile
of one, gets its slow kernel (``use_mkldnn`` in ATen/native/Convolution.cpp). The autoencoder of the built-in
model decodes in half the time without it; frames move by rounding alone. Knows nothing about GPUs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import torch

from .torch_private import convolve_by_onednn, replace_convolution


def prefer_onednn(module: torch.nn.Module) -> None:
    """Have every 3D convolution of a module on the CPU done by oneDNN, where this build of torch has it."""
    if not cast("Callable[[], bool]", torch.backends.mkldnn.is_available)():
        return
    for convolution in module.modules():
        if isinstance(convolution, torch.nn.Conv3d) and convolution.padding_mode == "zeros":
            replace_convolution(convolution, functools.partial(_convolve, convolution))


def _convolve(
    convolution: torch.nn.Conv3d, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The layer's convolution; what oneDNN does not take goes the usual way."""
    if input.device.type != "cpu" or input.dtype != torch.float32 or isinstance(convolution.padding, str):
        stride, padding = convolution.stride, convolution.padding
        return torch.nn.functional.conv3d(
            input, weight, bias, stride, padding, convolution.dilation, convolution.groups
        )
    return convolve_by_onednn(input, weight, bias, convolution)
