"""Chooses the attention kernel: the requested one, or the fastest one that works on this device.

Each kernel is tried on small tensors first, and its output is compared with that of ``native``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...errors import ConfigError, first_line
from ..diffusers_private import AttentionBackendName, attention_backend, dispatch_attention_fn
from ..memory.device import is_out_of_memory, out_of_memory

# diffusers' backend names, without the leading underscore that some of them have. Its varlen kernels (for texts of
# different lengths) are not needed without a mask; kernels for other hardware are not listed.
EXACT = ("native", "native_cudnn", "native_flash", "native_efficient", "flash", "flash_3", "xformers")
INEXACT = ("sage",)  # quantizes queries and keys to int8
# These download a compiled kernel from the Hub, so they are used only if the user names them.
FROM_HUB = ("flash_hub", "flash_3_hub", "flash_4_hub", "sage_hub")
BACKENDS = (*EXACT, *INEXACT, *FROM_HUB)

WhyNot = Callable[[str], str | None]

# Not a multiple of any kernel's tile size, as with real prompts.
_PROBE_TOKENS = 333
# In half precision a correct kernel differs by less than 0.005; one that skips a single key, by more than 0.1.
_PROBE_TOLERANCE = 0.05


def choose_backend(requested: str, fastest_first: Sequence[str], why_not: WhyNot) -> str:
    """The kernel to use: the requested one, or for ``auto`` the first that works.

    Args:
        requested: ``auto`` or one of ``BACKENDS``; a leading underscore, as in diffusers, is allowed.
        fastest_first: the order in which ``auto`` tries kernels.
        why_not: returns why a kernel of ``BACKENDS`` cannot be used here, or None if it can.

    Raises:
        ConfigError: the kernel is unknown or does not work here; lists those that work, and why the others do not.
    """
    if requested == "auto":
        found = next((name for name in fastest_first if why_not(name) is None), None)
        if found is not None:
            return found
        problem: str | None = "no kernel works here"
    else:
        name = requested.lower().removeprefix("_")
        problem = why_not(name) if name in BACKENDS else "not known"
        if problem is None:
            return name
    reasons = {other: why_not(other) for other in (*EXACT, *INEXACT)}
    working = ", ".join(["auto", *(other for other, reason in reasons.items() if reason is None)])
    others = "; ".join(f"{other}: {reason}" for other, reason in reasons.items() if reason is not None)
    raise ConfigError(
        f"attention_backend={requested!r}: {problem}. Use one that works here: {working}. The others do not "
        f"({others}); {', '.join(FROM_HUB)} download their kernel from the Hub when you name them"
    )


def fastest_first(capability: tuple[int, int] | None) -> tuple[str, ...]:
    """Exact kernels for a device, fastest first: by their authors' figures, and measured only on Hopper.

    FlashAttention 3 is written for Hopper (9.0). There ``native`` beats cuDNN's kernel: 1.99 against 2.23 ms
    at 10,496 tokens, 297 against 302 ms at 119,056 (``scripts/gpu_check`` on an H100). From Blackwell on,
    cuDNN's kernel is reported to be faster. ``native`` lets torch choose; without a mask that is FlashAttention 2.

    Args:
        capability: CUDA compute capability; None for a CPU.
    """
    if capability is None:
        return ("native",)
    if capability < (9, 0):
        return ("flash", "native")
    if capability < (10, 0):
        return ("flash_3", "native")
    return ("native_cudnn", "flash", "native")


@torch.no_grad()
def find_problem(backend: str, device: str, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why a kernel cannot be used on this device, in one line; None if a small call gives correct values.

    Args:
        backend: one of ``BACKENDS``.
        device: ``cpu`` or ``cuda``.
        dtype: dtype of queries, keys and values.
        head_dim: channels per head; 128 in the 13 B model.

    Raises:
        GpuMemoryError: the device is too full for the test call; that is not a fault of the kernel.
    """
    if device == "cpu" and backend != "native":
        return "needs a CUDA device"
    generator = torch.Generator().manual_seed(0)
    # [batch, tokens, heads, head_dim], drawn on the CPU so that the device's random generator keeps its state.
    query, key, value = (torch.randn(1, _PROBE_TOKENS, 2, head_dim, generator=generator) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    )
    name = library_name(backend)
    try:
        with attention_backend(name):  # checks that it is installed, or downloads it from the Hub
            pass
        found = dispatch_attention_fn(*(x.to(device, dtype) for x in (query, key, value)), backend=name).float().cpu()
    except Exception as error:  # each kernel raises different errors
        if is_out_of_memory(error):  # falling back to a slower kernel would hide the shortage
            raise out_of_memory(error, "load") from None
        return first_line(error)
    distance = (found.transpose(1, 2) - expected).abs().max().item()
    return None if distance < _PROBE_TOLERANCE else f"wrong values, off by {distance:.3g}"


def library_name(backend: str) -> AttentionBackendName:
    """diffusers' name of one of ``BACKENDS``, with the leading underscore if it has one."""
    known = {name.value for name in AttentionBackendName}
    return AttentionBackendName(backend if backend in known else f"_{backend}")
