"""``hunyuan-local plan``: what a request needs in each mode, and which mode to take, before any weight is read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import rich_click as click
from rich.console import Console
from rich.table import Table

from ...config import GIB, ModelConfig, load_model_config, model_names
from ...durations import clock
from ...planner import BatchPlan, Machine, ModePlan, Plan, detect_machine, find_gpu, parse_memory, plan, plan_batch
from ...planner.machine import gpu_specs
from ...planner.result import gib
from ..shared.batch_plan import print_batch
from ..shared.console import stdout
from ..shared.options import request_from, request_options

_ANY_PROMPT = "any"  # every prompt is padded to the same length


@click.command(name="plan")
@click.argument("prompt", default=_ANY_PROMPT)
@click.option(
    "--model",
    help=f"{', '.join(model_names())}, a folder in diffusers' layout, or a Hub id. Default: hunyuan-video for a GPU, "
    "else tiny.",
)
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@request_options
@click.option(
    "--gpu",
    metavar="NAME",
    help=f"Plan for this GPU rather than for this machine: {', '.join(spec.name for spec in gpu_specs())}.",
)
@click.option("--gpu-memory", metavar="SIZE", help="Total memory of the GPU, such as 24GiB.")
@click.option("--host-memory", metavar="SIZE", help="Main memory, such as 64GiB; not checked if left out beside a GPU.")
@click.option("--num-gpus", type=int, metavar="N", help="Plan for so many such GPUs in one machine.")
@click.option("--videos", type=int, metavar="M", help="Plan for so many videos like this one. Default: 1.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as one line of JSON, the last of stdout.")
def command(
    prompt: str,
    model: str | None,
    revision: str | None,
    size: str | None,
    gpu: str | None,
    gpu_memory: str | None,
    host_memory: str | None,
    num_gpus: int | None,
    videos: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Weigh every way to run the model: memory of each stage, time, and which of them fit.

    Reads configurations alone: nothing is downloaded and no weight is loaded. Exit code 6 if nothing
    fits; the message names the nearest requests that would. Times are estimates.

    With --videos and --num-gpus: how long so many videos take on so many GPUs, a video a GPU (replicas) against
    every video over all GPUs (context parallel), and which of the two to take.
    """
    request = request_from(prompt, size, flags)
    machine = _machine(gpu, gpu_memory, host_memory)
    config = _model(model, revision, machine)
    found: Plan | BatchPlan
    if num_gpus is None and videos is None:
        found = single = plan(request, config, machine)
        document = single.to_json()
    else:
        found = plan_batch(request, config, machine, num_gpus, 1 if videos is None else videos)
        single = found.single
        document = single.to_json() | {"batch": found.to_json()}
    if as_json:
        print(json.dumps(document, ensure_ascii=False))
    elif isinstance(found, BatchPlan):
        _print_head(stdout(), single, found.num_gpus)
        print_batch(stdout(), found)
    else:
        _print(stdout(), single)
    found.require_choice()


def _machine(gpu: str | None, gpu_memory: str | None, host_memory: str | None) -> Machine:
    """The machine of the flags; what they leave open is detected, but of another machine it stays unknown."""
    host = None if host_memory is None else parse_memory(host_memory, "host_memory")
    spec = None if gpu is None else find_gpu(gpu)
    if gpu_memory is not None:
        return Machine(parse_memory(gpu_memory, "gpu_memory"), host, spec)
    if spec is not None:
        return Machine(spec.memory_bytes, host, spec)
    here = detect_machine()
    return here if host is None else replace(here, host_memory_bytes=host)


def _model(name: str | None, revision: str | None, machine: Machine) -> ModelConfig:
    config = load_model_config(name or ("hunyuan-video" if machine.device == "cuda" else "tiny"))
    return config if revision is None else config.with_revision(revision)


def _print_head(console: Console, found: Plan, num_gpus: int | None = None) -> None:
    """The request and the machine."""
    request, machine = found.request, found.machine
    width, height = found.render_size
    scaled = "" if (width, height) == (request.width, request.height) else f", rendered at {width}x{height}"
    console.print(
        f"{found.model}: {request.width}x{request.height}{scaled}, {request.num_frames} frames, "
        f"{request.num_inference_steps} steps of {_flops(found.flops_per_step)}",
        markup=False,
    )
    console.print(f"{'' if num_gpus is None else f'{num_gpus} x '}{_describe(machine)}", markup=False)
    console.print()


def _print(console: Console, found: Plan) -> None:
    _print_head(console, found)
    console.print(_weights(found))
    console.print()
    footnotes: dict[str, int] = {}
    console.print(_modes(found, footnotes))
    console.print()
    for reason, number in footnotes.items():
        console.print(f"[{number}] {reason}", markup=False, soft_wrap=False, width=80)
    for text in found.assumptions:
        console.print(text, markup=False, soft_wrap=False, width=80)
    if (choice := found.choice) is not None and choice.seconds is not None:
        console.print(f"\n{choice.name}: about {clock(choice.seconds.total)}", markup=False)


def _weights(found: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("weights")
    for title in ("parameters", "precision", "GiB"):
        table.add_column(title, justify="right", no_wrap=True)
    for item in found.weights:
        table.add_row(item.component, f"{item.parameters:,}", item.dtype, f"{item.bytes / GIB:.2f}")
    return table


def _modes(found: Plan, footnotes: dict[str, int]) -> Table:
    """One row a mode; reasons that are not about memory become ``footnotes``."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("peak GiB", no_wrap=True, min_width=24)
    on_gpu = found.machine.device == "cuda"
    for title in ("encode", "denoise", "decode", *(["host"] if on_gpu else []), "time"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    choice = found.choice
    for item in found.modes:
        peaks = [item.peaks[stage] for stage in ("encode", "denoise", "decode")]
        sizes = [peak.gpu_bytes if on_gpu else peak.host_bytes for peak in peaks]
        host = [f"{item.host_peak_bytes / GIB:.1f}"] if on_gpu else []
        time = "-" if item.seconds is None else clock(item.seconds.total)
        chosen = item is choice
        table.add_row(
            f"{'>' if chosen else ' '} {item.name}",
            *(f"{size / GIB:.1f}" for size in sizes),
            *host,
            time,
            _verdict(item, found.machine, footnotes),
            style="bold green" if chosen else None if item.fits else "dim",
        )
    return table


def _verdict(item: ModePlan, machine: Machine, footnotes: dict[str, int]) -> str:
    if item.fits:
        return "fits"
    if item.seconds is None:
        return f"no [bold]\\[{footnotes.setdefault(item.reason or '', len(footnotes) + 1)}][/]"
    if machine.gpu_memory_bytes is not None and item.needed_gpu_bytes > machine.gpu_memory_bytes:
        return f"GPU: {item.needed_gpu_bytes / GIB:.1f}"
    return f"host: {item.host_peak_bytes / GIB:.1f}"


def _describe(machine: Machine) -> str:
    host = (
        "host memory not given"
        if machine.host_memory_bytes is None
        else f"{gib(machine.host_memory_bytes)} of host memory"
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
