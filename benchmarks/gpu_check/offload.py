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
from hunyuan_local.pipeline.memory.device import free_device
from hunyuan_local.resolved import ResolvedRequest
from hunyuan_local.schema import GenerationRequest, Progress

from .checkpoint import model_config, repeat_blocks, repeated
from .timing import now, peaks, reset_peaks, seconds_of
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
    record["rows"] = []
    for way, run in ways.items():
        row: dict[str, Any] = {"way": way}
        record["rows"].append(row)
        try:
            with torch.no_grad():
                run(task, row)
        except Exception as error:  # a result about this machine
            row["error"] = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
        free_device()
        save()


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
    record["rows"] = []
    for name, cache in caches.items():
        row: dict[str, Any] = {"cache": name}
        record["rows"].append(row)
        model.profile = model.profile.model_copy(update={"cache": cache})
        ends: list[float] = []
        calls: list[int] = []

        def see(progress: Progress, ends: list[float] = ends) -> None:
            if progress.stage == "denoise":
                ends.append(now(device))

        reset_peaks(device)
        last = model.pipe.transformer.single_transformer_blocks[-1].norm
        counting = last.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        try:
            denoise(model, request, (width, height), see, lambda note: None, lambda: False)
            row["step s"] = [round(after - before, 4) for before, after in itertools.pairwise(ends)]
        except Exception as error:  # a result about this machine
            row["error"] = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
        counting.remove()
        row |= {"calls": len(calls)} | peaks(device)
        save()
    model.placement.close()
