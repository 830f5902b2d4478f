"""Fallbacks when the device runs out of memory: smaller tiles, then more offload, then lower precision.

Each fallback is tried once, up to a limit. This module only decides; it does not load models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...config import ModelConfig, Quantization, RuntimeProfile
from ...errors import ConfigError, GpuMemoryError
from ...planner import Plan
from ...planner.modes import OFFLOADS
from ...planner.result import gib

# Returns why a profile cannot run on this machine, or None if it can.
WhyImpossible = Callable[[RuntimeProfile], str | None]


@dataclass(frozen=True)
class Retry:
    """One change to the way the model runs, and the note about it."""

    profile: RuntimeProfile
    shrink_tiles: bool
    text: str


class OutOfMemoryFallback:
    """The remaining fallbacks of a profile for one video.

    Args:
        profile: the first profile; its ``on_oom.attempts`` limits the number of attempts.
        why_impossible: excludes profiles that cannot run on this machine.
    """

    def __init__(self, profile: RuntimeProfile, why_impossible: WhyImpossible):
        self.profile = profile
        self._why_impossible = why_impossible
        self._taken: list[str] = []

    @property
    def taken(self) -> list[str]:
        """The changes made so far, one sentence each."""
        return list(self._taken)

    def next_retry(self, error: GpuMemoryError, can_shrink: bool) -> Retry:
        """The next fallback after this error.

        Args:
            error: names the stage in which memory ran out.
            can_shrink: whether the VAE tiles can be made smaller.

        Raises:
            GpuMemoryError: no fallback is left; the message has the stage, the peak and the fallbacks tried.
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
        profile, where = self.profile, f"out of device memory in the {error.stage} stage"
        if error.stage == "decode" and can_shrink:
            tiled = profile.model_copy(update={"vae_tiling": True})
            return Retry(tiled, True, f"{where}: continued with smaller tiles")
        if (leaving := _without_text(profile)) is not None:
            return Retry(
                leaving, False, f"{where}: continued with the text encoders on the device only while they encode"
            )
        for offload in OFFLOADS[OFFLOADS.index(profile.offload) + 1 :]:
            # Compiled blocks cannot be moved layer by layer.
            compiled = profile.compile and offload != "sequential"
            lower = profile.model_copy(update={"offload": offload, "compile": compiled})
            if self._why_impossible(lower) is None:
                return Retry(lower, False, f"{where}: continued with offload {offload} instead of {profile.offload}")
        for quantization in self._untried():
            for offload in reversed(OFFLOADS):
                compiled = profile.compile and offload != "sequential"
                changes = {"offload": offload, "quantization": quantization, "compile": compiled}
                lower = profile.model_copy(update=changes)
                if self._why_impossible(lower) is None:
                    text = f"{where}: continued with the transformer in {quantization}, which changes the frames"
                    return Retry(lower, False, text)
        return None

    def _untried(self) -> tuple[Quantization, ...]:
        """Allowed quantization methods after the current one."""
        allowed, present = self.profile.on_oom.quantization, self.profile.quantization
        return allowed[allowed.index(present) + 1 :] if present in allowed else allowed

    def _give_up(self, error: GpuMemoryError) -> str:
        peak = "" if error.peak_bytes is None else f"; peak allocation {gib(error.peak_bytes)}"
        tried = f"; already tried: {'; '.join(self._taken)}" if self._taken else ""
        return f"{error}{peak}{tried}"


def _without_text(profile: RuntimeProfile) -> RuntimeProfile | None:
    """The profile without text encoders that stay on the device; None if none of them does by ``placement``."""
    kept = [name for name in ("text_encoder", "text_encoder_2") if getattr(profile.placement, name) == "device"]
    if not kept or profile.device == "cpu":
        return None
    return profile.model_copy(update={"placement": profile.placement.model_copy(update=dict.fromkeys(kept))})


def why_impossible(config: ModelConfig, profile: RuntimeProfile) -> str | None:
    """Why the loader would refuse a profile on this machine, or None if it would not."""
    from ...pipeline.loading.loader import check_precision

    try:
        check_precision(config, profile)
    except ConfigError as error:
        return str(error)
    return None


def remedy(found: Plan) -> str:
    """What the user can do, according to the plan, when no fallback is left."""
    if found.choice is not None:
        return (
            f"the plan expects --profile {found.choice.name} to fit: other programs may be using the memory; or use "
            "fewer frames or a smaller size, or allow lower precision (on_oom: {quantization: [fp8]} in a profile)"
        )
    nearest = "; or ".join(map(str, found.nearest))
    return f"should fit: {nearest}" if nearest else "no smaller request for this model fits either"
