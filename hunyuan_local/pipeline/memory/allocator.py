"""Keeps freed CPU memory in the process instead of returning it to the system.

glibc maps each large block separately and unmaps it when it is freed. For every tensor of some megabytes the kernel
then fills new pages with zeros, which on a CPU takes longer than the arithmetic (``benchmarks/vs_diffusers.py``).
Kept blocks are reused without this. Knows nothing about GPUs, whose memory torch's allocators keep.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys

import torch

from .device_allocator import prepare_device_allocator

# mallopt's parameters, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MOST = 2**31 - 1  # mallopt takes an int


@functools.cache
def keep_freed_memory() -> bool:
    """Make the C library keep freed blocks of up to 2 GiB for later tensors; affects the whole process.

    Kept memory counts as resident until :func:`give_back_memory`. Threads other than the main one have separate
    heaps, which this does not affect.

    Returns:
        Whether it worked; only glibc supports it.
    """
    libc = _glibc()
    if libc is None:
        return False
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, _MOST) and libc.mallopt(_M_TRIM_THRESHOLD, _MOST))


def give_back_memory() -> None:
    """Return kept free memory to the system; call it between stages that need blocks of different sizes."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def describe_allocator() -> str:
    """The allocator of this process: torch's on a GPU, otherwise the C library's; for ``doctor``."""
    if torch.cuda.is_available():
        return prepare_device_allocator()
    return "the C library's" if _glibc() is None else "glibc's; freed memory is kept while a model is loaded"


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError):  # another C library, whose settings stay as they are
        libc = ctypes.CDLL(None)
        if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")):
            return libc
    return None
