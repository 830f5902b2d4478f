"""Compares a denoising step of ``mid`` with its floor, alternating in one process; and the cost of a step by tokens.

Run as ``python -m versus.kernels JOB.json RECORD.json ROUNDS``; the size of the job's video determines the tokens.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel

from hunyuan_local.pipeline.acceleration import compile_blocks
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.rotary import keep_rotary_tables
from hunyuan_local.pipeline.blocks import run_in_chunks
from hunyuan_local.pipeline.memory.allocator import keep_freed_memory

from . import floor
from .job import Job

# Text as long as the demo's prompt; diffusers pads it to 256.
TEXT, PADDED = 20, 256
# Latent frames, height and width of other videos for the cost by tokens; 2x2 latents are one token.
SIZES = ((3, 16, 16), (5, 32, 32), (9, 40, 40), (9, 40, 64))


def inputs(transformer: HunyuanVideoTransformer3DModel, size: tuple[int, int, int]) -> dict[str, Any]:
    """Arguments of a step for latents of this size."""
    dtype, config = transformer.dtype, transformer.config
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, PADDED)
    mask[:, :TEXT] = 1
    return {
        "hidden_states": torch.randn(1, config.in_channels, *size, generator=generator).to(dtype),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, PADDED, config.text_embed_dim, generator=generator).to(dtype),
        "encoder_attention_mask": mask,
        "pooled_projections": torch.randn(1, config.pooled_projection_dim, generator=generator).to(dtype),
        "guidance": torch.tensor([6000.0]).to(dtype),
        "return_dict": False,
    }


def latents_of(request: dict[str, Any]) -> tuple[int, int, int]:
    """(frames, height, width) of a request's latents."""
    return (request["num_frames"] - 1) // 4 + 1, request["height"] // 8, request["width"] // 8


def ways_of(folder: str, dtype: torch.dtype) -> tuple[HunyuanVideoTransformer3DModel, HunyuanVideoTransformer3DModel]:
    """A checkpoint's transformer as in diffusers, and as in this package."""
    keep_freed_memory()  # for all ways, because this does not compare memory allocation
    stock = HunyuanVideoTransformer3DModel.from_pretrained(folder, subfolder="transformer", dtype=dtype).eval()
    ours = copy.deepcopy(stock)
    drop_padding(ours, "native")
    keep_rotary_tables(ours)
    run_in_chunks(ours)
    return stock, ours


@torch.no_grad()
def compare(job: Job, rounds: int) -> dict[str, Any]:
    """Medians over rounds that run every way once; the first round is a warm-up."""
    stock, ours = ways_of(job.folder, getattr(torch, job.transformer))
    compiled = copy.deepcopy(ours)
    compile_blocks(compiled, "cpu")
    arguments = inputs(stock, latents_of(job.request))
    calls = floor.record(ours, lambda: ours(**arguments))
    ways: dict[str, Callable[[], object]] = {
        "stock": lambda: stock(**arguments),
        "ours": lambda: ours(**arguments),
        "ours, compiled": lambda: compiled(**arguments),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*ways, "floor")}
    floors = []
    for _ in range(rounds + 1):
        for name, step in ways.items():
            seconds[name].append(_seconds(step))
        floors.append(floor.replay(calls))
        seconds["floor"].append(floors[-1].total_s)
    peak = floor.peak_flops_per_s(stock.dtype)
    flops = floors[0].total_flops
    medians = {name: statistics.median(found[1:]) for name, found in seconds.items()}
    # Ratios are taken within rounds, because the machine's speed drifts.
    over_floor = {
        name: statistics.median(a / b for a, b in zip(found[1:], seconds["floor"][1:], strict=True))
        for name, found in seconds.items()
    }
    kinds = {
        kind: {
            "seconds": statistics.median(found.seconds[kind] for found in floors[1:]),
            "flops": floors[0].flops[kind],
        }
        for kind in floors[0].seconds
    }
    return {
        "parameters": sum(parameter.numel() for parameter in stock.parameters()),
        "tokens": _tokens(latents_of(job.request)),
        "flops": flops,
        "peak_flops_per_s": peak,
        "seconds": {name: found[1:] for name, found in seconds.items()},
        "median_s": medians,
        "over_floor": over_floor,
        "of_peak": {name: flops / found / peak for name, found in medians.items()},
        "floor": kinds,
        "by_tokens": [by_tokens(ours, size) for size in SIZES],
    }


@torch.no_grad()
def by_tokens(transformer: HunyuanVideoTransformer3DModel, size: tuple[int, int, int]) -> dict[str, float]:
    """Seconds and counted operations of one warm step at this size."""
    arguments = inputs(transformer, size)
    calls = floor.record(transformer, lambda: transformer(**arguments))
    seconds = min(_seconds(lambda: transformer(**arguments)) for _ in range(2))
    return {"tokens": _tokens(size), "flops": sum(call.flops for call in calls), "seconds": seconds}


def _tokens(size: tuple[int, int, int]) -> int:
    return size[0] * size[1] * size[2] // 4


def _seconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main() -> None:
    """Measure and write the record."""
    job = dataclasses.replace(Job.load(Path(sys.argv[1])), compile=False)
    Path(sys.argv[2]).write_text(json.dumps(compare(job, int(sys.argv[3]))))


if __name__ == "__main__":
    main()
