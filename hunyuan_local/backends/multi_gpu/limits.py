"""Limits of context parallelism: possible numbers of ranks, and options that cannot be combined with it.

Reads only configs. The prompt length does not matter: text tokens can be split in any number, and image tokens as
long as each rank gets at least one.
"""

from __future__ import annotations

from ...config import ContextParallel, FirstBlockCache, ModelConfig, RuntimeProfile
from ...config.kernels import BACKENDS, RING
from ...errors import ConfigError
from ...planner.checkpoint import read_architecture
from ...planner.context_parallel import can_share
from ...planner.setup import Shape
from ...resolved import ResolvedRequest


def context_parallel(
    profile: RuntimeProfile | None, degree: int | None, mode: str | None
) -> tuple[RuntimeProfile | None, ContextParallel | None]:
    """The profile without context parallelism, and the settings from the options or, by default, from the profile.

    Settings of None mean a single process.

    Raises:
        ConfigError: invalid degree or mode, or a mode without a degree.
    """
    own = None if profile is None else profile.context_parallel
    if profile is not None:
        profile = profile.model_copy(update={"context_parallel": None})
    if degree is None:
        if mode is None or own is None:
            if mode is not None:
                raise ConfigError(
                    f"context_parallel_mode={mode!r}: has no effect without context_parallel; set the number of GPUs, "
                    "such as --context-parallel 2"
                )
            return profile, own
        degree = own.degree
    if degree < 1:
        raise ConfigError(f"context_parallel={degree}: must be 1 (a single process) or more")
    if mode not in (None, "ulysses", "ring"):
        raise ConfigError(f"context_parallel_mode={mode!r}: must be ulysses or ring")
    mode = mode or ("ulysses" if own is None else own.mode)
    return profile, None if degree == 1 else ContextParallel(degree=degree, mode=mode)


def check_degree(
    shared: ContextParallel, model: ModelConfig, request: ResolvedRequest, profile: RuntimeProfile, gpus: int
) -> None:
    """Refuse a request that cannot be split across the ranks.

    Args:
        shared: the number of ranks, and how they split attention.
        model: config of the model; Ulysses splits its attention heads.
        request: its size and number of frames determine the number of image tokens.
        profile: the profile of each rank.
        gpus: number of visible GPUs.

    Raises:
        ConfigError: names the value, the rule and the remedy.
    """
    _check_devices(shared, profile, gpus)
    _check_profile(shared, profile)
    architecture = read_architecture(model)
    transformer, degree = architecture.transformer, shared.degree
    heads = transformer.num_attention_heads
    if shared.mode == "ulysses" and not can_share(heads, degree):
        possible = ", ".join(str(number) for number in range(2, heads + 1) if can_share(heads, number))
        raise ConfigError(
            f"context_parallel={degree}: the {heads} attention heads of {model.name} cannot be split across {degree} "
            f"ranks; use {possible}, or --context-parallel-mode ring"
        )
    width, height = model.render_size(request.width, request.height)
    frames, rows, columns = Shape.of(architecture, width, height, request.num_frames, 0).latents
    patch = transformer.patch_size
    tokens = (frames // transformer.patch_size_t) * (rows // patch) * (columns // patch)
    if tokens < degree:
        raise ConfigError(
            f"context_parallel={degree}: {request.num_frames} frames of {width}x{height} have {tokens} image tokens, "
            f"and each rank needs at least one; use at most {tokens}, or a larger video"
        )


def _check_devices(shared: ContextParallel, profile: RuntimeProfile, gpus: int) -> None:
    if profile.device == "cuda" and shared.degree > gpus:
        remedy = f"use at most {gpus}" if gpus > 1 else "omit it"
        raise ConfigError(
            f"context_parallel={shared.degree}: each rank needs its own GPU, and {gpus} "
            f"{'is' if gpus == 1 else 'are'} visible; {remedy}, or make more visible with CUDA_VISIBLE_DEVICES"
        )


def _check_profile(shared: ContextParallel, profile: RuntimeProfile) -> None:
    what = f"context_parallel={shared.degree}"
    if isinstance(profile.cache, FirstBlockCache):
        raise ConfigError(
            f"{what}: cannot be combined with cache.kind='first-block', since each rank would decide from its own "
            "tokens which steps to skip; use a taylorseer or magcache cache, or none"
        )
    if profile.compile:
        raise ConfigError(
            f"{what}: cannot be combined with compile=True, since torch cannot compile the exchange of parts of "
            "unequal length; use a profile with compile: false"
        )
    asked = profile.attention_backend.lower().removeprefix("_")
    if profile.device == "cpu":
        kernels, remedy = ["native"], ""
    elif shared.mode == "ring":
        kernels, remedy = list(RING), ", or --context-parallel-mode ulysses"
    else:
        kernels, remedy = list(BACKENDS), ""
    if asked not in ("auto", *kernels):
        where = "on a CPU" if profile.device == "cpu" else f"in {shared.mode} mode"
        raise ConfigError(
            f"{what}: attention_backend={profile.attention_backend!r} does not support context parallelism {where}; "
            f"use auto, {', '.join(kernels)}{remedy}"
        )
