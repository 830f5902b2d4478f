"""Transfer rates between main memory and the GPU, which determine the speed of every offload mode."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

# The size of four transformer blocks, in pieces of about the size of their matrices.
PIECES, PIECE_BYTES = 32, 64 * 2**20
_ROUNDS = 4


def measure(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Time each kind of copy, and fill ``record``.

    Args:
        task: ``device``; optionally ``pieces`` and ``piece_bytes``.
        record: gets ``bytes`` and ``rows``, each with ``way``, ``gb_per_s`` of every round in order, and ``median``.
        save: saves the current record.
    """
    device = torch.device(task["device"])
    pieces, size = task.get("pieces", PIECES), task.get("piece_bytes", PIECE_BYTES)
    plain = [torch.ones(size, dtype=torch.uint8) for _ in range(pieces)]
    there = [piece.to(device) for piece in plain]
    # Copies to newly allocated memory, like module.to("cpu"), and to existing memory.
    ways: dict[str, Callable[[], Any]] = {
        "to the device, from plain memory": lambda: _copy(plain, there),
        "from the device, to new plain memory": lambda: [piece.to("cpu", copy=True) for piece in there],
        "from the device, to plain memory that is there": lambda: _copy(there, plain),
    }
    if device.type == "cuda":
        locked = [piece.pin_memory() for piece in plain]
        ways |= {
            "to the device, from page-locked memory": lambda: _copy(locked, there),
            "from the device, to page-locked memory": lambda: _copy(there, locked),
            "page-locking a copy": lambda: [piece.pin_memory() for piece in plain],
        }
    record |= {"bytes": pieces * size, "rows": []}
    for way, do in ways.items():
        rates = [pieces * size / _timed(do, device) / 1e9 for _ in range(_ROUNDS)]
        record["rows"].append({"way": way, "gb_per_s": rates, "median": statistics.median(rates)})
        save()


def _copy(given: list[torch.Tensor], there: list[torch.Tensor]) -> None:
    for source, target in zip(given, there, strict=True):
        target.copy_(source, non_blocking=True)


def _timed(do: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device is done, including freeing the result."""
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronise()
    began = time.perf_counter()
    do()
    synchronise()
    return time.perf_counter() - began
