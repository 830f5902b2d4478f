"""Group offload and step caches on a transformer of a few blocks, whose times and memory per block are the model's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel

from hunyuan_local.config.profiles import FirstBlockCache, MagCache, TaylorSeerCache
from hunyuan_local.pipeline.denoise import denoise
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.resolved import ResolvedRequest
from hunyuan_local.schema import GenerationRequest, Progress

from .checkpoint import repeat_blocks, repeated
from .plans import model_config
from .timing import now, peaks, reset_peaks, row_of, seconds_of
from .variants import profile_of, step_inputs

_PASSES = 4


def stream(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Time passes with resident and with streamed weights; fill ``record``.

    Args:
        task: ``device``, ``checkpoint`` (folder), ``blocks`` (counts by list), ``latents`` and ``text``.
        record: gets ``rows``, each with ``way``, ``set up s``, ``pass s`` (of each pass), and peaks, or ``error``.
        save: saves the current record.
    """
    ways: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
        "resident": lambda *given: _package("none", *given),
        "this package's group offload": lambda *given: _package("group", *given),
        "diffusers' group offload": lambda *given: _diffusers(False, *given),
        "diffusers' with record_stream": lambda *given: _diffusers(True, *given),
    }
    for way, run in ways.items():
        with row_of(record, save, way=way) as row, torch.no_grad():
            run(task, row)


def _package(offload: str, task: dict[str, Any], row: dict[str, Any]) -> None:
    began = now(task["device"])
    with repeated(task["blocks"]):
        model = load_model(model_config(Path(task["checkpoint"])), profile_of(offload))
    with model.placement.active("transformer"):
        row["set up s"] = now(task["device"]) - began
        _time_passes(model.pipe.transformer, task, row)
    model.placement.close()


def _diffusers(record_stream: bool, task: dict[str, Any], row: dict[str, Any]) -> None:
    """diffusers' own transformer and offload."""
    device = task["device"]
    began, dtype = now(device), torch.bfloat16 if device == "cuda" else torch.float32
    folder = Path(task["checkpoint"]) / "transformer"
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(folder, torch_dtype=dtype)
    repeat_blocks(transformer, task["blocks"])
    streams = {"use_stream": True, "record_stream": record_stream} if device == "cuda" else {}
    transformer.enable_group_offload(
        onload_device=torch.device(device), offload_type="block_level", num_blocks_per_group=1, **streams
    )
    row["set up s"] = now(device) - began
    _time_passes(transformer, task, row)


def _time_passes(transformer: torch.nn.Module, task: dict[str, Any], row: dict[str, Any]) -> None:
    device = task["device"]
    inputs = step_inputs(transformer, task["latents"], task["text"], device)
    reset_peaks(device)
    row["pass s"] = [round(seconds_of(lambda: transformer(**inputs), device), 4) for _ in range(_PASSES)]
    row |= peaks(device)


def skip_steps(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Denoise with each step cache, set so that it skips steps; fill ``record``.

    Args:
        task: ``device``, ``checkpoint`` (folder), ``blocks`` (counts by list), ``size`` and ``steps``.
        record: gets ``rows``, each with ``cache``, ``step s`` (of each step, skipped ones among them),
            ``calls`` (of the last block) and peaks.
        save: saves the current record.
    """
    device, (width, height, frames), steps = task["device"], task["size"], task["steps"]
    config = model_config(Path(task["checkpoint"]))
    with repeated(task["blocks"]):
        model = load_model(config, profile_of("none"))
        request = ResolvedRequest.of(
            GenerationRequest(
                prompt="any", width=width, height=height, num_frames=frames, num_inference_steps=steps, seed=0
            ),
            dict(config.defaults),
        )
        model.encode(request, lambda note: None)
    caches = {
        "none": None,
        "first-block": FirstBlockCache(kind="first-block", threshold=0.99, start=0.0),
        "taylorseer": TaylorSeerCache(kind="taylorseer", interval=2, order=1, start=0.0),
        "magcache": MagCache(kind="magcache", start=0.0, mag_ratios=(1.0,) * steps),
    }
    last = model.pipe.transformer.single_transformer_blocks[-1].attn.to_q
    for name, cache in caches.items():
        model.profile = model.profile.model_copy(update={"cache": cache})
        ends: list[float] = []
        calls: list[int] = []

        def see(progress: Progress, ends: list[float] = ends) -> None:
            if progress.stage == "denoise":
                ends.append(now(device))

        counting = last.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        with row_of(record, save, cache=name) as row:
            reset_peaks(device)
            denoise(model, request, (width, height), see, lambda note: None, lambda: False)
            row |= {"step s": [round(after - before, 4) for before, after in itertools.pairwise(ends)]}
            row |= {"calls": len(calls)} | peaks(device)
        counting.remove()
    model.placement.close()
