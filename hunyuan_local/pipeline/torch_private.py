"""All uses of undocumented parts of torch, in one place: an upgrade may change or remove them.

Tested with 2.13; ``tests/test_private_members.py`` names each member and fails if one is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

Convolve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def replace_convolution(convolution: torch.nn.Conv3d, convolve: Convolve) -> None:
    """Make a layer compute ``convolve(input, weight, bias)`` by replacing its ``_conv_forward``."""
    layer: Any = convolution
    layer._conv_forward = convolve


def convolve_by_onednn(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, convolution: torch.nn.Conv3d
) -> torch.Tensor:
    """Convolve with a layer's settings by ``aten::mkldnn_convolution``; only float32 on the CPU."""
    sizes = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
    found: torch.Tensor = torch.ops.aten.mkldnn_convolution(input, weight, bias, *sizes)
    return found


def attend_on_cpu(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention [B, heads, n, head_dim] and the log-sum-exp of each row [B, heads, n], which no public call returns."""
    found, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    return found, log_sum


def gelu_into(x: torch.Tensor, approximate: str, out: torch.Tensor) -> None:
    """``out = gelu(x)``, for which ``torch.nn.functional.gelu`` has no argument; ``out`` may have gaps between rows."""
    torch.ops.aten.gelu.out(x, approximate=approximate, out=out)


def free_pinned_memory() -> None:
    """Free unused page-locked host memory; ``torch.accelerator.empty_host_cache`` is public in later torch."""
    free = getattr(torch.accelerator, "empty_host_cache", None) or torch._C._host_emptyCache
    free()


def set_allocator(settings: str) -> None:
    """Set allocator options of the process, in the format of ``PYTORCH_ALLOC_CONF``, if this torch supports them."""
    setter = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    if setter is not None:
        with contextlib.suppress(ValueError, RuntimeError):  # an unknown key; nothing depends on it
            setter(settings)
