"""One mode at one size, measured: the way of a request through the package, from the files to the frames.

The file is left out: the encoder does not depend on the mode, and the gate would refuse a video of noise.
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

# Longer than the 256 tokens that the model reads: then the text is as long as the plan has it.
PROMPT = "a red circle moving right on a black background, " * 40


class Meter:
    """Seconds and peak memory of one stage after another, kept in ``record["stages"]``.

    Bytes of the GPU are those of torch's allocator; of main memory the resident set as the kernel counts it,
    files that are mapped included.
    """

    def __init__(self, device: str, record: dict[str, Any], save: Callable[[], None]):
        self._cuda = device == "cuda"
        if self._cuda:
            torch.cuda.init()  # before that there are no peaks to reset
        self._record, self._save = record, save
        record["stages"] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what is done inside; the record names the stage if it does not come to its end."""
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
        """Seconds of the clock once the device has done all that it was given."""
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Load, encode, denoise and decode in the task's ``mode``, and fill ``record``.

    Args:
        task: ``checkpoint`` (folder), ``mode``, ``size`` (width, height, frames) and ``steps``.
        record: gets ``stages``, ``encode_again_seconds`` (of a second prompt), ``step_seconds``, ``seconds_per_step``
            (median of the steps after the first),
            ``attention_backend``, ``tiling``, ``frames`` and ``notes``.
        save: keeps the record as it is.

    Raises:
        HunyuanLocalError: an unknown mode, memory that ran out, files that are missing, numbers that overflowed.
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
    # Files are mapped and read when they are first touched, so the first prompt's time has the reading in it.
    request, began = request.replace(prompt=f"again, {PROMPT}"), meter.now()
    model.prompts.encode(request, notes.append)  # which the denoising then finds done
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
    """The profile of a mode; prompts are encoded each time, or there would be nothing to measure.

    Raises:
        ConfigError: no such mode.
    """
    profile = named_profile(mode)
    if profile is None:
        raise ConfigError(f"mode={mode!r}: must be one mode, such as group+tiling; 'hunyuan-local plan' lists them")
    return profile.model_copy(update={"prompt_cache": False})


def _reset_host_peak() -> None:
    """Begin the kernel's peak of the resident set anew; where it cannot, the peak is that of all stages so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _host_peak() -> int:
    """Bytes of the resident set at its peak."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if peak is None else peak)
