"""Chooses the attention kernel: the requested one, or the fastest exact one that works on this device.

Each kernel is probed first: sampled rows of its output on random tensors are compared with the formula in float32.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from ...config.kernels import BACKENDS, EXACT, FROM_HUB, IN_4_BITS, INEXACT
from ...errors import ConfigError, first_line
from ..diffusers_private import attention_backend
from ..memory.device import is_out_of_memory, out_of_memory
from .kernels import attend, is_in_library, library_name

WhyNot = Callable[[str], str | None]
Seconds = Callable[[str], float]

# Not a multiple of any kernel's tile size, as with real prompts.
_PROBE_TOKENS, _PROBE_HEADS = 333, 2
_SAMPLED_ROWS = 64
# Largest error of a row over its norm. A correct kernel in half precision stays below 0.005. One that skips 128 of
# 119,056 keys is off by 0.03, and more with fewer tokens; one that returns zeros, by 1.
_TOLERANCE, _TOLERANCE_IN_8_BITS, _TOLERANCE_IN_4_BITS = 0.02, 0.2, 0.5
# Long enough that the kernels' order is that of a video, short enough for 0.5 GiB and a fraction of a second.
_TIMED_TOKENS, _TIMED_CALLS = 16_384, 3
# The published order stays unless the other kernel is clearly faster: a saved state resumes only with its own kernel.
_CLEARLY = 0.95
# Devices on which published measurements disagree about which kernel is faster.
_DISPUTED: dict[tuple[int, int], tuple[frozenset[str], ...]] = {
    (8, 9): (frozenset({"flash", "native_cudnn"}), frozenset({"native", "native_cudnn"})),
    (9, 0): (frozenset({"native", "flash_4"}), frozenset({"native", "torch_flash_4"})),
    (12, 0): (frozenset({"native_cudnn", "flash"}), frozenset({"native_cudnn", "native_flash"})),
}


def choose_backend(
    requested: str,
    fastest_first: Sequence[str],
    why_not: WhyNot,
    rivals: Callable[[str], Sequence[str]] = lambda name: (),
    seconds: Seconds = lambda name: math.inf,
) -> str:
    """The kernel to use: the requested one, or for ``auto`` the first that works, or a rival that is faster.

    Args:
        requested: ``auto`` or one of ``config.kernels.BACKENDS``; a leading underscore, as in diffusers, is allowed.
        fastest_first: the order in which ``auto`` tries kernels.
        why_not: returns why a kernel of ``config.kernels.BACKENDS`` cannot be used here, or None if it can.
        rivals: returns the kernels that may be faster than this one; the first that works is timed against it.
        seconds: measures one call of a kernel.

    Raises:
        ConfigError: the kernel is unknown or does not work here; lists those that work, and why the others do not.
    """
    if requested == "auto":
        found = next((name for name in fastest_first if why_not(name) is None), None)
        if found is not None:
            rival = next((name for name in rivals(found) if why_not(name) is None), None)
            return found if rival is None or seconds(rival) >= _CLEARLY * seconds(found) else rival
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

    FlashAttention 3 is written for Hopper (9.0), FlashAttention 4 for Blackwell (10.0 and 11.0). On Hopper ``native``,
    which is cuDNN's kernel, beats the same kernel called by diffusers: 1.99 against 2.23 ms at 10,496 tokens, 297
    against 302 ms at 119,056 (``scripts/gpu_check`` on an H100); FlashAttention 2 takes 480 ms. See :func:`rivals`.

    Args:
        capability: CUDA compute capability; None for a CPU or a GPU of AMD.
    """
    if capability is None:
        return ("native",)
    if capability < (9, 0):
        return ("flash", "native")
    if capability < (10, 0):
        return ("flash_3", "torch_flash_3", "native")
    if capability < (12, 0):
        return ("flash_4", "torch_flash_4", "native_cudnn", "flash", "native")
    return ("native_cudnn", "flash", "native")


def fastest_ring_first(capability: tuple[int, int] | None) -> tuple[str, ...]:
    """The same for ring, which needs the log-sum-exp of each row: ``native`` returns it only on a CPU."""
    if capability is None:
        return ("native", "native_flash")
    of_torch = ("native_cudnn", "native_flash") if capability >= (9, 0) else ("native_flash", "native_cudnn")
    named = (own for name in fastest_first(capability) for own in (of_torch if name == "native" else (name,)))
    return tuple(dict.fromkeys(named))


def rivals(name: str, capability: tuple[int, int] | None) -> tuple[str, ...]:
    """Kernels that may be faster than this one on a device on which published measurements disagree.

    Ada (8.9): cuDNN's kernel or FlashAttention 2. Hopper (9.0), without FlashAttention 3: FlashAttention 4.
    Consumer Blackwell (12.x): FlashAttention 2.

    Args:
        name: the first kernel of :func:`fastest_first` that works.
        capability: CUDA compute capability; None for a CPU or a GPU of AMD.
    """
    if capability is None:
        return ()
    pairs = _DISPUTED.get((12, 0) if capability >= (12, 0) else capability, ())
    return tuple(other for pair in pairs if name in pair for other in pair if other != name)


def find_problem(backend: str, device: str, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why a kernel cannot be used on this device, in one line; None if a small call gives correct values.

    Args:
        backend: one of ``config.kernels.BACKENDS``.
        device: ``cpu`` or ``cuda``.
        dtype: dtype of queries, keys and values.
        head_dim: channels per head; 128 in the 13 B model.

    Raises:
        GpuMemoryError: the device is too full for the test call; that is not a fault of the kernel.
    """
    if device == "cpu" and backend != "native":
        return "needs a CUDA device"
    try:
        if is_in_library(backend):
            with attention_backend(library_name(backend)):  # checks that it is installed, or downloads it from the Hub
                pass
        return probe(backend, (1, _PROBE_TOKENS, _PROBE_HEADS, head_dim), torch.device(device), dtype)
    except Exception as error:  # each kernel raises different errors
        if is_out_of_memory(error):  # falling back to a slower kernel would hide the shortage
            raise out_of_memory(error, "load") from None
        return first_line(error)


@torch.no_grad()
def probe(backend: str, shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype) -> str | None:
    """Call a kernel on random tensors; returns how wrong its values are, or None if they are correct.

    A kernel can be correct for short tensors and wrong for long ones, so its values are checked at the length and with
    the number of heads of the run. Takes the memory of four tensors of this shape.

    Args:
        backend: one of ``config.kernels.BACKENDS``.
        shape: [1, tokens, heads, head_dim].
        device: of the tensors.
        dtype: of the tensors.

    Raises:
        Exception: the kernel is not installed or does not support the tensors; each kernel raises different errors.
    """
    query, key, value = _random(shape, device, dtype)
    found = attend(backend, query, key, value)
    error = largest_error(found, query, key, value)
    allowed = _TOLERANCE
    if backend in IN_4_BITS:
        allowed = _TOLERANCE_IN_4_BITS
    elif backend not in EXACT and "sage" in backend:
        allowed = _TOLERANCE_IN_8_BITS
    # Not ``error > allowed``, which is false for NaN.
    return None if error <= allowed else f"wrong values at {shape[1]:,} tokens, off by {error:.1%} of their size"


def largest_error(found: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> float:
    """Largest ``|found - expected| / |expected|`` over the heads of sampled rows, with ``|.|`` the norm over channels.

    ``expected = softmax(q k^T / sqrt(head_dim)) v`` in float32, of the rows from the first to the last at equal
    distances.

    Args:
        found: output of a kernel, [1, tokens, heads, head_dim].
        query, key, value: its input, of the same shape.
    """
    tokens, heads, head_dim = found.shape[1:]
    rows = torch.linspace(0, tokens - 1, min(_SAMPLED_ROWS, tokens), dtype=torch.float64).round().long()
    rows = rows.to(found.device)
    errors = []
    for head in range(heads):  # one at a time: the float32 copies of all heads would take the memory of four tensors
        weights = query[0, rows, head].float() @ key[0, :, head].float().T / math.sqrt(head_dim)
        expected = weights.softmax(-1) @ value[0, :, head].float()
        errors.append(((found[0, rows, head].float() - expected).norm(dim=-1) / expected.norm(dim=-1)).max())
    return torch.stack(errors).max().item()


@torch.no_grad()
def measured_seconds(backend: str, heads: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> float:
    """Median seconds of a few calls on a CUDA device after one to warm up; infinite if the device is too full."""
    shape = (1, _TIMED_TOKENS, heads, head_dim)
    try:
        query, key, value = _random(shape, device, dtype)
        call = functools.partial(attend, backend, query, key, value)
        call()
        return statistics.median(_timed(call, device) for _ in range(_TIMED_CALLS))
    except Exception as error:  # each kernel raises different errors
        if is_out_of_memory(error):
            return math.inf  # the published order stays
        raise


def _random(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Three tensors from a separate generator, so that the random numbers of the program stay as they are."""
    own = torch.Generator(device).manual_seed(0)
    return (torch.randn(shape, generator=own, device=device, dtype=dtype) for _ in range(3))


def _timed(call: Callable[[], torch.Tensor], device: torch.device) -> float:
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    torch.cuda.synchronize(device)
    return time.perf_counter() - began
