"""Seconds and peak memory of work on a device."""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from hunyuan_local.pipeline.memory.device import free_device


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


def reset_peaks(device: str) -> None:
    """Reset torch's and the kernel's peaks; where the latter fails, the peak covers all work so far."""
    if device == "cuda":
        torch.cuda.init()  # peaks can be reset only after this
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peaks(device: str) -> dict[str, Any]:
    """Peak bytes since the reset: of torch's allocator, and of the resident set, mapped files included."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    resident = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return {
        "gpu_allocated_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "gpu_reserved_bytes": torch.cuda.max_memory_reserved() if device == "cuda" else None,
        "host_bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if resident is None else resident),
    }


@contextlib.contextmanager
def row_of(record: dict[str, Any], save: Callable[[], None], **fields: Any) -> Iterator[dict[str, Any]]:
    """A row of ``record["rows"]`` to fill; an error inside becomes its ``error``, because any is a result."""
    free_device()  # also of what an error before has kept
    row = dict(fields)
    record.setdefault("rows", []).append(row)
    try:
        yield row
    except Exception as error:  # such as a missing library, or a GPU without the number format
        row["error"] = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
    save()
