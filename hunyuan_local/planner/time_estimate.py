"""Estimates the seconds of a video from its FLOPs and bytes.

Per stage: ``sum over kinds of FLOPs / (peak FLOP/s * share of this kind) + moved bytes / (0.8 * memory bandwidth)``,
plus the time to copy weights and to exchange tensors between cards. The shares are in ``configs/gpus.yaml``, each with
its source. Loading the model from disk is not included.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

from .cards import GpuSpec
from .machine import CPU_CORE_FLOPS, Machine
from .memory import Forecast
from .setup import Setup
from .trace import Cost

# Share of the memory bandwidth that elementwise kernels reach.
BANDWIDTH_SHARE = 0.8
# Share of the PCIe bandwidth reached from page-locked memory: 0.83 to 0.87 on an H100
# (benchmarks/results/nvidia-h100-80gb-hbm3-copies.json, also the source of the next two).
PINNED_SHARE = 0.8
# GB/s to the GPU from pageable memory, which is first copied by the CPU: 5.8 to 7.0.
PAGEABLE_GBS = 6.0
# GB/s for copying weights into newly allocated page-locked memory: 0.9 to 1.8.
PINNING_GBS = 1.3
# GB/s from disk, assumed: an NVMe disk reading large files.
DISK_GBS = 2.0
# Share of NVLink's bandwidth that NCCL reaches: 370 of 450 GB/s (NVIDIA/nccl-tests, issue 212).
NVLINK_SHARE = 0.8
# Without NVLink, the total rate of all cards for exchanging tensors, as a share of one card's PCIe bandwidth, because
# the data goes through main memory. Fitted to ParaAttention's times on 2, 4 and 8 L20 (benchmarks/plan_accuracy.py).
SLOTS_SHARE = 0.4
# Relative time that each further card adds to a shared step, for waiting and for work that is not split. Fitted to the
# times in HunyuanVideo's README on 2, 4 and 8 H100 (benchmarks/plan_accuracy.py).
PARALLEL_LOSS = 0.03

# Seconds to compile the two kinds of blocks, once per process and size; assumed: "about a minute".
COMPILE_SECONDS = 60.0

Kernel = Literal["flash", "flash2"]


@dataclass(frozen=True)
class Seconds:
    """A video's time in seconds by stage; ``step`` is one denoising step with all its forward passes.

    Attributes:
        visit: the part of ``encode`` that moves the text encoders to the GPU; prompts that are encoded one after
            another share it.
        pinning: making page-locked copies of streamed weights, once per process on loading. Not in ``total``.
        exchange: the part of ``step`` in which cards exchange tensors.
        compiling: compiling the transformer's blocks, once per process, in the first step. Not in ``total``.
    """

    encode: float
    step: float
    denoise: float
    decode: float
    visit: float = 0.0
    pinning: float = 0.0
    exchange: float = 0.0
    compiling: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of the whole video, without loading."""
        return self.encode + self.denoise + self.decode

    @property
    def first(self) -> float:
        """Seconds of the whole video in a new process, without reading files, which takes the same in every mode."""
        return self.pinning + self.compiling + self.total


def estimate_range(
    found: Forecast, setup: Setup, machine: Machine, steps: int, passes: int, saved_a_step: float | None = None
) -> tuple[Seconds, tuple[float, float] | None]:
    """Estimate the time on a machine, and the range of its total if the GPU's speed is a guess.

    Args:
        found, setup, steps, passes: as for :func:`estimate`.
        machine: a GPU that it does not name is assumed by its memory.
        saved_a_step: seconds that compiled blocks save in each step; None if they are not compiled.
    """
    gpu = machine.reference

    def timed(spec: GpuSpec | None) -> Seconds:
        seconds = estimate(found, setup, spec, steps, passes)
        if saved_a_step is None:
            return seconds
        denoise = seconds.denoise - steps * saved_a_step
        return replace(seconds, step=seconds.step - saved_a_step, denoise=denoise, compiling=COMPILE_SECONDS)

    if gpu is None or (gpu.measured and machine.gpu is not None):
        return timed(gpu), None
    if machine.gpu is None:
        gpu = replace(gpu, stands_in=gpu.title)
    return timed(gpu), (timed(gpu.fastest).total, timed(gpu.slowest).total)


def estimate(
    found: Forecast, setup: Setup, gpu: GpuSpec | None, steps: int, passes: int = 1, kernel: Kernel = "flash"
) -> Seconds:
    """Estimate the time of a video with ``steps`` steps of ``passes`` forward passes each (two with true CFG).

    Args:
        found: the video's costs.
        setup: how it is run.
        gpu: the GPU whose speed to assume; None for this CPU.
        steps: denoising steps.
        passes: forward passes per step.
        kernel: the attention kernel if there is no mask.
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
    # Main memory keeps the weights of what leaves the GPU, since they never change: nothing is copied back.
    if setup.offload == "none" and setup.loads_by_part:
        visit = 0.0 if setup.text_stays else text / plain  # the text encoders come for the encoding and leave
    elif setup.offload == "model":
        visit = text / plain
        once = transformer.total / plain if setup.method.movable else 0.0
        decode += vae.total / plain
    elif setup.offload == "group":
        # diffusers prefetches the next block while one runs, yet a step took about the sum of both times: 0.58 s of
        # computation and 0.50 s of copies took 1.23 s in the package, 0.87 s without a pipeline around it
        # (benchmarks/results, H100). What is outside the transformer's blocks stays on the GPU for the whole stage.
        encode += (sum(llama.blocks) / pinned + (llama.rest + clip.total) / plain) * passes
        step += sum(transformer.blocks) / pinned
        once = transformer.rest / plain
        pinning = (transformer.total + llama.total) / (PINNING_GBS * 1e9)
    elif setup.offload == "sequential":
        encode, step = encode + text / plain * passes, step + transformer.total / plain
        decode += vae.total / plain
    step, exchange = step * passes, exchange * passes
    return Seconds(encode + visit, step, step * steps + once, decode, visit, pinning, exchange)


def exchange_seconds(size: int, gpu: GpuSpec, cards: int) -> float:
    """Seconds in which each of ``cards`` cards sends ``size`` bytes to the others.

    With NVLink each card has its own link; without it all cards share the rate through main memory.
    """
    if gpu.nvlink_gbs:
        return size / (gpu.nvlink_gbs * 1e9 * NVLINK_SHARE)
    return size * cards / (gpu.pcie_gbs * 1e9 * SLOTS_SHARE)


def _plain_rate(gpu: GpuSpec) -> float:
    """Bytes per second to the GPU from pageable memory."""
    return min(PAGEABLE_GBS, gpu.pcie_gbs * PINNED_SHARE) * 1e9


def _compute(cost: Cost, setup: Setup, gpu: GpuSpec | None, kernel: Kernel) -> float:
    """Seconds of computation on the GPU, or on the CPU at ``CPU_CORE_FLOPS`` per core."""
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
