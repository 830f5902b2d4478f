"""What is used of torch that it does not document, in one place: an upgrade may take it away or change it.

Tried with 2.13; ``tests/test_private_members.py`` names each member, and fails by its name when it is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

Convolve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def replace_convolution(convolution: torch.nn.Conv3d, convolve: Convolve) -> None:
    """Have a layer compute by ``convolve(input, weight, bias)``, which stands for its ``_conv_forward``."""
    layer: Any = convolution
    layer._conv_forward = convolve


def convolve_by_onednn(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, convolution: torch.nn.Conv3d
) -> torch.Tensor:
    """A convolution with a layer's sizes by ``aten::mkldnn_convolution``; float32 on the CPU alone."""
    sizes = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
    found: torch.Tensor = torch.ops.aten.mkldnn_convolution(input, weight, bias, *sizes)
    return found


def attend_on_cpu(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention [B, heads, n, head_dim] and the log-sum-exp of each row [B, heads, n], which no public call gives."""
    found, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    return found, log_sum


def free_pinned_memory() -> None:
    """Return page-locked memory that nothing holds; ``torch.accelerator.empty_host_cache`` is public in later torch."""
    free = getattr(torch.accelerator, "empty_host_cache", None) or torch._C._host_emptyCache
    free()


def set_allocator(settings: str) -> None:
    """Change settings of the process's allocator, as ``PYTORCH_ALLOC_CONF`` has them, where this torch knows them."""
    setter = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    if setter is not None:
        with contextlib.suppress(ValueError, RuntimeError):  # a key that it does not know; nothing depends on it
            setter(settings)
