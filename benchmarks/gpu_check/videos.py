"""Whole videos through the package's local backend, from weights to the file, also in the memory of a smaller card."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import GIB
from hunyuan_local.config.tiling import Tiling
from hunyuan_local.errors import GenerationCancelledError
from hunyuan_local.planner.memory import CUDA_CONTEXT
from hunyuan_local.planner.tiles import Tiles
from hunyuan_local.schema import GenerationRequest, GenerationResult, Progress

from .checkpoint import repeated
from .plans import model_config
from .timing import now, peaks, reset_peaks
from .variants import profile_of

# With random weights, longer than the 256 tokens that the model reads, as the planner assumes.
REAL_PROMPT = "a red circle moving right on a black background"
PROMPT = f"{REAL_PROMPT}, " * 40


class Stages:
    """Records seconds and peak memory of each stage of one video in ``record["stages"]``; a callback for progress."""

    def __init__(self, device: str, record: dict[str, Any], save: Callable[[], None]):
        self._device, self._record, self._save = device, record, save
        record |= {"stage": None, "stages": {}, "step_seconds": []}
        self._began = 0.0
        self._ends: list[float] = []

    def __call__(self, progress: Progress) -> None:
        """Begin a stage, or note the end of a step; there is one report before the first step."""
        time = now(self._device)
        if progress.stage != self._record["stage"]:
            self.end()
            self._record["stage"] = progress.stage
            self._began, self._ends = time, []
            reset_peaks(self._device)
        if progress.stage == "denoise":
            self._ends.append(time)
            steps = [after - before for before, after in itertools.pairwise(self._ends)]
            if steps:
                self._record |= {"step_seconds": steps, "seconds_per_step": statistics.median(steps[1:] or steps)}
        self._save()

    def end(self) -> None:
        """End the current stage."""
        stage, self._record["stage"] = self._record["stage"], None
        if stage is not None:
            seconds = now(self._device) - self._began
            self._record["stages"][stage] = {"seconds": seconds, **peaks(self._device)}
            self._save()


def make(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Generate one video in one mode; fill ``record``.

    Args:
        task: ``device``, ``size`` (width, height, frames), ``steps`` (None for the model's), ``output``; ``model``, a
            real model's name, folder or Hub id, or ``checkpoint``, a folder of random weights, with ``blocks``, its
            counts by list; ``mode``, ``auto`` for the plan's choice; and ``limit_bytes``, the memory of the card to
            imitate, or None.
        record: gets ``stages``, ``step_seconds``, ``seconds_per_step`` (median of the steps after the first),
            ``attention_backend``, ``tiling``, ``frames``, ``notes``, and ``recoveries`` (where memory ran out).
        save: saves the current record.

    Raises:
        HunyuanLocalError: unknown mode, out of memory, missing files, or invalid frames.
    """
    prompt = PROMPT if task.get("model") is None else REAL_PROMPT
    with _memory_of(task, record), _tiles(record), _backend(task) as backend:
        _generate(backend, _request(task, prompt), task, record, save)


def make_several(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Generate a large video, another prompt in the warm process, and one that is cancelled and resumed.

    Args:
        task: as for ``make``; also ``small`` and ``small_steps``, the size and steps of the other videos.
        record: as for ``make``, of the first video; also ``warm`` and ``resumed`` of the others, and ``rows``, the
            checks; a check that fails is the error of the record.
        save: saves the current record.

    Raises:
        AssertionError: the resumed video's frames differ from the uninterrupted one's.
    """
    make_first = task | {"output": f"{task['output']}-1.mp4"}
    small = task | {"size": task["small"], "steps": task["small_steps"]}
    with _tiles(record), _backend(task) as backend:
        _generate(backend, _request(task, PROMPT), make_first, record, save)
        record["warm"] = {}
        request = _request(small, f"another prompt, {PROMPT}")
        whole = _generate(backend, request, small | {"output": f"{task['output']}-2.mp4"}, record["warm"], save)

        record["resumed"] = {}
        third = small | {"output": f"{task['output']}-3.mp4", "states": f"{task['output']}-states"}
        with contextlib.suppress(GenerationCancelledError):
            _generate(backend, request, third, {}, save, cancel_after=task["small_steps"] // 2)
        resumed = _generate(backend, request, third, record["resumed"], save)
    steps = len(record["resumed"]["step_seconds"])
    equal = [found.provenance["frames_sha256"] for found in (whole, resumed)]
    record["rows"] = [
        {"check": "steps after the resumption", "found": f"{steps} of {task['small_steps']}"},
        {"check": "frames of the resumed video equal the uninterrupted one's", "found": equal[0] == equal[1]},
        {"check": "seconds to encode another prompt", "found": record["warm"]["stages"]["encode"]["seconds"]},
    ]
    save()
    assert equal[0] == equal[1], "the frames of the resumed video differ from those of the uninterrupted one"


def _generate(
    backend: LocalBackend, request: GenerationRequest, task: dict[str, Any], record: dict[str, Any],
    save: Callable[[], None], cancel_after: int | None = None,
) -> GenerationResult:  # fmt: skip
    """Generate one video and fill its record."""
    stages, notes = Stages(task["device"], record, save), record.setdefault("notes", [])
    states = task.get("states")
    context = GenerationContext(
        output=Path(task["output"]), overwrite=True, on_note=notes.append,
        checkpoint_dir=None if states is None else Path(states),
    )  # fmt: skip

    def see(progress: Progress) -> None:
        stages(progress)
        if progress.stage == "denoise" and cancel_after is not None and progress.step >= cancel_after:
            context.cancel.set()

    context.on_progress = see
    result = backend.generate(request, context)
    stages.end()
    record |= {
        "frames": result.video.num_frames,
        "attention_backend": result.provenance["runtime"]["attention_backend"],
        "recoveries": result.provenance["recoveries"],
    }
    save()
    return result


def _request(task: dict[str, Any], prompt: str) -> GenerationRequest:
    width, height, frames = task["size"]
    return GenerationRequest(
        prompt=prompt, width=width, height=height, num_frames=frames, num_inference_steps=task["steps"], seed=0
    )


@contextlib.contextmanager
def _backend(task: dict[str, Any]) -> Iterator[LocalBackend]:
    """The backend of a real model, or of random weights, which it repeats whenever it loads."""
    if task.get("model") is not None:
        backend = LocalBackend(task["model"], task["mode"])
    else:
        backend = LocalBackend(model_config(Path(task["checkpoint"])), profile_of(task["mode"]))
    try:
        with repeated(task["blocks"]) if task.get("model") is None else contextlib.nullcontext():
            yield backend
    finally:
        backend.close()


@contextlib.contextmanager
def _tiles(record: dict[str, Any]) -> Iterator[None]:
    """Record the tiles that the package chooses."""
    choose = Tiles.choose

    def chosen(self: Tiles, *args: Any) -> Tiling:
        found = choose(self, *args)
        record["tiling"] = dataclasses.asdict(found)
        return found

    with mock.patch.object(Tiles, "choose", chosen):
        yield


@contextlib.contextmanager
def _memory_of(task: dict[str, Any], record: dict[str, Any]) -> Iterator[None]:
    """Let torch use as much memory as a smaller card leaves it, and report that much as free."""
    limit = task.get("limit_bytes")
    if limit is None or task["device"] != "cuda":
        record["notes"] = [] if limit is None else [f"a CPU has no limit of {limit / GIB:.1f} GiB"]
        yield
        return
    usable = limit - CUDA_CONTEXT
    torch.cuda.set_per_process_memory_fraction(usable / torch.cuda.get_device_properties(0).total_memory)

    def mem_get_info(device: object = None) -> tuple[int, int]:
        return max(0, usable - torch.cuda.memory_reserved(0)), limit

    with mock.patch.object(torch.cuda, "mem_get_info", mem_get_info):
        yield
