"""The plan of a request on a machine, as data: every mode, the choice, and alternatives that would fit.

Knows nothing about how the numbers are computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ..config import GIB, RuntimeProfile
from ..errors import ConfigError, GpuMemoryError, HunyuanLocalError
from ..resolved import FilledRequest
from .compiling import Compiling
from .machine import Machine
from .memory import Peak
from .modes import OFFLOADS, Mode
from .setup import Stage
from .time_estimate import Seconds

# Times within this share of the best count as equal: estimates are within 13 % of published times (plan_accuracy.py).
SAME_TIME = 0.05
# So do times within this many seconds: reading the model takes longer, in every mode.
SAME_SECONDS = 15.0


@dataclass(frozen=True)
class ComponentWeights:
    """One component's number of parameters, dtype and bytes."""

    component: str
    parameters: int
    dtype: str
    bytes: int


@dataclass(frozen=True)
class ModePlan:
    """What one mode needs.

    Attributes:
        mode: the mode.
        peaks: peak memory by stage.
        gpu_peak_bytes: peak of torch's allocations on the GPU; 0 on a CPU.
        host_peak_bytes: peak of main memory.
        needed_gpu_bytes: total memory a card needs for it, including the CUDA context and fragmentation.
        seconds: estimated time by stage; None if the mode cannot run.
        reason: why it does not fit; None if it does.
        needed_gpu_range: the lowest and highest total memory that a card may need, by the range of fragmentation.
        seconds_range: the lowest and highest total of ``seconds``, by the range of the GPU's speed; None if the mode
            cannot run, or if the GPU has been measured.
        text_stays: whether the text encoders stay on the GPU between prompts.
        compiling: what compiling the blocks would save; None if the plan does not consider it.
    """

    mode: Mode
    peaks: dict[Stage, Peak]
    gpu_peak_bytes: int
    host_peak_bytes: int
    needed_gpu_bytes: int
    seconds: Seconds | None
    reason: str | None
    needed_gpu_range: tuple[int, int] = (0, 0)
    seconds_range: tuple[float, float] | None = None
    text_stays: bool = False
    compiling: Compiling | None = None

    @property
    def compile(self) -> bool:
        """Whether the plan compiles the transformer's blocks in this mode."""
        return self.compiling is not None and self.compiling.pays

    @property
    def name(self) -> str:
        """The mode's name."""
        return self.mode.name

    @property
    def fits(self) -> bool:
        """Whether the machine can run it."""
        return self.reason is None

    def to_json(self) -> dict[str, Any]:
        """One entry of ``modes`` in ``Plan.to_json``; sizes in bytes."""
        return {
            "name": self.name,
            "offload": self.mode.offload,
            "quantization": self.mode.quantization,
            "vae_tiling": self.mode.vae_tiling,
            "gpu_peak_bytes": self.gpu_peak_bytes,
            "host_peak_bytes": self.host_peak_bytes,
            "needed_gpu_bytes": self.needed_gpu_bytes,
            "needed_gpu_range": list(self.needed_gpu_range),
            "stage_peaks": {stage: asdict(peak) for stage, peak in self.peaks.items()},
            "fits": self.fits,
            "reason": self.reason,
            "seconds": None if self.seconds is None else round(self.seconds.total, 1),
            "seconds_range": None if self.seconds_range is None else [round(end, 1) for end in self.seconds_range],
            "text_encoders_stay": self.text_stays,
            "compile": self.compile,
        }


@dataclass(frozen=True)
class Alternative:
    """A request close to one that does not fit, which would fit in this mode."""

    width: int
    height: int
    num_frames: int
    mode: str

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, {self.num_frames} frames ({self.mode})"


@dataclass(frozen=True)
class Plan:
    """All modes of a request on a machine.

    Attributes:
        request: the request with the model's defaults; the seed may be open.
        model: the name of its config.
        architecture: which files describe its components.
        render_size: (width, height) in pixels at which the model renders.
        machine: the machine that was planned for.
        weights: each component's weights, unquantized.
        flops_per_step: floating-point operations of one denoising step.
        modes: in the order of ``all_modes``.
        assumptions: the assumptions behind times and limits, as text.
        notes: what the plan chose apart from the mode, and what it warns of, as text.
        find_alternatives: searches for requests close to this one that would fit.
    """

    request: FilledRequest
    model: str
    architecture: str
    render_size: tuple[int, int]
    machine: Machine
    weights: tuple[ComponentWeights, ...]
    flops_per_step: int
    modes: tuple[ModePlan, ...]
    assumptions: tuple[str, ...]
    find_alternatives: Callable[[], list[Alternative]]
    notes: tuple[str, ...] = ()

    @property
    def choice(self) -> ModePlan | None:
        """The fastest mode that fits; of those that differ by less than the estimate's accuracy, the plainest."""
        return fastest(self.modes)

    @cached_property
    def nearest(self) -> list[Alternative]:
        """If nothing fits: requests close to this one that would."""
        return [] if self.choice is not None else self.find_alternatives()

    def require_choice(self) -> ModePlan:
        """The choice, or an error if there is none.

        Raises:
            GpuMemoryError: no mode fits in memory; names the closest requests that would fit.
            ConfigError: the machine cannot run the model in any mode, regardless of its memory.
        """
        if self.choice is None:
            raise self._refusal()
        return self.choice

    def like(self, profile: RuntimeProfile) -> ModePlan | None:
        """The fastest fitting mode that differs from a loaded profile at most in tiling, which needs no reload."""
        loaded = (profile.offload, profile.quantization)
        holds_text = profile.offload == "none" and profile.residence("text_encoder") == "device"
        alike = (item for item in self.modes if (item.mode.offload, item.mode.quantization) == loaded)
        return fastest(tuple(item for item in alike if item.text_stays or not holds_text))

    def to_json(self) -> dict[str, Any]:
        """Everything except the prompts; sizes in bytes, times in seconds."""
        return {
            "request": self.request.model_dump(exclude={"prompt", "negative_prompt"}),
            "modes": [plan.to_json() for plan in self.modes],
            "choice": None if self.choice is None else self.choice.name,
            "nearest": [asdict(alternative) for alternative in self.nearest],
            "model": self.model,
            "architecture": self.architecture,
            "render_size": list(self.render_size),
            "machine": {
                "device": self.machine.device,
                "gpu": None if self.machine.gpu is None else self.machine.gpu.title,
                "gpu_stands_in": None if self.machine.gpu is None else self.machine.gpu.stands_in,
                "gpu_memory_bytes": self.machine.gpu_memory_bytes,
                "host_memory_bytes": self.machine.host_memory_bytes,
            },
            "weights": [asdict(item) for item in self.weights],
            "flops_per_step": self.flops_per_step,
            "assumptions": list(self.assumptions),
            "notes": list(self.notes),
        }

    def _refusal(self) -> HunyuanLocalError:
        size = f"{self.request.width}x{self.request.height}, {self.request.num_frames} frames"
        possible = [plan for plan in self.modes if plan.seconds is not None]
        if not possible:
            reasons = "; ".join(dict.fromkeys(plan.reason for plan in self.modes if plan.reason))
            return ConfigError(f"{self.model} cannot run on this machine: {reasons}; plan for another GPU (--gpu)")
        least_gpu = min(plan.needed_gpu_bytes for plan in possible)
        least_host = min(plan.host_peak_bytes for plan in possible)
        have = [] if self.machine.gpu_memory_bytes is None else [
            f"{gib(self.machine.gpu_memory_bytes)} of GPU memory (the least that any mode needs is {gib(least_gpu)})"
        ]  # fmt: skip
        if self.machine.host_memory_bytes is not None:
            have.append(f"{gib(self.machine.host_memory_bytes)} of host memory (at least {gib(least_host)})")
        found = "; or ".join(map(str, self.nearest))
        remedy = f"what would fit: {found}" if found else "no smaller request of this model would fit either"
        return GpuMemoryError(f"{size}: no mode of {self.model} fits {' and '.join(have)}; {remedy}")


def fastest(modes: tuple[ModePlan, ...]) -> ModePlan | None:
    """The fastest of the modes that fit; of about equally fast ones (``as_fast``), the plainest.

    Full precision is plainer than quantization, then less offload, then no tiling.
    """
    fitting = [(mode, mode.seconds) for mode in modes if mode.fits and mode.seconds is not None]
    if not fitting:
        return None
    limit = as_fast(min(seconds.first for _, seconds in fitting))
    return min((timed for timed in fitting if timed[1].first <= limit), key=_plainness)[0]


def as_fast(best: float) -> float:
    """The largest number of seconds that counts as equally fast as the best."""
    return max(best * (1 + SAME_TIME), best + SAME_SECONDS)


def _plainness(timed: tuple[ModePlan, Seconds]) -> tuple[bool, int, bool, float]:
    mode, seconds = timed[0].mode, timed[1]
    return mode.quantization is not None, OFFLOADS.index(mode.offload), mode.vae_tiling, seconds.total


def gib(size: int) -> str:
    """A size in GiB with one decimal."""
    return f"{size / GIB:.1f} GiB"
