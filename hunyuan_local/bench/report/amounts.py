"""Formats numbers and names the same way in reports, plots and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..results.result import Target
from ..results.statistics import Ratio, Request, Work

_UNITS = {"gpu": "GPU", "process": "process", "mixed": "GPU or process"}
UNKNOWN = "-"


def number(value: float) -> str:
    """Four significant digits, such as 0.01234, 12.34 or 12345; very small and very large numbers as 1.234e+09."""
    if value == 0:
        return "0"
    if not math.isfinite(value) or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3e}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def interval(low: float | None, high: float | None) -> str:
    """Format an interval such as ``[1.234, 2.345]``; empty if a bound is None."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def memory(value: float, memory_of: str | None) -> str:
    """Format bytes such as ``12.34 GiB (GPU)``."""
    size = f"{number(value / 2**30)} GiB" if value >= 2**30 else f"{number(value / 2**20)} MiB"
    return f"{size} ({_UNITS[memory_of]})" if memory_of else size


def usd(value: float) -> str:
    """Format US dollars without a currency sign: four decimals, or three significant digits for smaller amounts."""
    return f"{value:.4f}" if value == 0 or 0.01 <= abs(value) < 1e9 else f"{value:.3g}"


def ratio(found: Ratio | None) -> str:
    """Format a ratio with its interval such as ``1.234 [1.1, 1.4]``."""
    if found is None:
        return UNKNOWN
    return " ".join(part for part in (number(found.value), interval(found.low, found.high)) if part)


def size(width: int | None, height: int | None) -> str:
    """Format a size such as ``1280x720``."""
    return f"{width or '?'}x{height or '?'}" if width or height else "the backend's size"


def request_words(request: Request | Work, with_steps: bool = True) -> str:
    """Format a request such as ``1280x720, 129 frames, 30 steps``, without its scenario."""
    frames, steps = request.num_frames, request.num_inference_steps
    words = [size(request.width, request.height)]
    words.append("the backend's frames" if frames is None else f"{frames} frame{'s' * (frames != 1)}")
    if with_steps:
        words.append(steps_words(steps))
    if isinstance(request, Work) and request.is_doubled:
        words.append("true CFG")
    return ", ".join(words)


def steps_words(steps: int | None) -> str:
    """Format a number of steps such as ``30 steps``."""
    return "the backend's steps" if steps is None else f"{steps} step{'s' * (steps != 1)}"


def is_hosted_format(target: Target | None) -> bool:
    """Whether the target is a service or another server in a service's format."""
    return target is not None and target.base_url is not None


def mark(target: Target | None) -> str:
    """The note shown with a target's numbers if it uses a service's format but is not the service; otherwise empty."""
    if target is None or not is_hosted_format(target) or target.is_billed:
        return ""
    return f"{target.backend} format, not the service"


def machine_name(card: Mapping[str, Any]) -> str:
    """A short name of the machine for titles: the GPU, or without one the CPU and its cores."""
    gpu, cpu = card.get("gpu"), card.get("cpu")
    if isinstance(gpu, Mapping) and gpu.get("name"):
        return str(gpu["name"])
    if isinstance(cpu, Mapping) and cpu.get("model"):
        return f"{cpu['model']}, {cpu['cores']} cores" if cpu.get("cores") else str(cpu["model"])
    return "an unnamed machine"


def flat(card: Any, path: str = "") -> dict[str, str]:
    """Flatten nested dicts and lists to strings by dotted path; a list of plain values is one leaf."""
    if isinstance(card, Mapping) and card:
        parts = [flat(value, f"{path}.{key}" if path else str(key)) for key, value in card.items()]
    elif isinstance(card, list) and any(isinstance(value, Mapping | list) for value in card):
        parts = [flat(value, f"{path}[{i}]") for i, value in enumerate(card)]
    else:
        return {path: memory(card, None) if path.endswith("_bytes") and isinstance(card, int) else _leaf(card)}
    return {key: value for part in parts for key, value in part.items()}


def _leaf(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None or value == {} or value == "" else str(value)
