"""``hunyuan-local plan``: memory and time of each mode for a request, and the recommended mode, without weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import rich_click as click

from ...config import ModelConfig, load_model_config, model_names
from ...config.allocator import this_allocator
from ...planner import BatchPlan, Machine, Plan, detect_machine, find_gpu, parse_memory, plan, plan_batch
from ...planner.cards import gpu_specs
from ..shared.batch_plan import print_batch
from ..shared.console import stdout
from ..shared.options import DEFAULT_MODEL_TEXT, request_from, request_options
from ..shared.plan_display import print_head, print_plan

_ANY_PROMPT = "any"  # every prompt is padded to the same length


@click.command(name="plan")
@click.argument("prompt", default=_ANY_PROMPT)
@click.option(
    "--model",
    show_default=DEFAULT_MODEL_TEXT,
    help=f"Model: {', '.join(model_names())}, a folder in diffusers format, or a Hub id.",
)
@click.option("--revision", help="Branch, tag or commit of the model's Hub repository.")
@request_options
@click.option(
    "--gpu",
    metavar="NAME",
    show_default="this machine",
    help=f"Plan for this GPU: {', '.join(spec.name for spec in gpu_specs())}.",
)
@click.option("--gpu-memory", metavar="SIZE", help="Total memory of the GPU, such as 24GiB.")
@click.option("--host-memory", metavar="SIZE", help="Main memory, such as 64GiB; with --gpu, not checked by default.")
@click.option("--num-gpus", type=int, metavar="N", help="Plan for N such GPUs in one machine.")
@click.option("--videos", type=int, metavar="M", show_default="1", help="Plan for M videos like this one.")
@click.option("--all", "show_all", is_flag=True, help="Also show the modes that do not fit and why, the size of the "
              "weights, and the assumptions.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON, on the last line of stdout.")
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
    show_all: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Estimate memory and time of each mode, and show which modes fit.

    Example: hunyuan-local plan --gpu 4090

    Reads only configuration files: downloads nothing and loads no weights. Exit code 6 if no mode fits; the message
    then suggests the nearest requests that fit.

    With --num-gpus or --videos, compares one GPU per video (replicas) with all GPUs on each video (context parallel).
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
        print_head(stdout(), single, found.num_gpus)
        print_batch(stdout(), found)
    else:
        print_plan(stdout(), single, show_all)
    found.require_choice()


def _machine(gpu: str | None, gpu_memory: str | None, host_memory: str | None) -> Machine:
    """The machine that the options describe; missing values are detected for this machine only."""
    host = None if host_memory is None else parse_memory(host_memory, "host_memory")
    spec = None if gpu is None else find_gpu(gpu)
    allocator = this_allocator(rocm=spec is not None and spec.vendor == "amd")
    if gpu_memory is not None:
        return Machine(parse_memory(gpu_memory, "gpu_memory"), host, spec, allocator=allocator)
    if spec is not None:
        return Machine(spec.memory_bytes, host, spec, allocator=allocator)
    here = detect_machine()
    return here if host is None else replace(here, host_memory_bytes=host)


def _model(name: str | None, revision: str | None, machine: Machine) -> ModelConfig:
    config = load_model_config(name or ("hunyuan-video" if machine.device == "cuda" else "tiny"))
    config = config if revision is None else config.with_revision(revision)
    if config.is_described:
        return config
    from ...weights.source import with_own_preset  # imports the Hub client, which is slow

    return with_own_preset(config)
