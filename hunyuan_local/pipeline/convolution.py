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


def prefer_onednn(module: torch.nn.Module) -> None:
    """Have every 3D convolution of a module on the CPU done by oneDNN, where this build of torch has it."""
    if not cast("Callable[[], bool]", torch.backends.mkldnn.is_available)():
        return
    for convolution in module.modules():
        if isinstance(convolution, torch.nn.Conv3d) and convolution.padding_mode == "zeros":
            own = functools.partial(_convolve, convolution)
            convolution._conv_forward = own  # type: ignore[method-assign]  # of this one module alone


def _convolve(
    convolution: torch.nn.Conv3d, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """In the place of ``Conv3d._conv_forward``; what oneDNN does not take goes the usual way."""
    stride, padding = convolution.stride, convolution.padding
    dilation, groups = convolution.dilation, convolution.groups
    if input.device.type != "cpu" or input.dtype != torch.float32 or isinstance(padding, str):
        return torch.nn.functional.conv3d(input, weight, bias, stride, padding, dilation, groups)
    found = torch.ops.aten.mkldnn_convolution(input, weight, bias, padding, stride, dilation, groups)
    return cast(torch.Tensor, found)
