"""Chooses the profile of a request: a named profile, a named mode of the plan, or the plan's choice.

Reads only configs, so the choice is made before any weights are read.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pydantic import ValidationError

from ...config import CacheConfig, FirstBlockCache, MagCache, ModelConfig, RuntimeProfile, load_profile, profile_names
from ...config.extras import require_peft
from ...config.profiles import ComponentPlacement
from ...config.quantization import GGUF_NEEDS, INSTALL, NEEDS, installed_libraries
from ...durations import span
from ...errors import ConfigError, GpuMemoryError
from ...planner import Machine, ModePlan, Plan, detect_machine, plan
from ...planner.machine import has_cuda_driver
from ...planner.memory import CUDA_CONTEXT
from ...planner.modes import DTYPES, Mode, all_modes
from ...planner.plan import weigh
from ...planner.result import gib
from ...resolved import ResolvedRequest
from ...schema import GenerationRequest
from ..prompt_rewriting import FindPlace, Place

AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """A profile, and how it was chosen.

    Attributes:
        reason: one sentence on why it was chosen; None if the user named it or it is already loaded.
        machine: the machine of the plan; None if the user named the profile, since nothing was planned.
    """

    profile: RuntimeProfile
    reason: str | None = None
    machine: Machine | None = None

    def announce(self, note: Callable[[str], None]) -> None:
        """Send the reason as a note, if there is one."""
        if self.reason is not None:
            note(self.reason)


def named_profile(name: str | None) -> RuntimeProfile | None:
    """The profile with this name: from ``configs/profiles``, a YAML file, or a mode such as ``group+fp8+tiling``.

    None for ``auto`` or no name: the plan then chooses a profile for each request.

    Raises:
        ConfigError: there is no such profile; the message lists the available names.
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
        raise ConfigError(f"{error}, {AUTO}, or a mode from 'hunyuan-local plan', such as group+tiling") from None


def require_libraries(config: ModelConfig, profile: RuntimeProfile | None) -> None:
    """Refuse a model or profile that needs an optional library that is not installed, before anything is read.

    If the profile is None, the plan chooses only among profiles with installed libraries.

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
    """The profile with this step cache, or its own, with the cache's settings for the model filled in.

    A first-block cache gets its threshold for this model, if it has one. MagCache without ``mag_ratios`` gets those
    of the model.

    Raises:
        ConfigError: the cache cannot be combined with the profile, or has no measurements for the model.
    """
    cache = cache or profile.cache
    if isinstance(cache, MagCache) and not cache.mag_ratios:
        if len(model.mag_ratios) < 2:
            raise ConfigError(
                f"cache.kind='magcache': {model.name} has no mag_ratios (one per step); measure them on this "
                "checkpoint with benchmarks/caches.py --calibrate, or use a first-block cache"
            )
        cache = cache.model_copy(update={"mag_ratios": model.mag_ratios})
    if isinstance(cache, FirstBlockCache) and cache.thresholds:
        threshold = cache.thresholds.get(model.name, cache.threshold)
        cache = cache.model_copy(update={"threshold": threshold, "thresholds": {}})
    if cache == profile.cache:
        return profile
    if profile.name == AUTO:  # the plan weighed compiling without a cache, which skips the steps that it would shorten
        profile = profile.model_copy(update={"compile": False})
    try:
        return RuntimeProfile(**(dict(profile) | {"cache": cache}))
    except ValidationError as error:
        raise ConfigError("; ".join(problem["msg"] for problem in error.errors())) from error


def available_machine() -> Machine:
    """This machine, with its GPU memory reduced by what other processes use."""
    machine = detect_machine()
    if machine.gpu_memory_bytes is None:
        return machine
    from ...pipeline.memory.device import available_bytes

    # The plan includes the CUDA context, but asking the driver for free memory has already created it.
    return replace(machine, gpu_memory_bytes=min(machine.gpu_memory_bytes, available_bytes() + CUDA_CONTEXT))


def choose_profile(
    request: GenerationRequest,
    model: ModelConfig,
    loaded: RuntimeProfile | None = None,
    machine: Machine | None = None,
    videos: int = 1,
) -> Choice:
    """The profile of the fastest mode that fits this machine, or the loaded profile if it fits.

    Args:
        request: fields that are None take the model's defaults.
        model: config of the checkpoint.
        loaded: profile of the loaded model; reloading costs more time than a faster mode saves.
        machine: the machine to plan for; None detects this machine and its free memory.
        videos: number of videos of this size to come, by which compiling is weighed.

    Raises:
        GpuMemoryError: no mode fits; the message names the nearest requests that do.
        ConfigError: the machine cannot run the model in any mode.
    """
    found = plan(request, model, machine or available_machine(), videos=videos)
    if loaded is not None and (same := found.like(loaded)) is not None:
        profile = loaded.model_copy(update={"vae_tiling": same.mode.vae_tiling})
        return Choice(profile, machine=found.machine)
    mode = found.require_choice()
    profile = _profile(AUTO, mode.mode, found.machine.device, text_stays=mode.text_stays, compile=mode.compile)
    return Choice(profile, _reason(found, mode), found.machine)


def place_beside(request: ResolvedRequest, model: ModelConfig, choice: Choice, *, is_empty: bool) -> FindPlace:
    """Returns where a language model runs, by its memory in bytes: on the GPU if it fits next to the video model.

    Otherwise it runs on the CPU, or on the GPU before the video model is loaded, if it fits there alone.

    Args:
        choice: the profile of the video.
        is_empty: whether no part of the video model is loaded.
    """
    profile = choice.profile

    def find(needed_bytes: int) -> Place:
        if profile.device == "cpu":
            return Place()
        machine = choice.machine or available_machine()
        if machine.gpu_memory_bytes is None:
            return Place()
        mode = Mode(profile.offload, profile.quantization, profile.vae_tiling)
        leaves = profile.residence("text_encoder") != "device"
        video = weigh(request, model, machine, mode, as_named=leaves).needed_gpu_bytes
        if needed_bytes <= machine.gpu_memory_bytes - video:
            return Place("cuda")
        fits_alone = needed_bytes <= machine.gpu_memory_bytes - CUDA_CONTEXT
        return Place("cuda", stays=False) if is_empty and fits_alone else Place()

    return find


def for_the_largest(requests: Iterable[ResolvedRequest], choose: Callable[[ResolvedRequest], Choice]) -> Choice | None:
    """The choice for the largest request that fits, which also fits all smaller ones; None if none fits.

    Args:
        choose: returns the choice for one request; raises GpuMemoryError if the request does not fit in any mode.
    """
    by_size = {(r.width, r.height, r.num_frames, r.true_cfg_scale > 1): r for r in requests}
    for _, request in sorted(by_size.items(), key=lambda item: math.prod(item[0][:3]), reverse=True):
        with contextlib.suppress(GpuMemoryError):  # try the next smaller one
            return choose(request)
    return None


def _profile(name: str, mode: Mode, device: str, *, text_stays: bool = False, compile: bool = False) -> RuntimeProfile:
    on_gpu = ComponentPlacement(text_encoder="device", text_encoder_2="device")
    return RuntimeProfile(
        name=name, device=device, dtypes=DTYPES[device], offload=mode.offload, quantization=mode.quantization,
        vae_tiling=mode.vae_tiling, placement=on_gpu if text_stays else ComponentPlacement(), compile=compile,
    )  # fmt: skip


def _reason(found: Plan, mode: ModePlan) -> str:
    """The note about the choice and its reason, in one sentence."""
    machine = found.machine
    fitting = sum(item.fits for item in found.modes)
    if machine.gpu_memory_bytes is None:
        where = f"on the CPU, needs {gib(mode.host_peak_bytes)} of main memory"
    else:
        where = f"needs {gib(mode.needed_gpu_bytes)} of {gib(machine.gpu_memory_bytes)} of GPU memory"
    lossy = ""
    if mode.mode.quantization is not None:
        exact = [item for item in found.modes if item.fits and item.mode.quantization is None]
        instead = f"; in full precision: --profile {min(exact, key=_seconds).name}" if exact else ""
        lossy = f"; {mode.mode.method.name} changes the frames slightly{instead}"
    took = f"{_seconds(mode):,.0f} s"
    if mode.seconds_range is not None:
        took = f"{span(*mode.seconds_range)}, a guess for this GPU"
    decided = "; the text encoders stay on the GPU between prompts" if mode.text_stays else ""
    if mode.compile:
        decided += f"; {mode.compiling}"
    return (
        f"profile {AUTO}: {mode.name}, {where}; the fastest of {fitting} modes that fit; about "
        f"{took}, not counting model loading{decided}{lossy}"
    )


def _seconds(item: ModePlan) -> float:
    assert item.seconds is not None  # set for every mode that fits
    return item.seconds.total
