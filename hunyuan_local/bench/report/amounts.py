"""Figures and names in words, alike in the report, on the plots and in tables. Knows nothing about statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..results.result import Target
from ..results.statistics import Ratio, Request, Work

_UNITS = {"gpu": "GPU", "process": "process", "mixed": "GPU or process"}
NOT_TOLD = "-"


def number(value: float) -> str:
    """Four digits that count, such as 0.01234, 12.34 or 12345; very small and very large ones as 1.234e+09."""
    if value == 0:
        return "0"
    if not math.isfinite(value) or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3e}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def interval(low: float | None, high: float | None) -> str:
    """Such as [1.234, 2.345]; empty where there is none."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def memory(value: float, memory_of: str | None) -> str:
    """Such as ``12.34 GiB (GPU)``."""
    size = f"{number(value / 2**30)} GiB" if value >= 2**30 else f"{number(value / 2**20)} MiB"
    return f"{size} ({_UNITS[memory_of]})" if memory_of else size


def usd(value: float) -> str:
    """An amount without its sign of currency: to a hundredth of a cent, smaller ones with three digits."""
    return f"{value:.4f}" if value == 0 or 0.01 <= abs(value) < 1e9 else f"{value:.3g}"


def ratio(found: Ratio | None) -> str:
    """Such as ``1.234 [1.1, 1.4]``."""
    if found is None:
        return NOT_TOLD
    return " ".join(part for part in (number(found.value), interval(found.low, found.high)) if part)


def size(width: int | None, height: int | None) -> str:
    """Such as ``1280x720``."""
    return f"{width or '?'}x{height or '?'}" if width or height else "the backend's size"


def request_words(request: Request | Work, with_steps: bool = True) -> str:
    """Such as ``1280x720, 129 frames, 30 steps``, without the scenario."""
    frames, steps = request.num_frames, request.num_inference_steps
    words = [size(request.width, request.height)]
    words.append("the backend's frames" if frames is None else f"{frames} frame{'s' * (frames != 1)}")
    if with_steps:
        words.append(steps_words(steps))
    if isinstance(request, Work) and request.is_doubled:
        words.append("true CFG")
    return ", ".join(words)


def steps_words(steps: int | None) -> str:
    """Such as ``30 steps``."""
    return "the backend's steps" if steps is None else f"{steps} step{'s' * (steps != 1)}"


def is_hosted_format(target: Target | None) -> bool:
    """Whether it is spoken to as a hosted service is, be it one or not."""
    return target is not None and target.base_url is not None


def mark(target: Target | None) -> str:
    """What must be said wherever the target's figures are: that it is not the service whose format it speaks."""
    if target is None or not is_hosted_format(target) or target.is_billed:
        return ""
    return f"{target.backend} format, not the service"


def machine_name(card: Mapping[str, Any]) -> str:
    """The part of a machine card that fits into a title: the GPU, or else the CPU with its cores."""
    gpu, cpu = card.get("gpu"), card.get("cpu")
    if isinstance(gpu, Mapping) and gpu.get("name"):
        return str(gpu["name"])
    if isinstance(cpu, Mapping) and cpu.get("model"):
        return f"{cpu['model']}, {cpu['cores']} cores" if cpu.get("cores") else str(cpu["model"])
    return "a machine that is not named"


def flat(card: Any, path: str = "") -> dict[str, str]:
    """Every leaf of nested dicts and lists, in words, by its dotted path; a list of plain values is one leaf."""
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
