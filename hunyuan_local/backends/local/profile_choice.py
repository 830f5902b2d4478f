"""Which profile a request runs in: one that was named, a mode of the plan, or what the plan chooses.

Reads configurations alone, so all is decided before any weight is read.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pydantic import ValidationError

from ...config import CacheConfig, FirstBlockCache, MagCache, ModelConfig, RuntimeProfile, load_profile, profile_names
from ...config.extras import require_peft
from ...config.quantization import GGUF_NEEDS, INSTALL, NEEDS, installed_libraries
from ...errors import ConfigError, GpuMemoryError
from ...planner import Machine, ModePlan, Plan, detect_machine, plan
from ...planner.machine import has_cuda_driver
from ...planner.memory import CUDA_CONTEXT
from ...planner.modes import DTYPES, Mode, all_modes
from ...planner.plan import weigh
from ...planner.result import fastest, gib
from ...resolved import ResolvedRequest
from ...schema import GenerationRequest
from ..prompt_rewriting import Place

AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """A profile, and how it was found.

    Attributes:
        reason: why it was taken, in a sentence; None where the user named it, or it is loaded already.
        machine: what was planned for; None where the user named the profile, and nobody asked.
    """

    profile: RuntimeProfile
    reason: str | None = None
    machine: Machine | None = None

    def announce(self, note: Callable[[str], None]) -> None:
        """Pass on the reason, where there is one."""
        if self.reason is not None:
            note(self.reason)


def named_profile(name: str | None) -> RuntimeProfile | None:
    """The profile of this name: a file of ``configs/profiles``, a YAML file, or a mode such as ``group+fp8+tiling``.

    None for ``auto`` and for no name: then the plan of each request decides.

    Raises:
        ConfigError: nothing of that name; lists the names that exist.
    """
    if name is None or name == AUTO:
        return None
    found = next((mode for mode in all_modes() if mode.name == name), None)
    if found is not None:
        return _profile(name, found, "cuda" if has_cuda_driver() else "cpu")
    try:
        return load_profile(name)
    except ConfigError as error:
        if name in profile_names() or name.endswith((".yaml", ".yml")):
            raise
        raise ConfigError(f"{error}, {AUTO}, or a mode that 'hunyuan-local plan' lists, such as group+tiling") from None


def require_libraries(config: ModelConfig, profile: RuntimeProfile | None) -> None:
    """Refuse, before anything is read, what needs an optional library that is not installed here.

    A profile of None is chosen by the plan, among those whose libraries are here.

    Raises:
        ConfigError: names the library and its extra.
    """
    method = None if profile is None else profile.quantization
    wanted = {f"quantization={method!r}": NEEDS[method]} if method is not None else {}
    if config.transformer_gguf is not None:
        wanted[f"transformer_gguf={config.transformer_gguf!r}"] = GGUF_NEEDS
    installed = installed_libraries()
    for field, needs in wanted.items():
        if needs.library is not None and needs.library not in installed:
            raise ConfigError(f"{field}: {needs.library} is not installed ({INSTALL}); or use full precision")
    if config.lora and any(needs.library is not None for needs in wanted.values()):
        require_peft(config.lora)


def with_cache(profile: RuntimeProfile, cache: CacheConfig | None, model: ModelConfig) -> RuntimeProfile:
    """The profile with this step cache, or with its own, in what it depends on the model.

    A first-block cache takes the threshold that it has for the model, if any; MagCache takes the model's ratios
    where it has none.

    Raises:
        ConfigError: the cache does not go with the profile, or was not measured on the model.
    """
    cache = cache or profile.cache
    if isinstance(cache, MagCache) and not cache.mag_ratios:
        if len(model.mag_ratios) < 2:
            raise ConfigError(
                f"cache.kind='magcache': {model.name} has no mag_ratios, one a step, which must be measured on this "
                "very checkpoint with benchmarks/caches.py --calibrate; or use a first-block cache"
            )
        cache = cache.model_copy(update={"mag_ratios": model.mag_ratios})
    if isinstance(cache, FirstBlockCache) and cache.thresholds:
        threshold = cache.thresholds.get(model.name, cache.threshold)
        cache = cache.model_copy(update={"threshold": threshold, "thresholds": {}})
    if cache == profile.cache:
        return profile
    try:
        return RuntimeProfile(**(dict(profile) | {"cache": cache}))
    except ValidationError as error:
        raise ConfigError("; ".join(problem["msg"] for problem in error.errors())) from error


def available_machine() -> Machine:
    """This machine, with the GPU memory that other processes leave."""
    machine = detect_machine()
    if machine.gpu_memory_bytes is None:
        return machine
    from ...pipeline.memory.device import available_bytes

    # The plan counts the CUDA context, which is there already when the driver is asked.
    return replace(machine, gpu_memory_bytes=min(machine.gpu_memory_bytes, available_bytes() + CUDA_CONTEXT))


def choose_profile(
    request: GenerationRequest,
    model: ModelConfig,
    loaded: RuntimeProfile | None = None,
    machine: Machine | None = None,
) -> Choice:
    """The profile of the fastest mode that fits this machine; the loaded one as long as that fits.

    Args:
        request: fields that it leaves open take the model's defaults.
        model: which checkpoint.
        loaded: what the model runs in already: to load it again costs more than a faster mode saves.
        machine: what to plan for; None is this machine as it is now.

    Raises:
        GpuMemoryError: no mode fits; names the nearest requests that would.
        ConfigError: the machine cannot run the model in any mode.
    """
    found = plan(request, model, machine or available_machine())
    if loaded is not None and (same := _as_loaded(found, loaded)) is not None:
        profile = loaded.model_copy(update={"vae_tiling": same.mode.vae_tiling})
        return Choice(profile, machine=found.machine)
    mode = found.require_choice()
    return Choice(_profile(AUTO, mode.mode, found.machine.device), _reason(found, mode), found.machine)


def place_beside(
    request: ResolvedRequest, model: ModelConfig, choice: Choice, needed_bytes: int, *, is_empty: bool
) -> Place:
    """On the GPU if the plan says that there is room beside the video, or for the moment, while nothing is there yet;
    else on the CPU.

    Args:
        choice: what the video is made in.
        needed_bytes: of the language model.
        is_empty: nothing of the video's model is loaded.
    """
    profile = choice.profile
    if profile.device == "cpu":
        return Place()
    machine = choice.machine or available_machine()
    if machine.gpu_memory_bytes is None:
        return Place()
    mode = Mode(profile.offload, profile.quantization, profile.vae_tiling)
    if needed_bytes <= machine.gpu_memory_bytes - weigh(request, model, machine, mode).needed_gpu_bytes:
        return Place("cuda")
    fits_alone = needed_bytes <= machine.gpu_memory_bytes - CUDA_CONTEXT
    return Place("cuda", stays=False) if is_empty and fits_alone else Place()


def for_the_largest(requests: Iterable[ResolvedRequest], choose: Callable[[ResolvedRequest], Choice]) -> Choice | None:
    """The choice for the largest request that fits, since that serves the others too; None if none fits.

    Args:
        choose: the choice for one request; raises GpuMemoryError if none is large enough.
    """
    by_size = {(r.width, r.height, r.num_frames, r.true_cfg_scale > 1): r for r in requests}
    for _, request in sorted(by_size.items(), key=lambda item: math.prod(item[0][:3]), reverse=True):
        with contextlib.suppress(GpuMemoryError):  # then the next smaller one
            return choose(request)
    return None


def _profile(name: str, mode: Mode, device: str) -> RuntimeProfile:
    return RuntimeProfile(
        name=name, device=device, dtypes=DTYPES[device], offload=mode.offload, quantization=mode.quantization,
        vae_tiling=mode.vae_tiling,
    )  # fmt: skip


def _as_loaded(found: Plan, profile: RuntimeProfile) -> ModePlan | None:
    """The fastest mode that fits of those that differ from the profile in nothing that is loaded: in tiling alone."""
    loaded = (profile.offload, profile.quantization)
    return fastest(tuple(item for item in found.modes if (item.mode.offload, item.mode.quantization) == loaded))


def _reason(found: Plan, mode: ModePlan) -> str:
    """What was chosen and why, in one sentence."""
    machine = found.machine
    fitting = sum(item.fits for item in found.modes)
    if machine.gpu_memory_bytes is None:
        where = f"on the CPU, which needs {gib(mode.host_peak_bytes)} of main memory"
    else:
        where = f"needs {gib(mode.needed_gpu_bytes)} of {gib(machine.gpu_memory_bytes)} of GPU memory"
    lossy = ""
    if mode.mode.quantization is not None:
        exact = [item for item in found.modes if item.fits and item.mode.quantization is None]
        instead = f"; in full precision: --profile {min(exact, key=_seconds).name}" if exact else ""
        lossy = f"; {mode.mode.method.name} changes the frames a little{instead}"
    return (
        f"profile {AUTO}: {mode.name}, {where}; the fastest of {fitting} modes that fit, about "
        f"{_seconds(mode):,.0f} s without loading{lossy}"
    )


def _seconds(item: ModePlan) -> float:
    assert item.seconds is not None  # it fits
    return item.seconds.total
