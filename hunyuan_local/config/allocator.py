"""How torch's allocators are set in this process, without importing torch.

The package sets them before the first allocation, unless the user did so in the environment.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache

# In the order in which torch reads them; the second is the older name of the first, the third is for AMD's GPUs.
VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
# The first torch whose page-locked allocations can take their own size (``pinned_max_cached_size_mb``).
EXACT_PINNED_SINCE = (2, 13)


@dataclass(frozen=True)
class Allocator:
    """What the plan must know about torch's allocators.

    Attributes:
        expandable: whether GPU memory is in expandable segments, which leave fewer gaps.
        exact_pinned: whether page-locked allocations above 1 MiB take their own size; otherwise the next power of two.
    """

    expandable: bool = True
    exact_pinned: bool = True


# As the package sets them on Linux.
AS_SET = Allocator()


def user_settings() -> dict[str, str]:
    """The user's allocator settings in the environment; empty if there are none."""
    text = next((value for name in VARIABLES if (value := os.environ.get(name))), "")
    pairs = (item.partition(":") for item in text.split(","))
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip()}


def this_allocator(*, rocm: bool = False) -> Allocator:
    """The allocators of this process as the package sets them, or as the user does.

    Args:
        rocm: whether torch is a build for AMD's GPUs, for which the package leaves the default, as on WSL.
    """
    chosen = user_settings()
    expandable = sys.platform == "linux" and not rocm and "microsoft" not in platform.release().lower()
    exact = _torch_version() >= EXACT_PINNED_SINCE
    if chosen:
        expandable = chosen.get("expandable_segments", "").lower() == "true"
        exact &= bool({"pinned_max_round_threshold_mb", "pinned_max_cached_size_mb"} & chosen.keys())
    return Allocator(expandable, exact)


@cache
def _torch_version() -> tuple[int, ...]:
    """(major, minor) of the installed torch; that of ``EXACT_PINNED_SINCE`` if it is not installed.

    Searching for it takes milliseconds, and a plan asks for it many times.
    """
    try:
        found = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return EXACT_PINNED_SINCE
    return tuple(int(part) for part in found.split(".")[:2])
