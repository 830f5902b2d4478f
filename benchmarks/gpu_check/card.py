"""The machine: its card, its clocks, and the rates of copies and matrix products, on which all other results depend."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable
from typing import Any

import torch

from hunyuan_local.bench.results.machine_card import hardware_card

from .timing import median_seconds, seconds_of

_ROUNDS = 3
_CLOCKS = "clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active"


def describe(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Fill ``record``: ``card``; ``copies``, with GB/s of each kind; ``rows``, matrix products with clocks.

    Args:
        task: ``device``, ``tokens`` and ``width`` of the products, ``pieces`` and ``piece_bytes`` of the copies.
        record: see above.
        save: saves the current record.
    """
    record["card"] = hardware_card()
    record["idle"] = clocks(task["device"])
    save()
    record["copies"] = {"bytes": task["pieces"] * task["piece_bytes"], "rows": []}
    for way, rates in _copies(task["device"], task["pieces"], task["piece_bytes"]):
        record["copies"]["rows"].append({"way": way, "gb_per_s": rates, "median": statistics.median(rates)})
        save()
    record["rows"] = []
    dtype = torch.bfloat16 if task["device"] == "cuda" else torch.float32
    width = task["width"]
    for inner, columns in ((width, width), (width, 3 * width), (width, 4 * width), (5 * width, width)):
        x, weight = (torch.randn(n, inner, device=task["device"], dtype=dtype) for n in (task["tokens"], columns))
        seconds = median_seconds(lambda a=x, b=weight: torch.nn.functional.linear(a, b), task["device"], calls=10)
        rate = 2 * task["tokens"] * inner * columns / seconds / 1e12
        shape = f"{task['tokens']} x {inner} x {columns}"
        record["rows"].append({"product": shape, "milliseconds": seconds * 1e3, "tflops": rate})
        record["rows"][-1]["clocks"] = clocks(task["device"])
        save()


def clocks(device: str) -> str | None:
    """The GPU's clocks, power, temperature and reasons for lower clocks, as ``nvidia-smi`` prints them."""
    if device != "cuda":
        return None
    command = ["nvidia-smi", f"--query-gpu={_CLOCKS}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None


def _copies(device: str, pieces: int, size: int) -> list[tuple[str, list[float]]]:
    """GB/s of every round of each kind of copy; those to new memory are like ``module.to``."""
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
    return [(way, [pieces * size / seconds_of(do, device) / 1e9 for _ in range(_ROUNDS)]) for way, do in ways.items()]


def _copy(given: list[torch.Tensor], there: list[torch.Tensor]) -> None:
    for source, target in zip(given, there, strict=True):
        target.copy_(source, non_blocking=True)
