"""Seconds and peak memory of work on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from hunyuan_local.pipeline.memory.device import reset_peak
from hunyuan_local.planner.host_memory import reset_resident_peak, resident_peak


def dtype_on(device: str) -> torch.dtype:
    """The transformer's number format."""
    return torch.bfloat16 if device == "cuda" else torch.float32


def now(device: str) -> float:
    """Clock in seconds, after waiting for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(call: Callable[[], object], device: str) -> float:
    """Seconds of one call, until the device is done."""
    began = now(device)
    call()
    return now(device) - began


def median_seconds(call: Callable[[], object], device: str, calls: int = 5, most_seconds: float = 5.0) -> float:
    """Median seconds of a few calls after a warm-up; at least one, and no further call after ``most_seconds``."""
    call()
    found: list[float] = []
    while len(found) < calls and sum(found) < most_seconds:
        found.append(seconds_of(call, device))
    return statistics.median(found)


def reset_peaks() -> None:
    """Reset torch's and the kernel's peaks; where the latter fails, the peak covers all work so far."""
    reset_peak()
    reset_resident_peak()


def peaks(device: str) -> dict[str, Any]:
    """Peak bytes since the reset: of torch's allocator, and of the resident set, mapped files included."""
    return {
        "gpu_allocated_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "gpu_reserved_bytes": torch.cuda.max_memory_reserved() if device == "cuda" else None,
        "host_bytes": resident_peak(),
    }
