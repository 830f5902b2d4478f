"""The trials: modes at sizes, chosen by the planner, with the planner's prediction for each.

Reads only configs, and does not need torch.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hunyuan_local.config import ModelConfig
from hunyuan_local.config.tiling import Tiling
from hunyuan_local.errors import ConfigError
from hunyuan_local.planner import Machine, Mode, ModePlan, Plan, plan
from hunyuan_local.planner.checkpoint import read_architecture
from hunyuan_local.planner.encoding import LLAMA_TOKENS
from hunyuan_local.planner.memory import forecast
from hunyuan_local.planner.modes import DTYPES, OFFLOADS, all_modes
from hunyuan_local.planner.setup import Setup, Shape
from hunyuan_local.planner.time_estimate import estimate
from hunyuan_local.schema import SIZE_MULTIPLE, TEMPORAL_COMPRESSION, GenerationRequest

_TIMES = ("encode", "step", "decode")


@dataclass(frozen=True)
class VideoSize:
    """Width, height and frames of a video."""

    width: int
    height: int
    num_frames: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.num_frames}"

    @property
    def tokens(self) -> int:
        """Tokens per attention layer: one for each 16x16 pixels and four frames, plus 256 for the text."""
        frames = (self.num_frames - 1) // TEMPORAL_COMPRESSION + 1
        return frames * (self.width // SIZE_MULTIPLE) * (self.height // SIZE_MULTIPLE) + LLAMA_TOKENS

    def request(self) -> GenerationRequest:
        """A request of this size with the model's default steps, so that the planner chooses as for a real video.

        Raises:
            InvalidRequestError: the model does not support the size.
        """
        return GenerationRequest(prompt="any", width=self.width, height=self.height, num_frames=self.num_frames)


@dataclass(frozen=True)
class Trial:
    """One mode at one size; ``predicted`` is None for a mode that the planner does not know."""

    size: VideoSize
    mode: str
    flops_per_step: int
    predicted: dict[str, Any] | None


def parse_video_size(text: str) -> VideoSize:
    """Parse a size such as ``512x320x61``.

    Raises:
        ConfigError: the text is not three numbers.
        InvalidRequestError: the model does not support the size.
    """
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if match is None:
        raise ConfigError(f"size={text!r}: must be WIDTHxHEIGHTxFRAMES, such as 512x320x61")
    size = VideoSize(*map(int, match.groups()))
    size.request()
    return size


def find_plans(model: ModelConfig, machine: Machine, sizes: Sequence[VideoSize]) -> dict[VideoSize, Plan]:
    """Plan each size on a machine, in the modes as their names run."""
    return {size: plan(size.request(), model, machine, as_named=True) for size in sizes}


def choose_trials(plans: dict[VideoSize, Plan], quick: bool, modes: Sequence[str] = ()) -> list[Trial]:
    """The trials to run: the modes that fit according to the planner, or the given ones whether they fit or not.

    Args:
        plans: plans from ``find_plans``.
        quick: only the planner's choice, and the fastest mode of each kind of offload.
        modes: names of modes.
    """
    trials = []
    for size, found in plans.items():
        known = {item.name: item for item in found.modes}
        for name in modes or _names(found, quick):
            predicted = None if name not in known else _predicted(known[name], found.machine.device)
            trials.append(Trial(size, name, found.flops_per_step, predicted))
    return trials


def expected_seconds(trials: Sequence[Trial], steps: int) -> float:
    """Predicted seconds for all trials, without loading; trials without a predicted time count as 0."""
    known = [trial.predicted["seconds"] for trial in trials if trial.predicted and trial.predicted["seconds"]]
    return sum(seconds["encode"] + steps * seconds["step"] + seconds["decode"] for seconds in known)


def with_tiling(trial: Trial, model: ModelConfig, machine: Machine, tiling: Tiling) -> Trial:
    """The trial with predictions for the tiles that decoding used, which depend on the free memory.

    Args:
        trial: trial planned with diffusers' tiles, or without tiles.
        model: model that was run, with an existing folder.
        machine: machine of the plan.
        tiling: tiles that decoding used.
    """
    mode = next((mode for mode in all_modes() if mode.name == trial.mode), None)
    if mode is None or trial.predicted is None:
        return trial
    architecture, size = read_architecture(model), trial.size
    setup = Setup(
        machine.device, mode.offload, mode.method, tiling, dict(DTYPES[machine.device]), allocator=machine.allocator
    )
    crop_start = model.prompt_template.crop_start
    shape = Shape.of(architecture, size.width, size.height, size.num_frames, crop_start)
    found = forecast(architecture, shape, setup)
    predicted, peak = copy.deepcopy(trial.predicted), found.peaks["decode"]
    predicted["host_bytes"]["decode"] = peak.host_bytes
    if machine.device == "cuda":
        predicted["gpu_bytes"]["decode"] = peak.gpu_bytes
    if predicted["seconds"] is not None:
        predicted["seconds"]["decode"] = estimate(found, setup, machine.reference, steps=1).decode
    return replace(trial, predicted=predicted)


def _names(found: Plan, quick: bool) -> list[str]:
    if found.machine.device == "cpu":  # useless there, but it runs the same code in dry runs
        return [Mode(offload).name for offload in OFFLOADS]
    fitting = [item for item in found.modes if item.fits]
    if not quick:
        return [item.name for item in fitting]
    chosen = [] if found.choice is None else [found.choice.name]
    for offload in OFFLOADS:
        own = [item for item in fitting if item.mode.offload == offload]
        chosen += [min(own, key=lambda item: item.seconds.total).name] if own else []
    return list(dict.fromkeys(chosen))


def _predicted(item: ModePlan, device: str) -> dict[str, Any]:
    """Predictions: bytes by stage, and seconds, which a mode that cannot run does not have."""
    return {
        "gpu_bytes": {stage: peak.gpu_bytes for stage, peak in item.peaks.items()} if device == "cuda" else {},
        "host_bytes": {stage: peak.host_bytes for stage, peak in item.peaks.items()},
        "needed_gpu_bytes": item.needed_gpu_bytes,
        "seconds": None if item.seconds is None else {name: getattr(item.seconds, name) for name in _TIMES},
        "does_not_fit": item.reason,
    }
