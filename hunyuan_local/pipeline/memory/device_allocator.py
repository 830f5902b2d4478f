"""Sets torch's GPU allocator once per process, so that it reserves less than its default does.

By default, freed blocks that are too small for the next tensor stay reserved. On an H100 torch reserved 1.66 times what
tensors needed at most at 1280x720 and 129 frames, and 1.91 times with group offload. Expandable segments give blocks
of all sizes one range of addresses; their effect has not been measured on this model. torch supports them on Linux with
CUDA; on WSL the driver fails on some cards (pytorch #192330).
"""

from __future__ import annotations

import functools
import os
import platform
import sys

import torch

from ..torch_private import set_allocator

# torch reads the last of them on AMD GPUs only.
CHOICES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
# Page-locked copies above 1 MiB take their own size instead of the next power of two, which can nearly double the main
# memory that they need; they are not kept for reuse. Before torch 2.13 the setting does not exist. Instead of
# ``pinned_max_round_threshold_mb``, with which torch 2.13 may reuse a freed copy that is too small (pytorch #192722).
_PINNED = "pinned_max_cached_size_mb:1"


@functools.cache
def prepare_device_allocator() -> str:
    """Set the allocator of this process, before its first tensor on a GPU; later calls change nothing.

    Settings in the environment replace all of this package's.

    Returns:
        The allocator in use and the reason, for ``doctor``.
    """
    chosen = [f"{name}={os.environ[name]}" for name in CHOICES if os.environ.get(name)]
    if chosen:
        return f"{', '.join(chosen)}, from the environment"
    problem = why_not_expandable()
    if problem is None and not _set("expandable_segments:True"):
        problem = "this torch has no setting for expandable segments"
    if problem is None and not _can_allocate():
        problem = "the GPU's driver refuses expandable segments"
    if problem is None:
        return "expandable segments"
    _set("expandable_segments:False")
    return f"torch's default: {problem}"


def why_not_expandable() -> str | None:
    """Why expandable segments are not tried on this machine; None if they are."""
    if not sys.platform.startswith("linux"):
        return f"torch has no expandable segments on {sys.platform}"
    if torch.version.cuda is None:
        return "torch has expandable segments for CUDA only"
    if "microsoft" in platform.release().lower():
        return "expandable segments fail on WSL with some cards"
    return None


def _set(segments: str) -> bool:
    return set_allocator(f"{segments},{_PINNED}") or set_allocator(segments)


def _can_allocate() -> bool:
    """Whether the driver has what expandable segments need; some virtual GPUs do not."""
    try:
        torch.empty(1, device="cuda")
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True
