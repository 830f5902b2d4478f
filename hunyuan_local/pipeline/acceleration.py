"""What makes the denoising faster, one function each: exact attention, compiled blocks, step caches.

Attention without a mask and kept rotary tables are always on, since they change nothing but the last
bits. Compiling and caching are off unless the profile asks for them.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from diffusers.hooks import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig

from ..config import CacheConfig, FirstBlockCache, RuntimeProfile, TaylorSeerCache
from ..errors import ConfigError, first_line
from .attention.kernel_choice import choose_backend, fastest_first, find_problem
from .attention.mask_free import drop_padding
from .attention.rotary import keep_rotary_tables
from .diffusers_private import first_block_hook
from .memory.device import is_out_of_memory, out_of_memory

RESUMED_WITH_CACHE = (
    "the step cache was not saved and starts anew, so the frames differ a little from those of a run without the "
    "interruption; a profile without cache goes on exactly"
)


def accelerate(pipe: HunyuanVideoPipeline, profile: RuntimeProfile) -> RuntimeProfile:
    """Make a loaded and placed pipeline as fast as its profile says.

    The step cache of the profile belongs to a run: see ``step_cache``.

    Returns:
        The profile with the attention backend that was chosen in the place of ``auto``.

    Raises:
        ConfigError: the attention backend does not work here, or torch.compile does not.
    """
    capability = torch.cuda.get_device_capability() if profile.device == "cuda" else None
    why_not = functools.partial(
        find_problem,
        device=profile.device,
        dtype=getattr(torch, profile.dtypes.transformer),
        head_dim=pipe.transformer.config.attention_head_dim,
    )
    backend = choose_backend(profile.attention_backend, fastest_first(capability), functools.cache(why_not))
    drop_padding(pipe.transformer, backend)
    keep_rotary_tables(pipe.transformer)
    if profile.compile:
        compile_blocks(pipe.transformer, profile.device)
    return profile.model_copy(update={"attention_backend": backend})


def compile_blocks(
    transformer: HunyuanVideoTransformer3DModel, device: str, backend: str | Callable[..., Any] = "inductor"
) -> None:
    """Compile each kind of block once, for prompts and videos of every size.

    Costs minutes during the first step (the graphs stay in torch's cache on disk) and a second
    compilation for a text of one token, such as an empty negative prompt. All sizes are dynamic, or
    each new length of a prompt would compile the blocks again; kernels for one fixed size could be a
    little faster. Sizes that were equal by chance, as those of a square video, can cost one more
    compilation. Frames differ in the last bits from uncompiled ones.

    Args:
        transformer: its blocks are compiled in place.
        device: ``cpu`` or ``cuda``.
        backend: a backend of ``torch.compile``.

    Raises:
        ConfigError: there is no working compiler for the device.
        GpuMemoryError: the device's memory ran out while it was tried.
    """
    try:
        torch.compile(lambda x: x + 1, backend=backend, dynamic=True)(torch.ones(8, device=device))
    except Exception as error:  # missing compilers are reported in many ways
        if is_out_of_memory(error):
            raise out_of_memory(error, "load") from None
        needed = "Triton, which comes with torch for CUDA" if device == "cuda" else "a C++ compiler such as g++"
        raise ConfigError(
            f"compile=True: torch.compile does not work on this machine ({first_line(error)}); it "
            f"needs {needed}; or use a profile with compile: false"
        ) from error
    transformer.compile_repeated_blocks(backend=backend, dynamic=True)


@contextlib.contextmanager
def step_cache(pipe: HunyuanVideoPipeline, cache: CacheConfig | None, done: int, total: int) -> Iterator[None]:
    """Skip steps of the run inside that change little; afterwards nothing of it is left, whatever happened.

    Not exact: how far the frames move depends on the threshold. The cache is not part of a saved
    state, so a run that is taken up again starts with an empty one and its frames differ a little
    from those of a run without the interruption (``RESUMED_WITH_CACHE`` says so to the user). Costs
    device memory for up to three tensors of all tokens (first-block; 0.7 GB each for the 13 B model at
    1280x720x129), twice that with true CFG; first-block also waits for the device once a step.

    Args:
        pipe: a loaded pipeline; its scheduler counts the steps.
        cache: None is no cache at all.
        done: steps that an earlier run has made.
        total: steps of the whole video, the done ones included.
    """
    if cache is None:
        yield
        return
    first, last = _steps_before(cache.start, total) - done, _steps_before(cache.end, total) - done
    transformer = pipe.transformer
    transformer.enable_cache(_library_config(cache, first, last, done, total))
    gate: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if isinstance(cache, FirstBlockCache):
        gate = _first_block_only_between(pipe, cache.threshold, first, last)
    try:
        with gate:
            yield
    finally:
        transformer.disable_cache()


def _steps_before(share: float, total: int) -> int:
    """How many of ``total`` steps begin before this share of them; a product that is a whole number stays one."""
    return math.ceil(share * total - 1e-9)


def _library_config(
    cache: CacheConfig, first: int, last: int, done: int, total: int
) -> FirstBlockCacheConfig | TaylorSeerCacheConfig | MagCacheConfig:
    """The library's configuration for the ``total - done`` steps of this run, of which ``first`` to ``last`` may go."""
    if isinstance(cache, FirstBlockCache):
        return FirstBlockCacheConfig(threshold=cache.threshold)
    if isinstance(cache, TaylorSeerCache):
        # The blocks are skipped as a whole and only the output is foretold, as in the library's lite mode, which
        # still embeds latents and text at each step for nothing. The library's other way keeps the output of
        # every attention layer, 88 GB for the 13 B model at 1280x720x129.
        return TaylorSeerCacheConfig(
            cache_interval=cache.interval,
            # A series of some order needs one full step more than that.
            disable_cache_before_step=max(cache.order + 1, first),
            disable_cache_after_step=max(last, 0),
            max_order=cache.order,
            taylor_factors_dtype=torch.float32,
            cache_identifiers=["proj_out"],
            skip_predict_identifiers=["x_embedder", "context_embedder", r"(single_)?transformer_blocks\.\d+"],
        )
    ratios = resampled_ratios(cache.mag_ratios, total)[done:]
    # The library has no last step for skipping. A ratio of 0 foretells an error of 1, above every threshold.
    ratios[max(last, 0) :] = 0
    return MagCacheConfig(
        threshold=cache.threshold,
        max_skip_steps=cache.max_skips,
        retention_ratio=max(first, 0) / len(ratios),
        num_inference_steps=len(ratios),
        mag_ratios=ratios,
    )


def resampled_ratios(ratios: Sequence[float], total: int) -> torch.Tensor:
    """The ratios of ``total`` steps, float32, from those of another number of steps on the same schedule.

    A ratio is of two neighbouring steps, so with fewer steps each is the product of several. The logarithm of
    the norm is interpolated over the share of the run that lies before a step, and goes on as it ended after
    the last one. (MagCache's own script takes the ratio of the nearest step, which for 8 steps out of 30 foretells
    a quarter of the change.)
    """
    count = len(ratios)
    logarithms = np.cumsum(np.log(ratios))
    places, wanted = np.arange(count) / count, np.arange(total) / total
    found = np.interp(wanted, places, logarithms)
    beyond = np.maximum(wanted - places[-1], 0) * count
    found += beyond * math.log(ratios[-1])
    return torch.tensor(np.exp(np.diff(found, prepend=found[0])), dtype=torch.float32)


@contextlib.contextmanager
def _first_block_only_between(pipe: HunyuanVideoPipeline, threshold: float, first: int, last: int) -> Iterator[None]:
    """Make the steps before ``first`` and from ``last`` on in full, which the library's cache has no setting for."""
    head = first_block_hook(pipe.transformer.transformer_blocks[0])

    def set_threshold(*_: object) -> None:
        # No difference is below a negative threshold. The scheduler's index is None until its first step.
        skipping = first <= (pipe.scheduler.step_index or 0) < last
        head.threshold = threshold if skipping else -1.0

    handle = pipe.transformer.register_forward_pre_hook(set_threshold)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def measured_mag_ratios(transformer: HunyuanVideoTransformer3DModel) -> Iterator[list[float]]:
    """Collect the ratios that ``cache.kind: magcache`` needs, one a forward pass inside.

    A ratio is the mean over the latent tokens of the norm of the blocks' residual, divided by that of
    the step before (Ma et al., MagCache, arXiv 2506.09045); the first one is 1. Run one video without
    true CFG inside, with the number of steps and the flow shift that will be used.
    """
    ratios: list[float] = []
    entered: list[torch.Tensor] = []
    norms: list[torch.Tensor] = []

    def enter(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        entered.append(args[0])

    def leave(module: torch.nn.Module, args: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        norms.append((output[0] - entered.pop()).float().norm(dim=-1))
        ratios.append(1.0 if len(norms) == 1 else (norms[-1] / (norms.pop(0) + 1e-8)).mean().item())

    handles = [
        transformer.transformer_blocks[0].register_forward_pre_hook(enter),
        transformer.single_transformer_blocks[-1].register_forward_hook(leave),
    ]
    try:
        yield ratios
    finally:
        for handle in handles:
            handle.remove()
