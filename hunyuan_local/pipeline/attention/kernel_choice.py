"""Which kernel computes the attention: the fastest one that works on this device, or the one that was asked for.

A kernel is tried on small tensors before it is taken, and its numbers are compared with those of ``native``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...errors import ConfigError, first_line
from ..diffusers_private import AttentionBackendName, attention_backend, dispatch_attention_fn
from ..memory.device import is_out_of_memory, out_of_memory

# Names are the library's, without the underscore that some begin with. Its kernels for text of several
# lengths (varlen) are of no use without a mask, and those for other hardware are left out.
EXACT = ("native", "native_cudnn", "native_flash", "native_efficient", "flash", "flash_3", "xformers")
INEXACT = ("sage",)  # queries and keys in int8
# Fetched from the Hub as programs, so only when asked for by name.
FROM_HUB = ("flash_hub", "flash_3_hub", "flash_4_hub", "sage_hub")
BACKENDS = (*EXACT, *INEXACT, *FROM_HUB)

WhyNot = Callable[[str], str | None]

# A length that is no multiple of a kernel's tile, as with real prompts.
_PROBE_TOKENS = 333
# In half precision a right kernel is off by less than 0.005; one that overlooks a single key, by more than 0.1.
_PROBE_TOLERANCE = 0.05


def choose_backend(requested: str, fastest_first: Sequence[str], why_not: WhyNot) -> str:
    """The kernel to use: the first that works if ``auto`` is requested, else the requested one.

    Args:
        requested: ``auto`` or one of ``BACKENDS``; a leading underscore, as the library has it, is allowed.
        fastest_first: what ``auto`` tries, in this order.
        why_not: why a kernel of ``BACKENDS`` cannot be used here, or None if it can.

    Raises:
        ConfigError: unknown, or of no use here; lists what works, and why the others do not.
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
        f"({others}); {', '.join(FROM_HUB)} fetch their kernel from the Hub when asked for by name"
    )


def fastest_first(capability: tuple[int, int] | None) -> tuple[str, ...]:
    """Exact kernels for a device, the fastest first, as their authors publish it; measured on Hopper alone.

    FlashAttention 3 is written for Hopper (9.0), where ``native`` is ahead of cuDNN's kernel: 1.99 against
    2.23 ms at 10,496 tokens, 297 against 302 at 119,056 (``scripts/gpu_check`` on an H100). From Blackwell
    on cuDNN's is said to be ahead. ``native`` lets torch choose, which without a mask is FlashAttention 2.

    Args:
        capability: CUDA compute capability; None is a CPU.
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
    """Why a kernel cannot be used on this device, in a line; None if a small call gives right values.

    Args:
        backend: one of ``BACKENDS``.
        device: ``cpu`` or ``cuda``.
        dtype: that of queries, keys and values.
        head_dim: size of a head, 128 in the 13 B model.

    Raises:
        GpuMemoryError: the device has no room for the call, which says nothing about the kernel.
    """
    if device == "cpu" and backend != "native":
        return "needs a CUDA device"
    generator = torch.Generator().manual_seed(0)
    # [batch, tokens, heads, head_dim]: drawn on the CPU, so that the device's generator is left alone.
    query, key, value = (torch.randn(1, _PROBE_TOKENS, 2, head_dim, generator=generator) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    )
    name = library_name(backend)
    try:
        with attention_backend(name):  # checks what is installed, and fetches a kernel from the Hub
            pass
        found = dispatch_attention_fn(*(x.to(device, dtype) for x in (query, key, value)), backend=name).float().cpu()
    except Exception as error:  # each kernel has errors of its own
        if is_out_of_memory(error):  # to go on with a slower kernel would hide it
            raise out_of_memory(error, "load") from None
        return first_line(error)
    distance = (found.transpose(1, 2) - expected).abs().max().item()
    return None if distance < _PROBE_TOLERANCE else f"wrong values, off by {distance:.3g}"


def library_name(backend: str) -> AttentionBackendName:
    """The library's name of one of ``BACKENDS``; some of its names begin with an underscore, which ours leave out."""
    known = {name.value for name in AttentionBackendName}
    return AttentionBackendName(backend if backend in known else f"_{backend}")


# The three projections of an attention layer, and the norms of its queries and keys: those of the image, which in
# single-stream blocks are those of the text too, and those of the text in dual-stream blocks.
