"""Terminal output of a plan: the verdict and the modes that fit; with ``--all``, all modes and the assumptions."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ...config import GIB
from ...durations import clock, span
from ...planner import Machine, ModePlan, Plan
from ...planner.result import gib

_WIDTH = 80  # columns of running text; tables are narrower


def print_head(console: Console, found: Plan, num_gpus: int | None = None) -> None:
    """Print the request and the machine."""
    request, machine = found.request, found.machine
    width, height = found.render_size
    scaled = "" if (width, height) == (request.width, request.height) else f", rendered at {width}x{height}"
    _text(
        console,
        f"{found.model}: {request.width}x{request.height}{scaled}, {request.num_frames} frames, "
        f"{request.num_inference_steps} steps of {_flops(found.flops_per_step)}",
    )
    _text(console, f"{'' if num_gpus is None else f'{num_gpus} x '}{_describe(machine)}")
    console.print()


def print_plan(console: Console, found: Plan, show_all: bool) -> None:
    """Print the plan for one video.

    Args:
        show_all: also print the modes that do not fit with the reason, the weights, and the assumptions.
    """
    print_head(console, found)
    _text(console, _verdict(found))
    console.print()
    fitting = [mode for mode in found.modes if mode.fits]
    footnotes: dict[str, int] = {}
    if show_all or fitting:
        console.print(_table(found, list(found.modes) if show_all else fitting, footnotes))
        console.print()
    for reason, number in footnotes.items():
        _text(console, f"[{number}] {reason}")
    for note in found.notes:
        _text(console, f"note: {note}")
    if show_all:
        console.print()
        console.print(_weights(found))
        console.print()
        for text in found.assumptions:
            _text(console, text)
    else:
        hidden = len(found.modes) - len(fitting)
        shown = f"the {hidden} modes that do not fit and why, " if hidden else ""
        _text(console, f"--all shows {shown}the size of the weights, and the assumptions.")


def _verdict(found: Plan) -> str:
    choice = found.choice
    if choice is None or choice.seconds is None:
        return "No mode fits."
    peak = f"{gib(choice.host_peak_bytes)} of main memory"
    if found.machine.device == "cuda":
        low, high = (size / GIB for size in choice.needed_gpu_range)
        peak = f"{gib(choice.needed_gpu_bytes)} ({low:.1f} to {high:.1f}) of GPU memory and {peak}"
    took = f"about {clock(choice.seconds.total)} per video"
    if choice.seconds_range is not None:
        took = f"about {span(*choice.seconds_range)} per video, a guess for this GPU"
    return f"Fits as {choice.name}: {took}, {peak}.{_tight(found, choice)}"


def _tight(found: Plan, choice: ModePlan) -> str:
    """A warning if the mode may need more than the card has, at the upper end of its range."""
    have = found.machine.gpu_memory_bytes
    if have is None or choice.needed_gpu_range[1] <= have:
        return ""
    return " It may run out of GPU memory, and then continues with less."


def _table(found: Plan, modes: list[ModePlan], footnotes: dict[str, int]) -> Table:
    """One row per mode; reasons other than missing memory become ``footnotes``."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("peak GiB", no_wrap=True, min_width=24)
    on_gpu = found.machine.device == "cuda"
    for title in ("encode", "denoise", "decode", *(["host"] if on_gpu else []), "time"):
        table.add_column(title, justify="right", no_wrap=True)
    if with_reasons := not all(mode.fits for mode in modes):
        table.add_column("why not", no_wrap=True)
    choice = found.choice
    for item in modes:
        peaks = [item.peaks[stage] for stage in ("encode", "denoise", "decode")]
        sizes = [peak.gpu_bytes if on_gpu else peak.host_bytes for peak in peaks]
        chosen = item is choice
        table.add_row(
            f"{'>' if chosen else ' '} {item.name}",
            *(f"{size / GIB:.1f}" for size in sizes),
            *([f"{item.host_peak_bytes / GIB:.1f}"] if on_gpu else []),
            _time(item),
            *([_why_not(item, found.machine, footnotes)] if with_reasons else []),
            style="bold green" if chosen else None if item.fits else "dim",
        )
    return table


def _time(item: ModePlan) -> str:
    if item.seconds is None:
        return "-"
    return clock(item.seconds.total) if item.seconds_range is None else span(*item.seconds_range)


def _why_not(item: ModePlan, machine: Machine, footnotes: dict[str, int]) -> str:
    if item.fits:
        return ""
    if item.seconds is None:
        return f"\\[{footnotes.setdefault(item.reason or '', len(footnotes) + 1)}]"
    if machine.gpu_memory_bytes is not None and item.needed_gpu_bytes > machine.gpu_memory_bytes:
        return f"needs {item.needed_gpu_bytes / GIB:.1f} GPU"
    return f"needs {item.host_peak_bytes / GIB:.1f} host"


def _weights(found: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("weights")
    for title in ("parameters", "precision", "GiB"):
        table.add_column(title, justify="right", no_wrap=True)
    for item in found.weights:
        table.add_row(item.component, f"{item.parameters:,}", item.dtype, f"{item.bytes / GIB:.2f}")
    return table


def _describe(machine: Machine) -> str:
    host = (
        "main memory unknown"
        if machine.host_memory_bytes is None
        else f"{gib(machine.host_memory_bytes)} of main memory"
    )
    if machine.gpu_memory_bytes is None:
        return f"CPU, {host}"
    title = "a GPU" if machine.gpu is None else machine.gpu.title
    return f"{title} with {gib(machine.gpu_memory_bytes)}, {host}"


def _flops(count: int) -> str:
    for unit, factor in (("PFLOP", 1e15), ("TFLOP", 1e12)):
        if count >= 0.01 * factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count / 1e9:.2f} GFLOP"


def _text(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=False, width=_WIDTH)
