"""The tables of ``vs_diffusers``."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from .children import Run

STAGES = ("import", "load", "encode", "denoise", "decode", "write")


def whole(name: str, found: Any) -> str:
    """All tables of one checkpoint."""
    request = found.job.request
    title = (
        f"{name}: {request['width']}x{request['height']}, {request['num_frames']} frames, "
        f"{request['num_inference_steps']} steps, transformer in {found.job.transformer}; medians of "
        f"{len(found.runs['ours'])} rounds, ratios (ours over stock) by rounds"
    )
    parts = [title, _processes(found.runs), _frames(found.frames)]
    if found.kernels:
        parts += [_floor(found.kernels), _by_tokens(found.kernels)]
    return "\n\n".join(parts)


def _processes(runs: dict[str, Sequence[Run]]) -> str:
    """Seconds and memory, in total and by stage."""
    lines = [
        f"{'':16}{'stock':>26}{'ours':>26}{'ratio':>14}",
        f"{'':16}" + f"{'wall s':>8}{'CPU s':>8}{'peak GiB':>10}" * 2,
    ]
    lines[1] += f"{'wall':>7}{'peak':>7}"

    def row(title: str, pick: Callable[[Run], tuple[float, float, float]]) -> str:
        stock, ours = ([pick(run) for run in runs[script]] for script in ("stock", "ours"))
        cells = "".join(
            f"{_median(found, 0):>8.2f}{_median(found, 1):>8.2f}{_median(found, 2) / 2**30:>10.2f}"
            for found in (stock, ours)
        )
        wall, peak = (_ratio(ours, stock, column) for column in (0, 2))
        return f"{title:16}{cells}{wall:>7}{peak:>7}"

    lines.append(row("whole process", lambda run: (run.wall_s, run.cpu_s, run.peak_bytes)))
    for stage in STAGES:
        lines.append(row(f"  {stage}", lambda run, stage=stage: _stage(run, stage)))
    return "\n".join(lines)


def _stage(run: Run, name: str) -> tuple[float, float, float]:
    stage = run.stages.get(name, {"wall_s": 0.0, "cpu_s": 0.0, "peak_bytes": 0})
    return stage["wall_s"], stage["cpu_s"], stage["peak_bytes"] or 0


def _frames(found: dict[str, dict[str, Any]]) -> str:
    """Differences from the plain script's frames."""
    lines = ["frames against the plain script's, before any encoder, 3 steps at most:"]
    for title, distance in found.items():
        psnr = "equal" if distance["psnr_db"] is None else f"{distance['psnr_db']:.1f} dB"
        lines.append(f"  {title:24} largest difference {distance['largest']:>3} of 255, PSNR {psnr}")
    return "\n".join(lines)


def _floor(kernels: dict[str, Any]) -> str:
    """A step of each implementation relative to its floor and to the machine's peak."""
    lines = [
        f"a step of {kernels['parameters'] / 1e6:.0f} M parameters at {kernels['tokens']} tokens, "
        f"{kernels['flops'] / 1e12:.2f} TFLOP, all in one process that keeps freed memory; medians of "
        f"{len(kernels['seconds']['ours'])} rounds; the largest matrix product ran at "
        f"{kernels['peak_flops_per_s'] / 1e9:.0f} GFLOP/s",
        "",
        f"{'':16}{'seconds':>9}{'over the floor':>16}{'of the peak':>13}",
    ]
    for way, seconds in kernels["median_s"].items():
        over, share = kernels["over_floor"][way], kernels["of_peak"][way]
        lines.append(f"{way:16}{seconds:>9.2f}{over:>16.2f}{100 * share:>11.0f} %")
    for kind, each in kernels["floor"].items():
        rate = each["flops"] / each["seconds"] / 1e9
        lines.append(f"  {kind:14}{each['seconds']:>9.2f}{'':>16}{rate:>7.0f} GFLOP/s")
    return "\n".join(lines)


def _by_tokens(kernels: dict[str, Any]) -> str:
    """The cost of a step by its operations."""
    lines = ["cost of our step by tokens", "", f"{'tokens':>8}{'TFLOP':>9}{'seconds':>9}{'GFLOP/s':>9}"]
    for each in kernels["by_tokens"]:
        rate = each["flops"] / each["seconds"] / 1e9
        lines.append(f"{each['tokens']:>8}{each['flops'] / 1e12:>9.3f}{each['seconds']:>9.2f}{rate:>9.0f}")
    return "\n".join(lines)


def _median(rows: Sequence[tuple[float, float, float]], column: int) -> float:
    return statistics.median(row[column] for row in rows)


def _ratio(ours: Sequence[tuple], stock: Sequence[tuple], column: int) -> str:
    pairs = [(a[column], b[column]) for a, b in zip(ours, stock, strict=True)]
    if not all(b for _, b in pairs):
        return "-"
    return f"{statistics.median(a / b for a, b in pairs):.2f}"
