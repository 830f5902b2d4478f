"""Seconds of a video: operations at an assumed share of the GPU's peak, and weights over an assumed bus.

An estimate; the shares are those of ``configs/gpus.yaml``, each with its source. Loading the model from
disk is not part of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from .machine import CPU_CORE_FLOPS, GpuSpec
from .memory import Forecast, Setup
from .trace import Cost

# The share of the memory's bandwidth that elementwise kernels reach.
BANDWIDTH_SHARE = 0.8
# The share of the slot's bandwidth: from page-locked memory, and from plain memory, which is copied twice.
PINNED_SHARE, PAGEABLE_SHARE = 0.8, 0.3

Kernel = Literal["flash", "flash2"]


@dataclass(frozen=True)
class Seconds:
    """A video's time by stage; ``step`` is one denoising step, all of its forward passes included."""

    encode: float
    step: float
    denoise: float
    decode: float

    @property
    def total(self) -> float:
        """Of the whole video, without loading."""
        return self.encode + self.denoise + self.decode


def estimate(
    found: Forecast, setup: Setup, gpu: GpuSpec | None, steps: int, passes: int = 1, kernel: Kernel = "flash"
) -> Seconds:
    """Time of a video of so many steps, each of ``passes`` forward passes (two with true guidance).

    Args:
        found: its costs.
        setup: how it is run.
        gpu: whose speed is taken; None is this CPU.
        steps: denoising steps.
        passes: forward passes a step.
        kernel: the attention where no mask is in the way.
    """
    transformer, vae = found.stored["transformer"].total, found.stored["vae"].total
    text = found.stored["text_encoder"].total + found.stored["text_encoder_2"].total
    encode = _compute(found.costs["encode"], setup, gpu, kernel)
    step = _compute(found.costs["denoise"], setup, gpu, kernel)
    decode = _compute(found.costs["decode"], setup, gpu, kernel)
    if gpu is None:
        return Seconds(encode * passes, step * passes, step * passes * steps, decode)
    pinned, pageable = (gpu.pcie_gbs * 1e9 * share for share in (PINNED_SHARE, PAGEABLE_SHARE))
    once = 0.0
    if setup.offload == "none" and setup.loads_by_part:
        encode += 2 * text / pageable  # the text encoders come for the encoding, and go
    elif setup.offload == "model":
        # Each component goes there and, when the next one is wanted, back.
        encode += 2 * text / pageable
        once = 2 * transformer / pageable if setup.method.movable else 0.0
        decode += 2 * vae / pageable
    elif setup.offload == "group":
        # The next block is fetched while one runs.
        encode = max(encode, text / pinned)
        step = max(step, transformer / pinned)
    elif setup.offload == "sequential":
        encode, step, decode = encode + text / pageable, step + transformer / pageable, decode + vae / pageable
    return Seconds(encode * passes, step * passes, step * passes * steps + once, decode)


def _compute(cost: Cost, setup: Setup, gpu: GpuSpec | None, kernel: Kernel) -> float:
    """Seconds of computation."""
    if gpu is None:
        return cost.flops / ((os.cpu_count() or 1) * CPU_CORE_FLOPS)
    peak, shares = gpu.bf16_tflops * 1e12, gpu.utilisation
    if peak == 0:
        return float("inf")
    attention = shares.masked if setup.mask != "none" else getattr(shares, kernel)
    return (
        cost.attention_flops / (peak * attention)
        + cost.matmul_flops / (peak * shares.matmul * setup.method.matmul_speed)
        + cost.convolution_flops / (peak * shares.convolution)
        + cost.moved_bytes / (gpu.bandwidth_gbs * 1e9 * BANDWIDTH_SHARE)
    )
