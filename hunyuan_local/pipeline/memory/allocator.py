"""Memory of the CPU that is not given back to the system only to be fetched again.

glibc maps each large block anew and unmaps it when it is freed, so that every tensor of some megabytes is filled
with zeros by the kernel, page by page, before it is written: on a CPU that takes longer than the arithmetic
(``benchmarks/vs_diffusers.py``). Kept blocks are used again. Knows nothing about devices: their
memory is kept by torch's own allocators.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys

# mallopt's parameters, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MOST = 2**31 - 1  # mallopt takes an int


@functools.cache
def keep_freed_memory() -> bool:
    """Have the C library keep freed blocks of up to 2 GiB for the next tensor; of effect in the whole process.

    What is kept stays in the resident size until :func:`give_back_memory`. Threads other than the main one have
    heaps of their own, to which this does not apply.

    Returns:
        Whether it could be done: only with glibc.
    """
    libc = _glibc()
    if libc is None:
        return False
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, _MOST) and libc.mallopt(_M_TRIM_THRESHOLD, _MOST))


def give_back_memory() -> None:
    """Give the system what is free and kept: between stages of which the second needs other sizes."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError):  # another C library, which then stays as it is
        libc = ctypes.CDLL(None)
        if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")):
            return libc
    return None
