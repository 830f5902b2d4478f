"""Videos: whole ones through the package's local backend, also in the memory of a smaller card; and step caches."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import GIB
from hunyuan_local.config.profiles import FirstBlockCache, MagCache, TaylorSeerCache
from hunyuan_local.config.tiling import Tiling
from hunyuan_local.errors import GenerationCancelledError
from hunyuan_local.pipeline.denoise import denoise
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.planner.memory import CUDA_CONTEXT
from hunyuan_local.planner.tiles import Tiles
from hunyuan_local.resolved import ResolvedRequest
from hunyuan_local.schema import GenerationRequest, GenerationResult, Progress

from .checkpoint import repeated
from .passes import profile_of
from .plans import VideoSize, model_config
from .task import Record
from .timing import now, peaks, reset_peaks

# With random weights, longer than the 256 tokens that the model reads, as the planner assumes.
REAL_PROMPT = "a red circle moving right on a black background"
PROMPT = f"{REAL_PROMPT}, " * 40


class Stages:
    """Records seconds and peak memory of each stage of one video in ``part`` of the record; a callback for progress.

    Fills ``stages``, ``step_seconds``, and ``seconds_per_step``, the median of the steps after the first.
    """

    def __init__(self, device: str, record: Record, part: dict[str, Any]):
        self._device, self._record = device, record
        self.part, self.folder = part, record.folder
        part |= {"stage": None, "stages": {}, "step_seconds": []}
        self._began = 0.0
        self._ends: list[float] = []

    def __call__(self, progress: Progress) -> None:
        """Begin a stage, or note the end of a step; there is one report before the first step."""
        time = now(self._device)
        if progress.stage != self.part["stage"]:
            self.end()
            self.part["stage"] = progress.stage
            self._began, self._ends = time, []
            reset_peaks()
        if progress.stage == "denoise":
            self._ends.append(time)
            steps = [after - before for before, after in itertools.pairwise(self._ends)]
            if steps:
                self.part |= {"step_seconds": steps, "seconds_per_step": statistics.median(steps[1:] or steps)}
        self._record.save()

    def end(self) -> None:
        """End the current stage."""
        stage, self.part["stage"] = self.part["stage"], None
        if stage is not None:
            self.part["stages"][stage] = {"seconds": now(self._device) - self._began, **peaks(self._device)}
            self._record.save()


def make(
    record: Record, *, device: str, size: list[int], steps: int, mode: str, checkpoint: str, blocks: dict[str, int],
    limit_bytes: int | None = None,
) -> None:  # fmt: skip
    """Generate one video of random weights in one mode, in the memory of a smaller card if ``limit_bytes`` is given.

    Fills what ``Stages`` does, ``attention_backend``, ``tiling``, ``frames``, ``notes``, and ``recoveries`` (where
    memory ran out).
    """
    request = VideoSize(*size).request(prompt=PROMPT, num_inference_steps=steps, seed=0)
    with _memory_of(device, limit_bytes, record), _random(checkpoint, blocks, mode) as backend:
        _generate(backend, request, Stages(device, record, record), "video.mp4")


def make_real(record: Record, *, device: str, size: list[int], model: str, output: str) -> None:
    """Generate one video with real weights, the model's steps and the plan's choice; fills the same as ``make``."""
    with contextlib.closing(LocalBackend(model, "auto")) as backend:
        request = VideoSize(*size).request(prompt=REAL_PROMPT, seed=0)
        _generate(backend, request, Stages(device, record, record), output)


def make_several(
    record: Record, *, device: str, size: list[int], steps: int, small: list[int], small_steps: int, mode: str,
    checkpoint: str, blocks: dict[str, int],
) -> None:  # fmt: skip
    """Generate a large video, another prompt in the warm process, and one that is cancelled and resumed.

    Fills the same as ``make`` for the first video, ``warm`` and ``resumed`` for the others, and ``rows``, the checks;
    a check that fails is the error of the record.
    """
    record |= {"warm": {}, "resumed": {}}
    request = VideoSize(*size).request(prompt=PROMPT, num_inference_steps=steps, seed=0)
    other = VideoSize(*small).request(prompt=f"another {PROMPT}", num_inference_steps=small_steps, seed=0)
    with _random(checkpoint, blocks, mode) as backend:
        _generate(backend, request, Stages(device, record, record), "1.mp4")
        whole = _generate(backend, other, Stages(device, record, record["warm"]), "2.mp4")
        with contextlib.suppress(GenerationCancelledError):
            _generate(backend, other, Stages(device, record, {}), "3.mp4", True, cancel_after=small_steps // 2)
        resumed = _generate(backend, other, Stages(device, record, record["resumed"]), "3.mp4", True)
    is_equal = whole.provenance["frames_sha256"] == resumed.provenance["frames_sha256"]
    found = f"{len(record['resumed']['step_seconds'])} of {small_steps}"
    record["rows"] = [
        {"check": "steps after the resumption", "found": found},
        {"check": "frames of the resumed video equal the uninterrupted one's", "found": is_equal},
        {"check": "seconds to encode another prompt", "found": record["warm"]["stages"]["encode"]["seconds"]},
    ]
    record.save()
    assert is_equal, "the frames of the resumed video differ from those of the uninterrupted one"


def skip_steps(
    record: Record, *, device: str, size: list[int], steps: int, checkpoint: str, blocks: dict[str, int]
) -> None:
    """Denoise with each step cache, set so that it skips steps.

    Fills ``rows``, each with ``step s`` (of each step, skipped ones included), ``calls`` (of the last block) and peaks.
    """
    config = model_config(Path(checkpoint))
    request = ResolvedRequest.of(VideoSize(*size).request(num_inference_steps=steps, seed=0), dict(config.defaults))
    with repeated(blocks):
        model = load_model(config, profile_of("none"))
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
        calls: list[object] = []
        counting = last.register_forward_hook(lambda *_, calls=calls: calls.append(None))
        with record.row(cache=name) as row:
            stages = Stages(device, record, {})
            denoise(model, request, (request.width, request.height), stages, lambda note: None, lambda: False)
            stages.end()
            row |= {"step s": stages.part["step_seconds"], "calls": len(calls)} | stages.part["stages"]["denoise"]
        counting.remove()
    model.placement.close()


def _generate(
    backend: LocalBackend, request: GenerationRequest, stages: Stages, output: str, can_resume: bool = False,
    cancel_after: int | None = None,
) -> GenerationResult:  # fmt: skip
    """Generate one video in the folder of the record, or resume it."""
    part, folder, choose = stages.part, stages.folder, Tiles.choose
    notes = part.setdefault("notes", [])
    context = GenerationContext(
        output=folder / output, overwrite=True, on_note=notes.append,
        checkpoint_dir=folder / "states" if can_resume else None,
    )  # fmt: skip

    def see(progress: Progress) -> None:
        stages(progress)
        if progress.stage == "denoise" and cancel_after is not None and progress.step >= cancel_after:
            context.cancel.set()

    def chosen(self: Tiles, *args: Any) -> Tiling:
        found = choose(self, *args)
        part["tiling"] = dataclasses.asdict(found)
        return found

    context.on_progress = see
    with mock.patch.object(Tiles, "choose", chosen):
        result = backend.generate(request, context)
    stages.end()
    part |= {
        "frames": result.video.num_frames,
        "attention_backend": result.provenance["runtime"]["attention_backend"],
        "recoveries": result.provenance["recoveries"],
    }
    return result


@contextlib.contextmanager
def _random(checkpoint: str, blocks: dict[str, int], mode: str) -> Iterator[LocalBackend]:
    """The backend of random weights, which it repeats whenever it loads."""
    backend = LocalBackend(model_config(Path(checkpoint)), profile_of(mode))
    with contextlib.closing(backend), repeated(blocks):
        yield backend


@contextlib.contextmanager
def _memory_of(device: str, limit_bytes: int | None, record: dict[str, Any]) -> Iterator[None]:
    """Let torch use as much memory as a smaller card leaves it, and report that much as free."""
    if limit_bytes is None or device != "cuda":
        record["notes"] = [] if limit_bytes is None else [f"a CPU has no limit of {limit_bytes / GIB:.1f} GiB"]
        yield
        return
    usable = limit_bytes - CUDA_CONTEXT
    torch.cuda.set_per_process_memory_fraction(usable / torch.cuda.get_device_properties(0).total_memory)

    def mem_get_info(device: object = None) -> tuple[int, int]:
        return max(0, usable - torch.cuda.memory_reserved(0)), limit_bytes

    with mock.patch.object(torch.cuda, "mem_get_info", mem_get_info):
        yield
