"""Whether compiling the transformer's blocks saves more time than it takes, counted from the bytes they no longer move.

Compiled blocks run the operations between matrix products and attention as a few kernels. Nobody has measured them with
this model on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from .architecture import Transformer
from .machine import Machine
from .memory import Forecast
from .modes import Mode
from .time_estimate import BANDWIDTH_SHARE, COMPILE_SECONDS

# Compiling is chosen if it saves this many times what it takes, because both numbers are assumptions.
MARGIN = 2.0
# Tensors of [tokens, width] that a compiled block reads or writes between matrix products and attention, by count:
# normalized and modulated input 2, queries and keys 4, joined tensors 6, residuals 5, and GELU 8 of four widths.
TENSORS_A_BLOCK = 25


@dataclass(frozen=True)
class Compiling:
    """What compiling costs and saves for this many videos of one size.

    Attributes:
        saved_a_step: seconds that a step with all its forward passes becomes shorter.
        saved: seconds that all videos together become shorter, without the time to compile.
        videos: number of videos.
        why_not: why the blocks are not compiled regardless of time; None if they can be.
    """

    saved_a_step: float
    saved: float
    videos: int
    why_not: str | None = None

    @property
    def pays(self) -> bool:
        """Whether the plan compiles."""
        return self.why_not is None and self.saved >= MARGIN * COMPILE_SECONDS

    def __str__(self) -> str:
        many = "this video" if self.videos == 1 else f"{self.videos:,} videos"
        sums = (
            f"about {COMPILE_SECONDS:.0f} s once, about {self.saved_a_step:.1f} s saved a step, "
            f"{self.saved:,.0f} s for {many} (counted, not measured)"
        )
        if self.pays:
            return f"compile: chosen: {sums}; a profile with compile: false turns it off"
        return f"compile: not chosen: {self.why_not or sums}"


def saved_bytes(found: Forecast, config: Transformer) -> int:
    """Bytes that one forward pass moves less if the blocks are compiled.

    Args:
        found: the costs of a video.
        config: the transformer.
    """
    blocks = config.num_layers + config.num_single_layers
    return max(0, found.costs["denoise"].moved_bytes - blocks * TENSORS_A_BLOCK * found.tokens * config.width * 2)


def weigh_compiling(a_pass: int, machine: Machine, steps: int, passes: int, videos: int) -> Compiling | None:
    """What compiling would save; None without a GPU of known or assumed speed.

    Args:
        a_pass: ``saved_bytes`` of one forward pass.
        machine: the machine of the plan.
        steps, passes, videos: denoising steps, forward passes per step, and videos of this size.
    """
    gpu = machine.reference
    if gpu is None:
        return None
    saved = a_pass * passes / (gpu.bandwidth_gbs * 1e9 * BANDWIDTH_SHARE)
    return Compiling(saved, saved * steps * videos, videos, machine.why_not_compile)


def can_compile(mode: Mode, cards: int) -> bool:
    """Whether the plan considers it: whole components on one GPU in full precision.

    Streamed, quantized and shared blocks can or cannot be compiled too, but what it saves is not known.
    """
    return mode.offload in ("none", "model") and mode.quantization is None and cards == 1
