"""How many processes can make one video together, and what cannot be combined with it; refused before any work.

Reads configurations alone. Nothing depends on the length of the prompt: any number of text tokens is shared
out exactly, and any number of image tokens that gives each process one.
"""

from __future__ import annotations

from ...config import ContextParallel, FirstBlockCache, ModelConfig, RuntimeProfile
from ...errors import ConfigError
from ...planner.checkpoint import read_architecture
from ...planner.context_parallel import can_share
from ...planner.memory import Shape
from ...resolved import ResolvedRequest

# Of ``pipeline.attention.BACKENDS``, those for which diffusers has context parallelism; ring joins parts by their
# log-sum-exp, which ``native`` does not give but on the CPU, where another kernel takes its place.
ULYSSES_KERNELS = ("native", "native_cudnn", "native_flash", "flash", "flash_hub", "flash_3_hub", "sage", "sage_hub")
RING_KERNELS = tuple(name for name in ULYSSES_KERNELS if name != "native")


def context_parallel(
    profile: RuntimeProfile | None, degree: int | None, mode: str | None
) -> tuple[RuntimeProfile | None, ContextParallel | None]:
    """What was asked for, by options or else by the profile; and the profile without it. None is one process.

    Raises:
        ConfigError: no such degree or mode, or a mode without a degree.
    """
    own = None if profile is None else profile.context_parallel
    if profile is not None:
        profile = profile.model_copy(update={"context_parallel": None})
    if degree is None:
        if mode is None or own is None:
            if mode is not None:
                raise ConfigError(
                    f"context_parallel_mode={mode!r}: has no effect without context_parallel; say over how many GPUs, "
                    "such as --context-parallel 2"
                )
            return profile, own
        degree = own.degree
    if degree < 1:
        raise ConfigError(f"context_parallel={degree}: must be 1, which is one process, or more")
    if mode not in (None, "ulysses", "ring"):
        raise ConfigError(f"context_parallel_mode={mode!r}: must be ulysses or ring")
    mode = mode or ("ulysses" if own is None else own.mode)
    return profile, None if degree == 1 else ContextParallel(degree=degree, mode=mode)


def check_degree(
    shared: ContextParallel, model: ModelConfig, request: ResolvedRequest, profile: RuntimeProfile, gpus: int
) -> None:
    """Refuse what cannot be shared out.

    Args:
        shared: over how many processes, and how.
        model: its transformer's heads are shared out by Ulysses.
        request: with its size and length.
        profile: how each of the processes runs the model.
        gpus: how many are visible.

    Raises:
        ConfigError: names what does not go, what does, and the remedy.
    """
    _check_devices(shared, profile, gpus)
    _check_profile(shared, profile)
    architecture = read_architecture(model)
    transformer, degree = architecture.transformer, shared.degree
    heads = transformer.num_attention_heads
    if shared.mode == "ulysses" and not can_share(heads, degree):
        possible = ", ".join(str(number) for number in range(2, heads + 1) if can_share(heads, number))
        raise ConfigError(
            f"context_parallel={degree}: the {heads} attention heads of {model.name} cannot be shared out so that each "
            f"process has some; use {possible}, or --context-parallel-mode ring"
        )
    width, height = model.render_size(request.width, request.height)
    frames, rows, columns = Shape.of(architecture, width, height, request.num_frames, 0).latents
    patch = transformer.patch_size
    tokens = (frames // transformer.patch_size_t) * (rows // patch) * (columns // patch)
    if tokens < degree:
        raise ConfigError(
            f"context_parallel={degree}: {request.num_frames} frames of {width}x{height} are {tokens} image tokens, "
            f"and each process needs one; use at most {tokens}, or ask for a larger video"
        )


def _check_devices(shared: ContextParallel, profile: RuntimeProfile, gpus: int) -> None:
    if profile.device == "cuda" and shared.degree > gpus:
        remedy = f"use at most {gpus}" if gpus > 1 else "leave it out"
        raise ConfigError(
            f"context_parallel={shared.degree}: each process needs a GPU of its own and {gpus} "
            f"{'is' if gpus == 1 else 'are'} visible; {remedy}, or make more visible with CUDA_VISIBLE_DEVICES"
        )


def _check_profile(shared: ContextParallel, profile: RuntimeProfile) -> None:
    what = f"context_parallel={shared.degree}"
    if isinstance(profile.cache, FirstBlockCache):
        raise ConfigError(
            f"{what}: does not go with cache.kind='first-block', since each process would decide by its own tokens "
            "which steps to skip; use a taylorseer or magcache cache, or none"
        )
    if profile.compile:
        raise ConfigError(
            f"{what}: does not go with compile=True, as torch cannot compile the exchange of parts of unequal length; "
            "use a profile with compile: false"
        )
    kernels = ULYSSES_KERNELS if shared.mode == "ulysses" or profile.device == "cpu" else RING_KERNELS
    asked = profile.attention_backend.lower().removeprefix("_")
    if asked != "auto" and asked not in kernels:
        raise ConfigError(
            f"{what}: attention_backend={profile.attention_backend!r} cannot attend over several processes in the mode "
            f"{shared.mode}; use auto, {', '.join(kernels)}"
        )
