"""Measures one mode at one size: a request through the package, from the weight files to the frames.

No mp4 is written: encoding does not depend on the mode, and the gate would reject a video of noise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from hunyuan_local.backends.local.profile_choice import named_profile
from hunyuan_local.config import RuntimeProfile
from hunyuan_local.errors import ConfigError
from hunyuan_local.pipeline.decode import decode
from hunyuan_local.pipeline.denoise import denoise
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.pipeline.model import decoding_bytes
from hunyuan_local.planner.tiles import Tiles
from hunyuan_local.schema import GenerationRequest, Progress

from .checkpoint import model_config

# Longer than the 256 tokens that the model reads, so that the text has the length that the planner assumes.
PROMPT = "a red circle moving right on a black background, " * 40


class Meter:
    """Records seconds and peak memory of each stage in ``record["stages"]``.

    GPU bytes come from torch's allocator; main memory is the kernel's resident set, mapped files included.
    """

    def __init__(self, device: str, record: dict[str, Any], save: Callable[[], None]):
        self._cuda = device == "cuda"
        if self._cuda:
            torch.cuda.init()  # peaks can be reset only after this
        self._record, self._save = record, save
        record["stages"] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block; if it fails, the record names the stage."""
        self._record["stage"] = name
        self._save()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        _reset_host_peak()
        began = time.perf_counter()
        yield
        seconds = self.now() - began
        self._record["stages"][name] = {
            "seconds": seconds,
            "gpu_allocated_bytes": torch.cuda.max_memory_allocated() if self._cuda else None,
            "gpu_reserved_bytes": torch.cuda.max_memory_reserved() if self._cuda else None,
            "host_bytes": _host_peak(),
        }
        self._record["stage"] = None
        self._save()

    def now(self) -> float:
        """Clock in seconds, after waiting for the device."""
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Load, encode, denoise and decode in the task's ``mode``; fill ``record``.

    Args:
        task: ``checkpoint`` (folder), ``mode``, ``size`` (width, height, frames) and ``steps``.
        record: gets ``stages``, ``encode_again_seconds`` (of a second prompt), ``step_seconds``, ``seconds_per_step``
            (median of the steps after the first),
            ``attention_backend``, ``tiling``, ``frames`` and ``notes``.
        save: saves the current record.

    Raises:
        HunyuanLocalError: unknown mode, out of memory, missing files, or numeric overflow.
    """
    profile = _profile(task["mode"])
    config = model_config(Path(task["checkpoint"]))
    width, height, frames = task["size"]
    request = GenerationRequest(
        prompt=PROMPT, width=width, height=height, num_frames=frames, num_inference_steps=task["steps"], seed=0
    ).with_defaults(dict(config.defaults))
    render_size = config.render_size(width, height)
    meter, notes, ends = Meter(profile.device, record, save), [], []

    def on_progress(progress: Progress) -> None:
        if progress.stage == "denoise":  # once before the first step and once after each
            ends.append(meter.now())

    with meter.stage("load"):
        model = load_model(config, profile, on_note=notes.append)
        model.prompts.load()
    with meter.stage("encode"):
        model.prompts.encode(request, notes.append)
    # Files are memory-mapped and read on first access, so the first prompt's time includes reading them.
    request, began = request.replace(prompt=f"again, {PROMPT}"), meter.now()
    model.prompts.encode(request, notes.append)  # so denoising does not encode again
    record["encode_again_seconds"] = meter.now() - began
    with meter.stage("denoise"):
        denoised = denoise(model, request, render_size, on_progress, notes.append, lambda: False)
    steps = [after - before for before, after in itertools.pairwise(ends)]
    record |= {"step_seconds": steps, "seconds_per_step": statistics.median(steps[1:] or steps)}
    tiling = Tiles(config, request).choose(model.profile, decoding_bytes(model))
    record |= {
        "attention_backend": model.profile.attention_backend,
        "tiling": dataclasses.asdict(tiling),
        "notes": list(dict.fromkeys(notes)),
    }
    with meter.stage("decode"):
        record["frames"] = sum(len(piece) for piece in decode(model, denoised.latents, tiling))
    model.placement.close()


def _profile(mode: str) -> RuntimeProfile:
    """The profile of a mode, without the prompt cache, so that encoding is measured.

    Raises:
        ConfigError: no such mode.
    """
    profile = named_profile(mode)
    if profile is None:
        raise ConfigError(f"mode={mode!r}: must be one mode, such as group+tiling; 'hunyuan-local plan' lists them")
    return profile.model_copy(update={"prompt_cache": False})


def _reset_host_peak() -> None:
    """Reset the kernel's peak of the resident set; where that fails, the peak covers all stages so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _host_peak() -> int:
    """Peak of the resident set in bytes."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if peak is None else peak)
