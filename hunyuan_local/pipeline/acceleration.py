"""Makes the denoising faster: mask-free attention, chunked or compiled blocks and step caches, one function each.

Attention without a mask, precomputed rotary tables and chunked blocks are always on, because they change the result
only in the last bits. Triton's kernels, compiling and caching are off unless the profile enables them.
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
from .attention.elementwise import Eager, Elementwise
from .attention.fallback import AttentionKernel, use_in_compiled_blocks, why_not_compiled
from .attention.kernel_choice import choose_backend, fastest_first, find_problem, measured_seconds, rivals
from .attention.mask_free import drop_padding
from .attention.rotary import keep_rotary_tables
from .attention.triton_elementwise import Fused, find_fused_problem
from .blocks import run_in_chunks
from .diffusers_private import first_block_hook
from .memory.device import is_out_of_memory, nvidia_capability, out_of_memory

RESUMED_WITH_CACHE = (
    "the step cache is not part of the saved state and starts empty, so the frames differ slightly from those of an "
    "uninterrupted run; without cache in the profile, a resumed run is exact"
)


def accelerate(pipe: HunyuanVideoPipeline, profile: RuntimeProfile) -> tuple[RuntimeProfile, AttentionKernel]:
    """Apply the profile's attention backend and compilation to a loaded and placed pipeline.

    The profile's step cache is set up per run: see ``step_cache``.

    Returns:
        The profile, with ``attention_backend: auto`` replaced by the chosen backend; and that kernel.

    Raises:
        ConfigError: the attention backend, the kernels or torch.compile do not work here.
    """
    kernel = drop_padding(pipe.transformer, _choose_backend(pipe.transformer, profile))
    keep_rotary_tables(pipe.transformer)
    run_in_chunks(pipe.transformer, _choose_elementwise(profile, pipe.transformer.config))
    if profile.compile:
        use_in_compiled_blocks(pipe.transformer, kernel)
        compile_blocks(pipe.transformer, profile.device)
    return profile.model_copy(update={"attention_backend": kernel.name}), kernel


def _choose_backend(transformer: HunyuanVideoTransformer3DModel, profile: RuntimeProfile) -> str:
    config, device = transformer.config, torch.device(profile.device)
    heads, head_dim, dtype = (
        config.num_attention_heads, config.attention_head_dim, getattr(torch, profile.dtypes.transformer)
    )  # fmt: skip
    capability = nvidia_capability(profile.device)

    @functools.cache
    def why_not(backend: str) -> str | None:
        problem = why_not_compiled(backend) if profile.compile else None
        return problem or find_problem(backend, profile.device, dtype, head_dim)

    return choose_backend(
        profile.attention_backend, fastest_first(capability), why_not,
        functools.partial(rivals, capability=capability),
        lambda backend: measured_seconds(backend, heads, head_dim, device, dtype),
    )  # fmt: skip


def _choose_elementwise(profile: RuntimeProfile, config: Any) -> Elementwise:
    """The profile's ``kernels`` for a transformer with this config.

    Raises:
        ConfigError: Triton's kernels do not work here.
    """
    if profile.kernels == "eager":
        return Eager()
    head_dim, dtype = config.attention_head_dim, getattr(torch, profile.dtypes.transformer)
    problem = find_fused_problem(profile.device, dtype, head_dim, config.num_attention_heads * head_dim)
    if problem is not None:
        raise ConfigError(
            f"kernels='triton': the kernels do not work on this machine ({problem}); they need Triton, which comes "
            "with torch for CUDA; or use a profile with kernels: eager"
        )
    return Fused()


def compile_blocks(
    transformer: HunyuanVideoTransformer3DModel, device: str, backend: str | Callable[..., Any] = "inductor"
) -> None:
    """Compile each type of block once, for prompts and videos of any size.

    Adds minutes to the first step (torch caches the compiled graphs on disk), and a second compilation for a
    text of one token, such as an empty negative prompt. All sizes are dynamic; otherwise each new prompt length
    would recompile the blocks. Kernels for one fixed size could be slightly faster. Sizes that happen to be
    equal, as in a square video, can cost one more compilation. Frames differ from uncompiled ones in the last
    bits.

    Args:
        transformer: its blocks are compiled in place.
        device: ``cpu`` or ``cuda``.
        backend: a ``torch.compile`` backend.

    Raises:
        ConfigError: the device has no working compiler.
        GpuMemoryError: the device ran out of memory during the trial compilation.
    """
    try:
        torch.compile(lambda x: x + 1, backend=backend, dynamic=True)(torch.ones(8, device=device))
    except Exception as error:  # a missing compiler raises many different errors
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
    """Skip steps that change little in the run inside; always removes the cache afterwards, also after an error.

    Not exact: how far the frames move depends on the threshold. The cache is not part of a saved state, so a
    resumed run starts with an empty one and its frames differ slightly from an uninterrupted run
    (``RESUMED_WITH_CACHE`` notes this to the user). The first-block cache takes device memory for up to three
    tensors [1, tokens, channels] (0.7 GB each for the 13 B model at 1280x720x129), twice that with true CFG,
    and synchronizes with the device once per step.

    How each kind decides, for a step t:

    - first-block: skip the other blocks and reuse their residual if the first block's residual ``r`` changed by
      ``mean|r_t - r_prev| / mean|r_prev| <= threshold``.
    - taylorseer: compute every ``interval``-th step, and predict the steps between by a Taylor series of the
      output, of the given order.
    - magcache: skip while ``sum |1 - prod ratios| <= threshold`` since the last computed step.

    Args:
        pipe: a loaded pipeline; its scheduler counts the steps.
        cache: None for no cache.
        done: steps finished by an earlier run.
        total: steps of the whole video, including the finished ones.
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
    """Number of steps before this share of the run, rounded up; 1e-9 absorbs float error in a whole product."""
    return math.ceil(share * total - 1e-9)


def _library_config(
    cache: CacheConfig, first: int, last: int, done: int, total: int
) -> FirstBlockCacheConfig | TaylorSeerCacheConfig | MagCacheConfig:
    """diffusers' config for the ``total - done`` steps of this run; ``first`` to ``last`` may be skipped."""
    if isinstance(cache, FirstBlockCache):
        return FirstBlockCacheConfig(threshold=cache.threshold)
    if isinstance(cache, TaylorSeerCache):
        # Skips whole blocks and predicts only the final output, like diffusers' lite mode, but without embedding
        # latents and text at every step as that does. diffusers' other mode keeps the output of every attention
        # layer: 88 GB for the 13 B model at 1280x720x129.
        return TaylorSeerCacheConfig(
            cache_interval=cache.interval,
            # A series of order n needs n + 1 computed steps.
            disable_cache_before_step=max(cache.order + 1, first),
            disable_cache_after_step=max(last, 0),
            max_order=cache.order,
            taylor_factors_dtype=torch.float32,
            cache_identifiers=["proj_out"],
            skip_predict_identifiers=["x_embedder", "context_embedder", r"(single_)?transformer_blocks\.\d+"],
        )
    ratios = resampled_ratios(cache.mag_ratios, total)[done:]
    # diffusers has no setting for the last step to skip. A ratio of 0 predicts an error of 1, above any threshold.
    ratios[max(last, 0) :] = 0
    return MagCacheConfig(
        threshold=cache.threshold,
        max_skip_steps=cache.max_skips,
        retention_ratio=max(first, 0) / len(ratios),
        num_inference_steps=len(ratios),
        mag_ratios=ratios,
    )


def resampled_ratios(ratios: Sequence[float], total: int) -> torch.Tensor:
    """Resample MagCache ratios to ``total`` steps of the same schedule, as float32.

    A ratio compares two consecutive steps, so with fewer steps each new ratio is a product of several old ones.
    We interpolate the cumulative logarithm ``L(i/count) = sum_{j<=i} log(ratio_j)`` at ``i/total``, extend it
    with the last slope, and take differences: ``new_i = exp(L(i/total) - L((i-1)/total))``. (MagCache's own
    script picks the nearest step's ratio; for 8 steps out of 30 it predicts only a quarter of the change.)
    """
    count = len(ratios)
    logarithms = np.cumsum(np.log(ratios))
    places, wanted = np.arange(count) / count, np.arange(total) / total
    found = np.interp(wanted, places, logarithms)
    past_end = np.maximum(wanted - places[-1], 0) * count
    found += past_end * math.log(ratios[-1])
    return torch.tensor(np.exp(np.diff(found, prepend=found[0])), dtype=torch.float32)


@contextlib.contextmanager
def _first_block_only_between(pipe: HunyuanVideoPipeline, threshold: float, first: int, last: int) -> Iterator[None]:
    """Force full steps before ``first`` and from ``last`` on; diffusers' first-block cache has no setting for this."""
    head = first_block_hook(pipe.transformer.transformer_blocks[0])

    def set_threshold(*_: object) -> None:
        # The relative change is never below a negative threshold. step_index is None before the first step.
        skipping = first <= (pipe.scheduler.step_index or 0) < last
        head.threshold = threshold if skipping else -1.0

    handle = pipe.transformer.register_forward_pre_hook(set_threshold)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def measured_mag_ratios(transformer: HunyuanVideoTransformer3DModel) -> Iterator[list[float]]:
    """Collect the ratios that ``cache.kind: magcache`` needs, one per forward pass inside.

    ``ratio_t = mean over tokens of |R_t| / |R_{t-1}|``, where ``R`` is the residual of all blocks (output minus
    input) and ``|.|`` the norm over the channels (Ma et al., MagCache, arXiv 2506.09045); the first ratio is 1.
    Run one video inside, without true CFG, with the number of steps and the flow shift that you will use.
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
