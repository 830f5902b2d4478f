"""Describes the assumptions behind the estimates, as text. Knows nothing about how they are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import GIB, ModelConfig
from .cards import GUESS, GpuSpec
from .context_parallel import heads_a_card, wasted_share, why_not
from .fragmentation import factor_of
from .machine import CPU_CORE_FLOPS, Machine
from .memory import CUDA_CONTEXT
from .result import ModePlan, gib
from .time_estimate import DISK_GBS, PARALLEL_LOSS, SLOTS_SHARE

# The first capability whose float8 products the planner knows.
_FLOAT8 = (8, 9)


def of_video(machine: Machine, model: ModelConfig, modes: tuple[ModePlan, ...]) -> Iterator[str]:
    """Assumptions about one video on one card."""
    gpu = machine.reference
    if gpu is None:
        yield f"time: {CPU_CORE_FLOPS / 1e9:g} GFLOP/s per core, without loading the model"
    elif any(mode.seconds for mode in modes):
        yield _of_speed(machine, gpu)
    if machine.device == "cuda":
        yield _of_fragmentation(machine)
        if not machine.allocator.exact_pinned:
            yield (
                "host memory: page-locked copies take the next power of two: torch before 2.13, or an allocator "
                "setting in the environment without pinned_max_cached_size_mb"
            )
    if model.transformer_gguf is not None:
        yield "the transformer of the GGUF file is planned in bfloat16, which is more than it needs"
    if machine.host_memory_bytes is None:
        yield "host memory: unknown, so not checked"


def notes_of(machine: Machine, modes: tuple[ModePlan, ...], choice: ModePlan | None) -> Iterator[str]:
    """What the plan chose apart from the mode, and what it warns of."""
    gpu = machine.gpu
    if gpu is not None and gpu.stands_in is not None:
        yield (
            f"{gpu.title} is not in the list of known GPUs: its speed is a guess, that of {gpu.stands_in} times "
            f"{GUESS[0]:g} to {GUESS[1]:g}"
        )
    if choice is not None and choice.text_stays:
        yield "the text encoders stay on the GPU between prompts, because they fit"
    if choice is not None and choice.compiling is not None:
        yield str(choice.compiling)
    if machine.device == "cuda":
        yield from _of_quantization(machine, modes)


def _of_quantization(machine: Machine, modes: tuple[ModePlan, ...]) -> Iterator[str]:
    """Which quantizations cost time instead of saving it."""
    plain = next((mode for mode in modes if mode.mode.offload == "none" and mode.mode.vae_tiling), None)
    int8 = next((mode for mode in modes if mode.mode.quantization == "int8" and mode.fits), None)
    if int8 is not None and plain is not None:
        yield (
            "int8 stores weights only: it saves memory, and a step takes longer than in bfloat16, since each product "
            "casts the weights first (0.70 s instead of 0.58 s, measured at 512x320 and 61 frames on an H100)"
        )
    gpu = machine.gpu
    capability = None if gpu is None else gpu.compute_capability
    if capability is not None and capability >= _FLOAT8:
        yield (
            "fp8-dynamic, which is not planned, needs compile: true: without it, each layer converts its input in four "
            "passes in float32, which can take longer than the float8 product saves (not measured)"
        )


def _of_speed(machine: Machine, gpu: GpuSpec) -> str:
    known = "" if machine.gpu else " (assumed, because no GPU is named)"
    if gpu.stands_in is not None:
        known = f" (as {gpu.stands_in}, a guess)"
    parts = []
    for what, kind in (("attention reaches", "flash"), ("matrix products", "matmul"), ("convolutions", "convolution")):
        low, share, high = (getattr(end, kind) for end in (gpu.shares.lowest, gpu.utilisation, gpu.shares.highest))
        parts.append(f"{what} {share:.0%} ({low:.0%} to {high:.0%}; {gpu.shares.sources[kind]})")
    return (
        f"time: {gpu.title}{known}: {gpu.bf16_tflops:g} TFLOP/s dense bfloat16 ({gpu.source}), of which "
        f"{', '.join(parts)}; without loading the model"
    )


def _of_fragmentation(machine: Machine) -> str:
    expandable = machine.allocator.expandable
    how = (
        "assumed for expandable segments, which nobody has measured with this model"
        if expandable
        else "measured on an H100 without expandable segments"
    )
    parts = []
    for stage, text in (("denoise", "denoising"), ("decode", "decoding")):
        factor = factor_of(stage, expandable)
        parts.append(f"{factor.usual:g} times ({factor.lowest:g} to {factor.highest:g}) in {text}")
    return (
        f"GPU memory: {gib(CUDA_CONTEXT)} for the CUDA context, and what torch reserves for tensors that come and go: "
        f"{' and '.join(parts)}, {how}"
    )


def of_batch(machine: Machine, heads: int, cards: int, videos: int, saved_bytes: int) -> Iterator[str]:
    """Assumptions about several videos on several cards; those about one video on one card are in ``Plan``.

    Args:
        machine: the machine, with one of its cards.
        heads: the transformer's attention heads.
        cards: number of cards.
        videos: number of videos.
        saved_bytes: by how much splitting a video lowers a card's peak in denoising, apart from the weights.
    """
    yield (
        f"loading: {DISK_GBS:g} GB/s from disk (assumed), once for all cards; writing an mp4 overlaps with the next "
        "video and adds no time"
    )
    if cards == 1:
        yield (
            "one at a time: the text encoders are moved to the GPU for each video, unless they stay there; staged: "
            "all prompts are encoded first, then the text encoders are released"
        )
        return
    idle = f"; idle cards: {cards - videos} of {cards}" if videos < cards else ""
    yield (
        f"replicas: each card has its own model, process and PCIe slot, encodes its prompts first, and generates up to "
        f"{math.ceil(videos / cards):,} of the videos{idle}"
    )
    if (problem := why_not(heads, cards)) is None:
        yield _of_sharing(machine, heads, cards, saved_bytes)
    else:
        yield problem


def _of_sharing(machine: Machine, heads: int, cards: int, saved_bytes: int) -> str:
    gpu = machine.reference
    assert gpu is not None  # never called for a CPU
    if gpu.nvlink_gbs:
        link = f"over NVLink, {gpu.nvlink_gbs:g} GB/s from each card"
    else:
        link = f"through PCIe and main memory, {gpu.pcie_gbs * SLOTS_SHARE:.3g} GB/s for all cards together"
    waste = wasted_share(heads, cards)
    uneven = f" ({heads} heads do not divide evenly, so {waste:.0%} of the attention's time is lost)" if waste else ""
    own = heads_a_card(heads, cards)
    return (
        f"context parallel: Ulysses; each card has all weights, {own} heads{uneven} and a share of the tokens, which "
        f"saves {saved_bytes / GIB:.1f} GiB per card in denoising; each decodes some tiles of the video, and one "
        f"encodes the prompts; tensors are exchanged {link}; each further card adds {PARALLEL_LOSS:.0%} to a step "
        "(fitted to HunyuanVideo's README, 1 to 8 H100); none of this has been measured with this package"
    )
