"""All uses of undocumented parts of torch, in one place: an upgrade may change or remove them.

Tested with 2.13; ``tests/test_private_members.py`` names each member and fails if one is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch

Convolve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
Tensors = dict[str, Any]  # of a module: each value is a tensor or None


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


def set_allocator(settings: str) -> bool:
    """Set allocator options of the process, in the format of ``PYTORCH_ALLOC_CONF``; returns whether torch has them."""
    setter = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    if setter is None:
        return False
    try:
        setter(settings)
    except (ValueError, RuntimeError):  # an unknown key
        return False
    return True


def tensors_of(module: torch.nn.Module) -> tuple[Tensors, Tensors]:
    """The dictionaries in which a module holds its own parameters and buffers: ``_parameters`` and ``_buffers``."""
    return module._parameters, module._buffers


def version_of(tensor: torch.Tensor) -> int:
    """The number of in-place changes of a tensor, from ``_version``; 0 for inference tensors, which do not count."""
    return 0 if tensor.is_inference() else tensor._version


def is_wrapper(tensor: torch.Tensor) -> bool:
    """Whether a tensor consists of inner tensors, as torchao's quantized weights do, from ``__tensor_flatten__``."""
    return hasattr(tensor, "__tensor_flatten__")


def inner_tensors(wrapper: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors of one that :func:`is_wrapper`, from ``__tensor_flatten__``."""
    names: list[str] = wrapper.__tensor_flatten__()[0]  # type: ignore[attr-defined]
    for name in names:
        yield getattr(wrapper, name)


def swap(one: torch.Tensor, other: torch.Tensor) -> None:
    """Exchange two tensors' contents and devices, with ``torch.utils.swap_tensors``, which has no own page."""
    cast("Callable[[torch.Tensor, torch.Tensor], None]", torch.utils.swap_tensors)(one, other)
