"""What to try when the device's memory runs out: smaller tiles, then the next offload, then less precision.

Each way is tried once, and only a bounded number of them. Decides, and loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...config import ModelConfig, Quantization, RuntimeProfile
from ...errors import ConfigError, GpuMemoryError
from ...planner import Plan
from ...planner.modes import OFFLOADS
from ...planner.result import gib

# Why a profile cannot run on this machine, or None if it can.
WhyImpossible = Callable[[RuntimeProfile], str | None]


@dataclass(frozen=True)
class Retry:
    """One change of how the model is run, and what to tell of it."""

    profile: RuntimeProfile
    shrink_tiles: bool
    text: str


class OutOfMemoryFallback:
    """What is left to try below one profile, for one video.

    Args:
        profile: where it begins; its ``on_oom`` bounds how often.
        why_impossible: leaves out what the machine cannot do at all.
    """

    def __init__(self, profile: RuntimeProfile, why_impossible: WhyImpossible):
        self.profile = profile
        self._why_impossible = why_impossible
        self._taken: list[str] = []

    @property
    def taken(self) -> list[str]:
        """What was changed so far, one sentence each."""
        return list(self._taken)

    def next_retry(self, error: GpuMemoryError, can_shrink: bool) -> Retry:
        """The next thing to try after this error.

        Args:
            error: says in which stage the memory ran out.
            can_shrink: whether the autoencoder's tiles can be made smaller.

        Raises:
            GpuMemoryError: nothing is left to try; with the stage, the peak and what was tried.
        """
        retry = None
        if len(self._taken) + 1 < self.profile.on_oom.attempts:
            retry = self._next(error, can_shrink)
        if retry is None:
            raise GpuMemoryError(self._give_up(error), error.stage, error.peak_bytes)
        self._taken.append(retry.text)
        self.profile = retry.profile
        return retry

    def _next(self, error: GpuMemoryError, can_shrink: bool) -> Retry | None:
        profile, where = self.profile, f"the device's memory ran out in the stage {error.stage}"
        if error.stage == "decode" and can_shrink:
            tiled = profile.model_copy(update={"vae_tiling": True})
            return Retry(tiled, True, f"{where}: went on with smaller tiles")
        for offload in OFFLOADS[OFFLOADS.index(profile.offload) + 1 :]:
            # Compiled blocks cannot be moved layer by layer.
            compiled = profile.compile and offload != "sequential"
            lower = profile.model_copy(update={"offload": offload, "compile": compiled})
            if self._why_impossible(lower) is None:
                return Retry(lower, False, f"{where}: went on with offload {offload} in the place of {profile.offload}")
        for quantization in self._untried():
            for offload in reversed(OFFLOADS):
                compiled = profile.compile and offload != "sequential"
                changes = {"offload": offload, "quantization": quantization, "compile": compiled}
                lower = profile.model_copy(update=changes)
                if self._why_impossible(lower) is None:
                    text = f"{where}: went on with the transformer in {quantization}, which changes the frames"
                    return Retry(lower, False, text)
        return None

    def _untried(self) -> tuple[Quantization, ...]:
        """Precisions that are allowed and come after the present one."""
        allowed, present = self.profile.on_oom.quantization, self.profile.quantization
        return allowed[allowed.index(present) + 1 :] if present in allowed else allowed

    def _give_up(self, error: GpuMemoryError) -> str:
        peak = "" if error.peak_bytes is None else f"; {gib(error.peak_bytes)} were allocated at the peak"
        tried = f"; tried before: {'; '.join(self._taken)}" if self._taken else ""
        return f"{error}{peak}{tried}"


def why_impossible(config: ModelConfig, profile: RuntimeProfile) -> str | None:
    """Why the loader would refuse a profile here, or None if it would not."""
    from ...pipeline.loading.loader import check_precision

    try:
        check_precision(config, profile)
    except ConfigError as error:
        return str(error)
    return None


def remedy(found: Plan) -> str:
    """What to do by the plan when everything has been tried."""
    if found.choice is not None:
        return (
            f"the plan expects --profile {found.choice.name} to fit: other programs may hold the memory; or ask for "
            "fewer frames or a smaller size, or allow less precision (on_oom: {quantization: [fp8]} in a profile)"
        )
    nearest = "; or ".join(map(str, found.nearest))
    return f"what should fit: {nearest}" if nearest else "no smaller request of this model would fit either"
