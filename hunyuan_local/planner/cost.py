"""Seconds of a video: operations at an assumed share of the GPU's peak, and bytes over assumed links.

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
# The share of the slot's bandwidth from page-locked memory: 0.83 to 0.87 on an H100
# (benchmarks/results/nvidia-h100-80gb-hbm3-copies.json, as the next two).
PINNED_SHARE = 0.8
# GB/s from plain memory, which the processor copies first: 5.8 to 7.0.
PAGEABLE_GBS = 6.0
# GB/s back to plain memory that is new each time, as module.to("cpu") takes it: 1.2 to 1.4, most of it spent by the
# system on handing out pages; memory that is there takes 11 to 14. Measured on a virtual machine.
PAGEABLE_BACK_GBS = 1.3
# GB/s at which weights are copied into page-locked memory that is new: 0.9 to 1.8.
PINNING_GBS = 1.3
# GB/s from disk: assumed, as an NVMe disk reads large files.
DISK_GBS = 2.0
# The share of NVLink's bandwidth that NCCL reaches: 370 of 450 GB/s (NVIDIA/nccl-tests, issue 212).
NVLINK_SHARE = 0.8
# Of one slot's bandwidth, what all cards of a server without NVLink have together for swapping: what one sends
# another goes through main memory. Read off ParaAttention's times on 2, 4 and 8 L20 (benchmarks/plan_accuracy.py).
SLOTS_SHARE = 0.4
# What each further card adds to a shared step's time, for waiting and for work that is not shared. Read off the times
# of HunyuanVideo's README on 2, 4 and 8 H100 (benchmarks/plan_accuracy.py).
PARALLEL_LOSS = 0.03

Kernel = Literal["flash", "flash2"]


@dataclass(frozen=True)
class Seconds:
    """A video's time by stage; ``step`` is one denoising step, all of its forward passes included.

    Attributes:
        visit: the part of ``encode`` for which the text encoders come to the GPU and leave it again: prompts that
            are encoded one after the other share it.
        pinning: once a process, when the model is loaded: page-locked copies of what is streamed. Not in ``total``.
        exchange: the part of ``step`` in which cards that share it send each other what they need.
    """

    encode: float
    step: float
    denoise: float
    decode: float
    visit: float = 0.0
    pinning: float = 0.0
    exchange: float = 0.0

    @property
    def total(self) -> float:
        """Of the whole video, without loading."""
        return self.encode + self.denoise + self.decode

    @property
    def first(self) -> float:
        """Of the whole video in a new process, without reading the files, which takes the same in every mode."""
        return self.pinning + self.total


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
    encode = _compute(found.costs["encode"], setup, gpu, kernel) * passes
    step = _compute(found.costs["denoise"], setup, gpu, kernel)
    decode = _compute(found.costs["decode"], setup, gpu, kernel)
    if gpu is None:
        return Seconds(encode, step * passes, step * passes * steps, decode)
    exchange = exchange_seconds(found.costs["denoise"].exchanged_bytes, gpu, setup.cards)
    step = step * (1 + PARALLEL_LOSS * (setup.cards - 1)) + exchange
    transformer, vae = found.stored["transformer"], found.stored["vae"]
    llama, clip = found.stored["text_encoder"], found.stored["text_encoder_2"]
    text = llama.total + clip.total
    pinned, plain = gpu.pcie_gbs * 1e9 * PINNED_SHARE, _plain_rate(gpu)
    visit = once = pinning = 0.0
    if setup.offload == "none" and setup.loads_by_part:
        visit = _there_and_back(text, gpu)  # the text encoders come for the encoding, and go
    elif setup.offload == "model":
        # Each component goes there and, when the next one is wanted, back.
        visit = _there_and_back(text, gpu)
        once = _there_and_back(transformer.total, gpu) if setup.method.movable else 0.0
        decode += _there_and_back(vae.total, gpu)
    elif setup.offload == "group":
        # The library fetches the next block while one runs, and yet a step took about as long as both together: 0.58 s
        # of computation and 0.50 of copies in 1.23 s through the package, in 0.87 s without a pipeline around it
        # (benchmarks/results, H100). What is outside the blocks it copies to and fro by itself.
        outside = _there_and_back(llama.rest + clip.total, gpu)
        encode += (sum(llama.blocks) / pinned + outside) * passes
        step += transformer.total / pinned
        pinning = (transformer.total + llama.total) / (PINNING_GBS * 1e9)
    elif setup.offload == "sequential":
        encode, step = encode + text / plain * passes, step + transformer.total / plain
        decode += vae.total / plain
    step, exchange = step * passes, exchange * passes
    return Seconds(encode + visit, step, step * steps + once, decode, visit, pinning, exchange)


def exchange_seconds(size: int, gpu: GpuSpec, cards: int) -> float:
    """Seconds in which each of so many cards sends ``size`` bytes to the others.

    Over NVLink each has a link of its own; without it all share what one slot can take through main memory.
    """
    if gpu.nvlink_gbs:
        return size / (gpu.nvlink_gbs * 1e9 * NVLINK_SHARE)
    return size * cards / (gpu.pcie_gbs * 1e9 * SLOTS_SHARE)


def _plain_rate(gpu: GpuSpec) -> float:
    """Bytes a second to the GPU from plain memory."""
    return min(PAGEABLE_GBS, gpu.pcie_gbs * PINNED_SHARE) * 1e9


def _there_and_back(size: int, gpu: GpuSpec) -> float:
    """Seconds in which weights come from plain memory and go back to new plain memory."""
    return size / _plain_rate(gpu) + size / (PAGEABLE_BACK_GBS * 1e9)


def _compute(cost: Cost, setup: Setup, gpu: GpuSpec | None, kernel: Kernel) -> float:
    """Seconds of computation."""
    if gpu is None:
        return cost.flops / ((os.cpu_count() or 1) * CPU_CORE_FLOPS)
    peak, shares = gpu.bf16_tflops * 1e12, gpu.utilisation
    if peak == 0:
        return float("inf")
    attention: float = {"none": getattr(shares, kernel), "row": shares.masked, "square": shares.square}[setup.mask]
    return (
        cost.attention_flops / (peak * attention)
        + cost.matmul_flops / (peak * shares.matmul * setup.method.matmul_speed)
        + cost.convolution_flops / (peak * shares.convolution)
        + cost.moved_bytes / (gpu.bandwidth_gbs * 1e9 * BANDWIDTH_SHARE)
    )
