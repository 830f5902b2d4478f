"""The machine: its card, its clocks, and the rates of copies and matrix products, on which all other results depend."""

from __future__ import annotations

import functools
import statistics
import subprocess
from collections.abc import Callable

import torch

from hunyuan_local.bench.results.machine_card import hardware_card

from .task import Record
from .timing import dtype_on, median_seconds, seconds_of

_ROUNDS = 3
_CLOCKS = "clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active"


def describe(record: Record, *, device: str, tokens: int, width: int, pieces: int, piece_bytes: int) -> None:
    """Fill ``card``; ``copies``, with GB/s of each kind; and ``rows``, matrix products with clocks."""
    record |= {"card": hardware_card(), "idle": clocks(device)}
    record.save()
    record["copies"] = {"bytes": pieces * piece_bytes, "rows": []}
    for way, copy in _copies(device, pieces, piece_bytes).items():
        rates = [pieces * piece_bytes / seconds_of(copy, device) / 1e9 for _ in range(_ROUNDS)]
        record["copies"]["rows"].append({"way": way, "gb_per_s": rates, "median": statistics.median(rates)})
        record.save()
    for inner, columns in ((width, width), (width, 3 * width), (width, 4 * width), (5 * width, width)):
        with record.row(product=f"{tokens} x {inner} x {columns}") as row:
            x, weight = (torch.randn(n, inner, device=device, dtype=dtype_on(device)) for n in (tokens, columns))
            seconds = median_seconds(functools.partial(torch.nn.functional.linear, x, weight), device, calls=10)
            row |= {"milliseconds": seconds * 1e3, "tflops": 2 * tokens * inner * columns / seconds / 1e12}
            row["clocks"] = clocks(device)


def clocks(device: str) -> str | None:
    """The GPU's clocks, power, temperature and reasons for lower clocks, as ``nvidia-smi`` prints them."""
    if device != "cuda":
        return None
    command = ["nvidia-smi", f"--query-gpu={_CLOCKS}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None


def _copies(device: str, pieces: int, size: int) -> dict[str, Callable[[], object]]:
    """Each kind of copy; those to new memory are like ``module.to``."""
    plain = [torch.ones(size, dtype=torch.uint8) for _ in range(pieces)]
    there = [piece.to(device) for piece in plain]
    ways: dict[str, Callable[[], object]] = {
        "to the device, from plain memory": lambda: _copy(plain, there),
        "from the device, to new plain memory": lambda: [piece.to("cpu", copy=True) for piece in there],
        "from the device, to plain memory that is there": lambda: _copy(there, plain),
        "from the device, to the device": lambda: [piece.clone() for piece in there],
    }
    if device == "cuda":
        locked = [piece.pin_memory() for piece in plain]
        ways |= {
            "to the device, from page-locked memory": lambda: _copy(locked, there),
            "from the device, to page-locked memory": lambda: _copy(there, locked),
            "page-locking a copy": lambda: [piece.pin_memory() for piece in plain],
        }
    return ways


def _copy(given: list[torch.Tensor], there: list[torch.Tensor]) -> None:
    for source, target in zip(given, there, strict=True):
        target.copy_(source, non_blocking=True)
