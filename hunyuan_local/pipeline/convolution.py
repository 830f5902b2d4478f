"""Uses oneDNN for 3D convolutions on a CPU where torch would not, because it takes the input for small.

torch's heuristic (``use_mkldnn`` in ATen/native/Convolution.cpp) counts the elements of the first four dimensions
and ignores the width, so a small frame, or a tile of one, gets the slow kernel. With oneDNN the built-in model's
autoencoder decodes in half the time; frames differ only by rounding. Knows nothing about GPUs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import torch

from .torch_private import convolve_by_onednn, replace_convolution


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
